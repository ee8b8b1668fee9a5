//! Policies that allow waypoints, where the installation wants them.
//! Source: spec/workload-discovery.md §5.6.

use flow::{Output, Reads};
use model::derived::{L4Match, PolicyScope, StringCondition};
use model::{AuthorizationRow, Finding, ObjectKey, Str, WaypointRow};

use super::AuthorizationView;
use crate::tables;

/// The policy of a waypoint. It is listed by what is bound to the waypoint; where no other policy
/// allows anything, it lets nobody past the waypoint.
pub(super) fn derive(
    key: &ObjectKey,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AuthorizationRow, Finding> {
    let Some(waypoint) = view.waypoints.get(reads, key) else {
        return Output::gone();
    };
    let mesh = tables::mesh(view.mesh, reads);
    let Some(policy) = policy_key(waypoint).filter(|_| mesh.features.allow_waypoint_policies)
    else {
        return Output::none();
    };
    let principal = |account: &Str| {
        let text = format!("{}/ns/{}/sa/{account}", mesh.trust_domain, key.ns);
        StringCondition::Exact(Str::from(text))
    };
    let any = L4Match {
        principals: waypoint.service_accounts.iter().map(principal).collect(),
        ..L4Match::default()
    };
    let row = AuthorizationRow {
        key: policy.clone(),
        scope: PolicyScope::Selector,
        deny: false,
        dry_run: false,
        groups: vec![vec![vec![any]]],
    };
    Output::one(policy, row)
}

/// Resource name of a waypoint's policy; one that is not ready or whose accounts are not known
/// has none.
pub(crate) fn policy_key(waypoint: &WaypointRow) -> Option<ObjectKey> {
    let ObjectKey { ns, name } = &waypoint.key;
    let known = waypoint.ready && !waypoint.service_accounts.is_empty();
    known.then(|| ObjectKey::new(ns.clone(), format!("istio_allow_waypoint_{ns}_{name}")))
}
