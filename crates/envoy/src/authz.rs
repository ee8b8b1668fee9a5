//! AuthorizationPolicies at a waypoint: which ones attach, and what RBAC filters they become.
//!
//! Security never widens here: what cannot be expressed drops an ALLOW rule as a whole,
//! and only the one condition of a DENY, AUDIT or CUSTOM rule.
//! Source: spec/policy-and-traffic.md §0.3, §1; spec/envoy-config.md §2.8.

mod conditions;
mod custom;
mod identity;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Reads, View};
use model::input::{Action, AuthorizationPolicy, AuthzRule, RequestAuthentication};
use model::jwks::Jwks;
use model::{Labels, MeshRow, NamespacedHostname, ObjectKey, Parsed, ServiceRow, Str, WaypointRow};

use crate::authn;
use crate::index::{PolicyByTarget, Target, TargetKind, UntargetedPolicyByNamespace};
use crate::ir::{ChainFilter, Expr, Outbound, RbacAction, RbacIr, RbacRuleIr};

pub(crate) use conditions::{Destination, Layer, Place, Scope};
pub(crate) use custom::{Asked, authorizer, is_header_name};
pub(crate) use identity::bundle;
pub(crate) use usage::{http_fields, peer_fields, token_fields, usage};

/// The table of services.
pub(crate) type Services<'t> = View<'t, NamespacedHostname, ServiceRow>;

/// The class that GatewayClass targets may always name.
pub(crate) const WAYPOINT_CLASS: &str = "istio-waypoint";

/// What the filters of policies are made of.
#[derive(Clone, Copy)]
pub struct PolicyTables<'t> {
    /// AuthorizationPolicies; index [`crate::index::PolicyByTarget`].
    pub policies: View<'t, ObjectKey, Parsed<AuthorizationPolicy>>,
    /// RequestAuthentications; index [`crate::index::RequestAuthenticationByTarget`].
    pub authentications: View<'t, ObjectKey, Parsed<RequestAuthentication>>,
    /// Key sets, by [`model::jwks::JwksSource`].
    pub jwks: View<'t, Str, Jwks>,
    /// Services; index [`crate::index::ServiceByHostname`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
}

/// Everything that policies want of the chains of a service, or of the chains without one.
pub(crate) struct Attached<'t> {
    policies: Vec<&'t Arc<Parsed<AuthorizationPolicy>>>,
    /// By the names that CUSTOM policies use; why not, where one cannot be asked.
    authorizers: BTreeMap<Str, Result<Asked, String>>,
    /// Filter of tokens.
    tokens: Option<ChainFilter>,
    is_ingress: bool,
}

/// What policies may be attached to, as seen from a chain: its service, when it has one, the
/// Gateway and its class.
pub(crate) fn targets(
    mesh: &MeshRow,
    waypoint: &WaypointRow,
    service: Option<&ServiceRow>,
) -> Vec<Target> {
    let root = mesh.root_namespace.clone();
    let class = ObjectKey::new(root.clone(), waypoint.class.clone());
    let mut targets = vec![
        Target::new(TargetKind::Gateway, waypoint.key.clone()),
        Target::new(TargetKind::GatewayClass, class),
    ];
    if waypoint.class != WAYPOINT_CLASS && waypoint.is_mesh_class() {
        let any = ObjectKey::new(root, WAYPOINT_CLASS);
        targets.push(Target::new(TargetKind::GatewayClass, any));
    }
    targets.extend(service.and_then(Target::of_service));
    targets
}

/// What applies to the chains of a service at a waypoint.
pub(crate) fn attached<'t>(
    tables: &PolicyTables<'t>,
    reads: &mut Reads,
    mesh: &MeshRow,
    waypoint: &WaypointRow,
    service: Option<&ServiceRow>,
) -> Attached<'t> {
    let targets = targets(mesh, waypoint, service);
    collect(tables, reads, mesh, &targets, None)
}

