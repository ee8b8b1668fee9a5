//! Whether clients can go round the waypoint of a policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::Reads;
use model::input::{Action, AuthorizationPolicy, AuthzRule, AuthzSource};
use model::{ObjectKey, Parsed, ServiceRow, Severity, Str, WaypointRow, WorkloadRow};

use super::{Reached, Report};
use crate::authz::{http_fields, usage};
use crate::index::{UntargetedPolicyByNamespace, WorkloadByService};

type Policies<'t> = Vec<(&'t ObjectKey, &'t Arc<Parsed<AuthorizationPolicy>>)>;

/// Untargeted policies by namespace, read once each.
type Seen<'t> = BTreeMap<Str, Policies<'t>>;

impl<'t> Report<'_, 't> {
    /// One finding per policy, naming the first service with pods that admit others than the
    /// waypoint.
    pub(super) fn bypass(&mut self, reads: &mut Reads, reached: &[Reached<'_>]) {
        if self.policy.dry_run || self.policy.action == Action::Audit {
            return;
        }
        let mut seen = Seen::new();
        let open = reached
            .iter()
            .find(|reached| self.is_open(reads, reached.service, &mut seen));
        let Some(Reached { at, service }) = open else {
            return;
        };
        let what = format!(
            "Clients that connect to the pods of {} directly are not subject to this policy",
            service.key.hostname
        );
        let fix = "Add a policy for the pods that allows only the waypoint's service account";
        self.push("authz-bypass-direct-pod", Severity::Info, at, what, fix);
    }

    fn is_open(&self, reads: &mut Reads, service: &ServiceRow, seen: &mut Seen<'t>) -> bool {
        let Some(bound) = service.waypoint.as_ref().filter(|_| !service.external) else {
            return false;
        };
        let Some(waypoint) = self.view.waypoints.get(reads, &bound.key) else {
            return false;
        };
        let workloads = self.view.workloads;
        let mut pods = workloads.by::<WorkloadByService>(reads, &service.key);
        pods.any(|(_, pod)| {
            !pod.terminating && (!pod.hbone || !self.is_restricted(reads, pod, waypoint, seen))
        })
    }

    /// Whether the policies of a pod admit its waypoint alone.
    fn is_restricted(
        &self,
        reads: &mut Reads,
        pod: &WorkloadRow,
        waypoint: &WaypointRow,
        seen: &mut Seen<'t>,
    ) -> bool {
        let (mut allowed, mut others) = (false, false);
        for ns in [&pod.ns, &self.mesh.root_namespace] {
            let policies = seen.entry(ns.clone()).or_insert_with(|| {
                let policies = self.view.policies;
                policies
                    .by::<UntargetedPolicyByNamespace>(reads, ns)
                    .collect()
            });
            for (key, parsed) in policies.iter() {
                let Some(policy) = parsed.ok().filter(|policy| applies(policy, pod)) else {
                    continue;
                };
                let mut rules = policy.rules.iter();
                if policy.action == Action::Deny {
                    if rules.any(|rule| refuses_others(rule, waypoint)) {
                        return true;
                    }
                } else {
                    allowed = true;
                    others |= rules.any(|rule| admits_others(rule, &key.ns, waypoint));
                }
            }
        }
        allowed && !others
    }
}

fn applies(policy: &AuthorizationPolicy, pod: &WorkloadRow) -> bool {
    let fits = |(key, value): (&Str, &Str)| pod.labels.get(key) == Some(value);
    let selector = policy.selector.iter().flatten();
    matches!(policy.action, Action::Allow | Action::Deny)
        && !policy.dry_run
        && selector.into_iter().all(fits)
}

/// Whether an ALLOW rule admits anybody but the waypoint. One that ztunnel cannot evaluate
/// admits nobody.
fn admits_others(rule: &AuthzRule, ns: &Str, waypoint: &WaypointRow) -> bool {
    let only = |source: &AuthzSource| {
        let principals = &source.principals.values;
        let accounts = &source.service_accounts.values;
        let full = |account: &Str| match account.split_once('/') {
            Some(_) => account.clone(),
            None => arcstr::format!("{ns}/{account}"),
        };
        (!principals.is_empty() && principals.iter().all(|text| is_identity(text, waypoint)))
            || (!accounts.is_empty()
                && accounts
                    .iter()
                    .all(|text| is_account(&full(text), waypoint)))
    };
    if usage(rule).jwt || !http_fields(rule, None).is_empty() {
        return false;
    }
    rule.from.is_empty() || !rule.from.iter().all(only)
}

/// Whether a DENY rule refuses everybody but the waypoint.
fn refuses_others(rule: &AuthzRule, waypoint: &WaypointRow) -> bool {
    let all_but = |source: &AuthzSource| {
        let excepted = &source.principals.not_values;
        let rest = AuthzSource {
            principals: Default::default(),
            ..source.clone()
        };
        source.principals.values.is_empty()
            && rest == AuthzSource::default()
            && !excepted.is_empty()
            && excepted.iter().all(|text| is_identity(text, waypoint))
    };
    rule.to.is_empty() && rule.when.is_empty() && rule.from.iter().any(all_but)
}

/// Whether a principal (`<trust domain>/ns/<namespace>/sa/<account>`) is a waypoint's.
fn is_identity(principal: &str, waypoint: &WaypointRow) -> bool {
    let Some((_, rest)) = principal.split_once("/ns/") else {
        return false;
    };
    rest.split_once("/sa/")
        .is_some_and(|(ns, account)| is_account(&format!("{ns}/{account}"), waypoint))
}

/// Whether `<namespace>/<account>` is a waypoint's: that of an instance, or of the name that
/// deployments give it.
fn is_account(account: &str, waypoint: &WaypointRow) -> bool {
    account.split_once('/').is_some_and(|(ns, name)| {
        let known = &waypoint.service_accounts;
        ns == waypoint.key.ns && (name == waypoint.key.name || known.iter().any(|sa| sa == name))
    })
}
