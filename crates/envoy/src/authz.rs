//! AuthorizationPolicies at a waypoint: which ones attach, and what RBAC filters they become.
//!
//! Security never widens here: what cannot be expressed drops an ALLOW rule as a whole,
//! and only the one condition of a DENY, AUDIT or CUSTOM rule.
//! Source: spec/policy-and-traffic.md §0.3, §1; spec/envoy-config.md §2.8.

mod conditions;
mod identity;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::{Reads, View};
use model::input::{Action, AuthorizationPolicy, AuthzRule};
use model::{MeshRow, ObjectKey, Parsed, ServiceRow, Str, WaypointRow};

use crate::index::{PolicyByTarget, Target, TargetKind};
use crate::ir::{ChainFilter, Expr, RbacAction, RbacIr, RbacRuleIr};

pub(crate) use conditions::{Layer, Scope};
pub(crate) use identity::bundle;
pub(crate) use usage::{http_fields, usage};

/// The table of policies.
pub(crate) type Policies<'t> = View<'t, ObjectKey, Parsed<AuthorizationPolicy>>;

/// The class that GatewayClass targets may always name.
pub(crate) const WAYPOINT_CLASS: &str = "istio-waypoint";

/// Policies that apply to a chain of a waypoint: of the service, when the chain has one,
/// of the Gateway, and of its class. Sorted by key, each once.
pub(crate) fn attached<'t>(
    policies: Policies<'t>,
    reads: &mut Reads,
    mesh: &MeshRow,
    waypoint: &WaypointRow,
    service: Option<&ServiceRow>,
) -> Vec<&'t Arc<Parsed<AuthorizationPolicy>>> {
    let root = mesh.root_namespace.clone();
    let class = ObjectKey::new(root.clone(), waypoint.class.clone());
    let mut targets = vec![
        Target::new(TargetKind::Gateway, waypoint.key.clone()),
        Target::new(TargetKind::GatewayClass, class),
    ];
    if waypoint.class != WAYPOINT_CLASS && waypoint.is_mesh_class {
        let any = ObjectKey::new(root, WAYPOINT_CLASS);
        targets.push(Target::new(TargetKind::GatewayClass, any));
    }
    targets.extend(service.and_then(Target::of_service));
    let mut found = BTreeMap::new();
    for target in &targets {
        found.extend(policies.by::<PolicyByTarget>(reads, target));
    }
    found.into_values().collect()
}

/// The filters of a chain, in order: CUSTOM (which no provider can decide in this
/// version, so it refuses what it matches), AUDIT, DENY, ALLOW.
pub(crate) fn compile(
    policies: &[&Arc<Parsed<AuthorizationPolicy>>],
    mesh: &MeshRow,
    layer: Layer,
) -> Vec<ChainFilter> {
    let bucket = |action| filter(policies, mesh, layer, action);
    [Action::Custom, Action::Audit, Action::Deny, Action::Allow]
        .into_iter()
        .filter_map(bucket)
        .map(ChainFilter::Rbac)
        .collect()
}

/// The filter of one action; `None` when no policy has it.
fn filter(
    policies: &[&Arc<Parsed<AuthorizationPolicy>>],
    mesh: &MeshRow,
    layer: Layer,
    action: Action,
) -> Option<RbacIr> {
    let mut rules: Option<BTreeMap<Str, RbacRuleIr>> = None;
    let mut shadow: Option<BTreeMap<Str, RbacRuleIr>> = None;
    for parsed in policies {
        let Some(policy) = parsed.ok().filter(|policy| policy.action == action) else {
            continue;
        };
        let dry = policy.dry_run && matches!(action, Action::Allow | Action::Deny);
        let into = if dry { &mut shadow } else { &mut rules };
        let scope = Scope {
            mesh,
            ns: &parsed.key().ns,
            layer,
            allow: action == Action::Allow,
        };
        add(into.get_or_insert_default(), parsed.key(), policy, &scope);
    }
    if rules.is_none() && shadow.is_none() {
        return None;
    }
    let action = match action {
        Action::Allow => RbacAction::Allow,
        Action::Audit => RbacAction::Log,
        Action::Deny | Action::Custom => RbacAction::Deny,
    };
    Some(RbacIr {
        action,
        rules,
        shadow,
    })
}

fn add(
    into: &mut BTreeMap<Str, RbacRuleIr>,
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
    scope: &Scope<'_>,
) {
    if policy.rules.is_empty() {
        // An entry that never matches: an ALLOW refuses everything, the others nothing.
        let never = || vec![Expr::never()];
        let rule = RbacRuleIr {
            permissions: never(),
            principals: never(),
        };
        into.insert(rule_key(key, 0, policy), rule);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        if let Some(rule) = compile_rule(rule, scope) {
            into.insert(rule_key(key, index, policy), rule);
        }
    }
}

fn rule_key(key: &ObjectKey, index: usize, policy: &AuthorizationPolicy) -> Str {
    let plain = arcstr::format!("ns[{}]-policy[{}]-rule[{index}]", key.ns, key.name);
    if policy.action != Action::Custom {
        return plain;
    }
    match policy.provider.as_deref() {
        None | Some("") => {
            arcstr::format!("istio-ext-authz-{plain}-deny-due-to-bad-CUSTOM-action")
        }
        Some(provider) => {
            arcstr::format!("istio-ext-authz-{provider}-{plain}-deny-due-to-bad-CUSTOM-action")
        }
    }
}

/// A rule: `from` AND `to` AND `when`; `None` when an ALLOW rule cannot be expressed.
fn compile_rule(rule: &AuthzRule, scope: &Scope<'_>) -> Option<RbacRuleIr> {
    let (mut destination, mut source) = (Vec::new(), Vec::new());
    for (key, values) in &rule.when {
        let about_destination = conditions::is_about_destination(key);
        let into = if about_destination {
            &mut destination
        } else {
            &mut source
        };
        scope.push(into, scope.when(key, values))?;
    }
    let permissions = entries(&rule.to, &destination, |operation, all| {
        scope.operation(operation, all)
    })?;
    let principals = entries(&rule.from, &source, |from, all| scope.source(from, all))?;
    Some(RbacRuleIr {
        permissions,
        principals,
    })
}

/// One conjunction per entry, with the shared conditions at its end; one of the shared
/// conditions alone when there is no entry.
fn entries<T>(
    list: &[T],
    shared: &[Expr],
    fill: impl Fn(&T, &mut Vec<Expr>) -> Option<()>,
) -> Option<Vec<Expr>> {
    if list.is_empty() {
        return Some(vec![Expr::AllOf(shared.to_vec())]);
    }
    list.iter()
        .map(|entry| {
            let mut all = Vec::new();
            fill(entry, &mut all)?;
            all.extend_from_slice(shared);
            Some(Expr::AllOf(all))
        })
        .collect()
}

#[cfg(test)]
mod tests;
