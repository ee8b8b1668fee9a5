//! Stage `policy_binding`: AuthorizationPolicy → its selector, if workloads must list it.
//!
//! A projection: editing the rules of a policy touches no workload.
//! Source: spec/workload-discovery.md §5.5.

use flow::{Output, Reads, View};
use model::input::{Action, AuthorizationPolicy};
use model::{Finding, Labels, ObjectKey};

use crate::selector::{self, SelectorAt};
use crate::tables::InputView;

/// The selector of a policy that ztunnel enforces.
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
    let policy = object.ok().filter(|policy| is_enforced_by_ztunnel(policy));
    match policy.and_then(|policy| policy.selector.clone()) {
        Some(selector) => Output::one(key.clone(), PolicyBinding { selector }),
        None => Output::none(),
    }
}

/// Whether a policy becomes an Authorization at all. Source: spec/workload-discovery.md §5.2.
pub(crate) fn is_enforced_by_ztunnel(policy: &AuthorizationPolicy) -> bool {
    policy.targets.is_empty()
        && !policy.dry_run
        && matches!(policy.action, Action::Allow | Action::Deny)
}