/// What applies to the chains of an ingress gateway: policies that name it, and those without
/// targets, of its namespace and of the root namespace, that select one of its instances.
pub(crate) fn attached_to_ingress<'t>(
    tables: &PolicyTables<'t>,
    reads: &mut Reads,
    mesh: &MeshRow,
    gateway: &ObjectKey,
    instances: &[Labels],
) -> Attached<'t> {
    let targets = [Target::new(TargetKind::Gateway, gateway.clone())];
    let selected = Selected {
        gateway,
        root: &mesh.root_namespace,
        instances,
    };
    collect(tables, reads, mesh, &targets, Some(&selected))
}

/// An ingress gateway as selectors see it.
pub(crate) struct Selected<'a> {
    /// Its key.
    pub(crate) gateway: &'a ObjectKey,
    /// Namespace whose policies are for all.
    pub(crate) root: &'a Str,
    /// Labels of its instances.
    pub(crate) instances: &'a [Labels],
}

impl Selected<'_> {
    /// Namespaces whose selectors count, each once.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Str> {
        let own = Some(&self.gateway.ns).filter(|ns| *ns != self.root);
        [self.root].into_iter().chain(own)
    }

    /// Whether a selector means an instance; none and an empty one mean everything.
    pub(crate) fn meets(&self, selector: Option<&Labels>) -> bool {
        let Some(selector) = selector else {
            return true;
        };
        let covers = |labels: &Labels| {
            let mut pairs = selector.iter();
            pairs.all(|(key, value)| labels.get(key) == Some(value))
        };
        self.instances.iter().any(covers)
    }
}

fn collect<'t>(
    tables: &PolicyTables<'t>,
    reads: &mut Reads,
    mesh: &MeshRow,
    targets: &[Target],
    selected: Option<&Selected<'_>>,
) -> Attached<'t> {
    // Sorted by key, each once.
    let mut found = BTreeMap::new();
    for target in targets {
        found.extend(tables.policies.by::<PolicyByTarget>(reads, target));
    }
    if let Some(selected) = selected {
        for ns in selected.namespaces() {
            let all = tables.policies.by::<UntargetedPolicyByNamespace>(reads, ns);
            found.extend(all.filter(|(_, parsed)| {
                // Whom one that cannot be read was to select is not known.
                let policy = parsed.ok();
                policy.is_none_or(|policy| selected.meets(policy.selector.as_ref()))
            }));
        }
    }
    let policies: Vec<_> = found.into_values().collect();
    let authorizers = providers(&policies).map(|name| {
        let asked = authorizer(&name, mesh, tables.services, reads);
        (name, asked)
    });
    Attached {
        authorizers: authorizers.collect(),
        tokens: authn::filter(tables, reads, mesh, targets, selected),
        policies,
        is_ingress: selected.is_some(),
    }
}

/// Names of the providers that CUSTOM policies ask, each once.
fn providers(policies: &[&Arc<Parsed<AuthorizationPolicy>>]) -> impl Iterator<Item = Str> + use<> {
    let custom = policies.iter().filter_map(|parsed| parsed.ok());
    let custom = custom.filter(|policy| policy.action == Action::Custom);
    let names: BTreeSet<Str> = custom.map(provider_of).collect();
    names.into_iter()
}

fn provider_of(policy: &AuthorizationPolicy) -> Str {
    policy.provider.clone().unwrap_or_default()
}

