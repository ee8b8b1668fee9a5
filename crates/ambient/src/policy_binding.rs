//! Stage `policy_binding`: AuthorizationPolicy → its selector, if workloads must list it.
//!
//! A projection: editing the rules of a policy touches no workload.
//! Source: spec/workload-discovery.md §5.5.

use flow::{Output, Reads, View};
use model::derived::Features;
use model::input::{Action, AuthorizationPolicy};
use model::{Finding, Labels, ObjectKey};

use crate::selector::{self, SelectorAt};
use crate::tables::{self, InputView, MeshTable};

/// The selector of a policy that ztunnel evaluates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyBinding {
    /// Labels that a workload must have; empty selects every workload in range.
    pub selector: Labels,
}

/// The tracked view of policy bindings.
pub type PolicyBindingTable<'t> = View<'t, ObjectKey, PolicyBinding>;

/// Index of policy bindings by the place of their selector.
#[derive(Clone, Copy, Debug)]
pub struct PoliciesBySelector;

impl flow::Index<ObjectKey, PolicyBinding> for PoliciesBySelector {
    type At = SelectorAt;

    fn keys(key: &ObjectKey, row: &PolicyBinding, emit: &mut dyn FnMut(&SelectorAt)) {
        emit(&selector::place(&key.ns, &row.selector));
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

/// The binding of a policy; no row when workloads need not list it.
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
    match policy.and_then(|policy| policy.selector.clone()) {
        Some(selector) => Output::one(key.clone(), PolicyBinding { selector }),
        None => Output::none(),
    }
}

/// Whether a policy becomes an Authorization at all. Source: spec/workload-discovery.md §5.2.
pub(crate) fn is_sent_to_ztunnel(policy: &AuthorizationPolicy, features: Features) -> bool {
    policy.targets.is_empty()
        && (!policy.dry_run || features.dry_run_policies)
        && matches!(policy.action, Action::Allow | Action::Deny)
}
