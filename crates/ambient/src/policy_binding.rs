//! Stage `policy_binding`: AuthorizationPolicy → its selector, if workloads must list it, and
//! whether it names peers.
//!
//! A projection: editing the rules of a policy touches no workload, unless it then asks for
//! identities and did not before, or the reverse.
//! Source: spec/workload-discovery.md §5.5.

use flow::{Output, Reads, View};
use model::derived::Features;
use model::input::{Action, AuthorizationPolicy};
use model::{Finding, Labels, ObjectKey, Str};

use crate::selector::{self, SelectorAt};
use crate::tables::{self, InputView, MeshTable};

/// What workloads read of a policy that ztunnel evaluates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyBinding {
    /// Labels that a workload must have to list it; empty selects every workload in range.
    /// `None` for one of the whole namespace or mesh, which nobody need list.
    pub selector: Option<Labels>,
    /// Some rule names peers, of whom those without identity are none.
    pub names_peers: bool,
}

/// The tracked view of policy bindings.
pub type PolicyBindingTable<'t> = View<'t, ObjectKey, PolicyBinding>;

/// Index of policy bindings by the place of their selector.
#[derive(Clone, Copy, Debug)]
pub struct PoliciesBySelector;

impl flow::Index<ObjectKey, PolicyBinding> for PoliciesBySelector {
    type At = SelectorAt;

    fn keys(key: &ObjectKey, row: &PolicyBinding, emit: &mut dyn FnMut(&SelectorAt)) {
        if let Some(selector) = &row.selector {
            emit(&selector::place(&key.ns, selector));
        }
    }
}

/// Index of policy bindings that name peers, by namespace.
#[derive(Clone, Copy, Debug)]
pub struct PeerPoliciesByNamespace;

impl flow::Index<ObjectKey, PolicyBinding> for PeerPoliciesByNamespace {
    type At = Str;

    fn keys(key: &ObjectKey, row: &PolicyBinding, emit: &mut dyn FnMut(&Str)) {
        if row.names_peers {
            emit(&key.ns);
        }
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PolicyBindingView<'t> {
    /// AuthorizationPolicies.
    pub policies: InputView<'t, AuthorizationPolicy>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The binding of a policy; no row when it concerns no single workload.
pub fn derive(
    key: &ObjectKey,
    view: &PolicyBindingView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, PolicyBinding, Finding> {
    let Some(object) = view.policies.get(reads, key) else {
        return Output::gone();
    };
    let features = tables::mesh(view.mesh, reads).features;
    let policy = object
        .ok()
        .filter(|policy| is_sent_to_ztunnel(policy, features));
    let binding = policy.map(|policy| PolicyBinding {
        selector: policy.selector.clone(),
        names_peers: names_peers(policy),
    });
    match binding {
        Some(row) if row.selector.is_some() || row.names_peers => Output::one(key.clone(), row),
        _ => Output::none(),
    }
}

fn names_peers(policy: &AuthorizationPolicy) -> bool {
    let mut sources = policy.rules.iter().flat_map(|rule| &rule.from);
    let mut conditions = policy.rules.iter().flat_map(|rule| &rule.when);
    sources.any(|from| {
        let lists = [&from.principals, &from.namespaces, &from.service_accounts];
        lists.iter().any(|list| !list.is_empty())
    }) || conditions.any(|(key, _)| {
        matches!(
            key.as_str(),
            "source.principal" | "source.namespace" | "source.serviceAccount"
        )
    })
}

/// Whether a policy becomes an Authorization at all. Source: spec/workload-discovery.md §5.2.
pub(crate) fn is_sent_to_ztunnel(policy: &AuthorizationPolicy, features: Features) -> bool {
    policy.targets.is_empty()
        && (!policy.dry_run || features.dry_run_policies)
        && matches!(policy.action, Action::Allow | Action::Deny)
}