impl Attached<'_> {
    /// The filters of a chain, in order: CUSTOM, tokens, AUDIT, DENY, ALLOW; and what the chain
    /// itself needs clusters for.
    pub(crate) fn filters(
        &self,
        mesh: &MeshRow,
        at: Place<'_>,
    ) -> (Vec<ChainFilter>, BTreeSet<Outbound>) {
        let layer = at.layer;
        let (mut out, mut outbound) = (Vec::new(), BTreeSet::new());
        let many = self.authorizers.len() > 1 && !mesh.features.many_authorizers;
        for (name, asked) in &self.authorizers {
            let usable = asked.as_ref().ok().filter(|_| !many);
            // What speaks HTTP cannot be asked about connections.
            let usable = usable.filter(|asked| layer == Layer::Http || asked.filter.http.is_none());
            let rules = Some(self.asks(name, usable.is_some(), mesh, at));
            let Some(asked) = usable else {
                out.push(ChainFilter::Rbac(RbacIr {
                    action: RbacAction::Deny,
                    rules,
                    shadow: None,
                }));
                continue;
            };
            out.push(ChainFilter::Rbac(RbacIr {
                action: RbacAction::Ask,
                rules: None,
                shadow: rules,
            }));
            out.push(ChainFilter::ExtAuthz(Box::new(asked.filter.clone())));
            outbound.insert(asked.outbound.clone());
        }
        if layer == Layer::Http {
            out.extend(self.tokens.clone());
        }
        let bucket = |action| self.bucket(mesh, at, action);
        let buckets = [Action::Audit, Action::Deny, Action::Allow].into_iter();
        out.extend(buckets.filter_map(bucket).map(ChainFilter::Rbac));
        (out, outbound)
    }

    /// The rules of CUSTOM policies of one provider.
    fn asks(
        &self,
        provider: &Str,
        usable: bool,
        mesh: &MeshRow,
        at: Place<'_>,
    ) -> BTreeMap<Str, RbacRuleIr> {
        let mut rules = BTreeMap::new();
        for parsed in &self.policies {
            let policy = parsed.ok().filter(|policy| policy.action == Action::Custom);
            let Some(policy) = policy.filter(|policy| provider_of(policy) == *provider) else {
                continue;
            };
            let scope = self.scope(mesh, parsed.key(), at, policy.action);
            let dash = if provider.is_empty() { "" } else { "-" };
            let suffix = if usable {
                ""
            } else {
                "-deny-due-to-bad-CUSTOM-action"
            };
            add(&mut rules, policy, &scope, |index| {
                let plain = rule_key(parsed.key(), index);
                arcstr::format!("istio-ext-authz-{provider}{dash}{plain}{suffix}")
            });
        }
        rules
    }

    fn scope<'a>(
        &self,
        mesh: &'a MeshRow,
        key: &'a ObjectKey,
        at: Place<'a>,
        action: Action,
    ) -> Scope<'a> {
        Scope {
            mesh,
            ns: &key.ns,
            at,
            allow: action == Action::Allow,
            is_ingress: self.is_ingress,
        }
    }

    /// The filter of one action; `None` when no policy has it.
    fn bucket(&self, mesh: &MeshRow, at: Place<'_>, action: Action) -> Option<RbacIr> {
        let mut rules: Option<BTreeMap<Str, RbacRuleIr>> = None;
        let mut shadow: Option<BTreeMap<Str, RbacRuleIr>> = None;
        for parsed in &self.policies {
            let key = |index| rule_key(parsed.key(), index);
            let scope = self.scope(mesh, parsed.key(), at, action);
            match &parsed.body {
                Ok(policy) if policy.action == action => {
                    let dry = policy.dry_run && matches!(action, Action::Allow | Action::Deny);
                    let into = if dry { &mut shadow } else { &mut rules };
                    add(into.get_or_insert_default(), policy, &scope, key);
                }
                // It may allow or deny anything: what is certain is where it is attached.
                Err(_) if action == Action::Allow => {
                    let nothing = AuthorizationPolicy::default();
                    add(rules.get_or_insert_default(), &nothing, &scope, key);
                }
                _ => {}
            }
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
}

/// Adds the rules of a policy under the keys of their numbers.
fn add(
    into: &mut BTreeMap<Str, RbacRuleIr>,
    policy: &AuthorizationPolicy,
    scope: &Scope<'_>,
    key: impl Fn(usize) -> Str,
) {
    if policy.rules.is_empty() {
        // An entry that never matches: an ALLOW refuses everything, the others nothing.
        let never = || vec![Expr::never()];
        let rule = RbacRuleIr {
            permissions: never(),
            principals: never(),
        };
        into.insert(key(0), rule);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        if let Some(rule) = compile_rule(rule, scope) {
            into.insert(key(index), rule);
        }
    }
}

fn rule_key(key: &ObjectKey, index: usize) -> Str {
    arcstr::format!("ns[{}]-policy[{}]-rule[{index}]", key.ns, key.name)
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
