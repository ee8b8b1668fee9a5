//! What DestinationRules say of a service, seen from a waypoint: which rules apply
//! ([`resolve`]), what of them holds for a port and subset ([`policy_of`]), and what becomes of
//! it in clusters ([`cluster`]), routes ([`hash_of`]) and TCP chains ([`tcp_settings`]).
//!
//! Used by the stages that apply rules and by the one that reports on them, so that what is said
//! and what is done come from the same functions. Source: spec/policy-and-traffic.md §7.

pub(crate) mod cluster;
mod locality;
mod lookup;
pub(crate) mod tls;

#[cfg(test)]
mod tests;

use std::time::Duration;

use flow::{Reads, View};
use model::input::{
    Balancer, ConsistentHash, DestinationRule, HashKey, PortPolicy, RetryBudget, TrafficPolicy,
    TunnelSettings,
};
use model::{MeshRow, ObjectKey, Parsed, ServiceRow};

use crate::ir::Direction;

pub(crate) use lookup::{
    Resolved, claims_foreign_host, export_to, host_rank, is_visible, resolve, rule_host,
};

/// What rules are read from.
#[derive(Clone, Copy)]
pub(crate) struct TrafficTables<'t> {
    /// Rules; index [`crate::index::DestinationRuleByHost`].
    pub(crate) destination_rules: View<'t, ObjectKey, Parsed<DestinationRule>>,
}

/// A service, and from where it is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The waypoint.
    pub(crate) waypoint: &'a ObjectKey,
    /// Whether the service is behind it or elsewhere.
    pub(crate) direction: Direction,
    /// The service.
    pub(crate) service: &'a ServiceRow,
    /// Mesh settings.
    pub(crate) mesh: &'a MeshRow,
}

impl<'a> Seen<'a> {
    /// A service as the waypoint sees it: its own one, or one elsewhere.
    pub(crate) fn from(
        waypoint: &'a ObjectKey,
        service: &'a ServiceRow,
        mesh: &'a MeshRow,
    ) -> Self {
        let mut owners = crate::attachment::waypoints_of(service);
        let direction = if owners.any(|owner| owner == waypoint) {
            Direction::InboundVip
        } else {
            Direction::Outbound
        };
        Self {
            waypoint,
            direction,
            service,
            mesh,
        }
    }
}

/// What holds for a port and subset of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EffectivePolicy {
    /// The rule that the policy is taken from.
    pub(crate) rule: Option<ObjectKey>,
    /// Balancing, pool, outlier detection, TLS.
    pub(crate) base: PortPolicy,
    /// `tunnel`.
    pub(crate) tunnel: Option<TunnelSettings>,
    /// `proxyProtocol`.
    pub(crate) proxy_protocol: Option<u8>,
    /// `retryBudget`.
    pub(crate) retry_budget: Option<RetryBudget>,
    /// What a BackendTLSPolicy says, where the rule has no `tls`.
    pub(crate) backend: Option<tls::Backend>,
}

/// What rules say of a port and subset. Settings of a port replace everything else; a subset
/// replaces block by block. Source: spec/policy-and-traffic.md §7.2.
pub(crate) fn policy_of(resolved: &Resolved<'_>, port: u16, subset: &str) -> EffectivePolicy {
    let mut out = resolved
        .policy()
        .map(|policy| narrowed(policy, port))
        .unwrap_or_default();
    if let Some(policy) = resolved.subset(subset).and_then(|of| of.policy.as_ref()) {
        out = over(out, policy, port);
    }
    out.rule = Some(resolved.key().clone());
    out
}

/// A policy for one port.
fn narrowed(policy: &TrafficPolicy, port: u16) -> EffectivePolicy {
    match policy.ports.get(&port) {
        Some(base) => EffectivePolicy {
            base: base.clone(),
            ..EffectivePolicy::default()
        },
        None => EffectivePolicy {
            rule: None,
            base: policy.base.clone(),
            tunnel: policy.tunnel.clone(),
            proxy_protocol: policy.proxy_protocol,
            retry_budget: policy.retry_budget,
            backend: None,
        },
    }
}

/// A subset's policy over that of its rule.
fn over(under: EffectivePolicy, policy: &TrafficPolicy, port: u16) -> EffectivePolicy {
    if policy.ports.contains_key(&port) {
        return narrowed(policy, port);
    }
    let base = &policy.base;
    EffectivePolicy {
        rule: None,
        base: PortPolicy {
            balancer: base.balancer.clone().or(under.base.balancer),
            pool: base.pool.clone().or(under.base.pool),
            outlier: base.outlier.clone().or(under.base.outlier),
            tls: base.tls.clone().or(under.base.tls),
        },
        tunnel: policy.tunnel.clone().or(under.tunnel),
        proxy_protocol: policy.proxy_protocol.or(under.proxy_protocol),
        retry_budget: policy.retry_budget.or(under.retry_budget),
        backend: None,
    }
}

/// The keys by which routes to a service are hashed. The default route of a waypoint looks at
/// the policy for all ports alone (`only_top_level`).
pub(crate) fn hash_of(
    tables: TrafficTables<'_>,
    reads: &mut Reads,
    seen: &Seen<'_>,
    (port, subset): (u16, &str),
    only_top_level: bool,
) -> Vec<HashKey> {
    let Some(resolved) = resolve(tables, reads, seen) else {
        return Vec::new();
    };
    let key = if only_top_level {
        resolved.policy().and_then(|policy| key_of(&policy.base))
    } else {
        key_of(&policy_of(&resolved, port, subset).base)
    };
    key.into_iter().collect()
}

fn key_of(policy: &PortPolicy) -> Option<HashKey> {
    match &policy.balancer.as_ref()?.balancer {
        Balancer::Hash(ConsistentHash { key, .. }) => key.clone(),
        _ => None,
    }
}

/// Whether rules define a subset of a service; the empty one is the whole of it.
pub(crate) fn subset_exists(
    tables: TrafficTables<'_>,
    reads: &mut Reads,
    seen: &Seen<'_>,
    subset: &str,
) -> bool {
    subset.is_empty()
        || resolve(tables, reads, seen).is_some_and(|found| found.subset(subset).is_some())
}

/// What rules say of opaque connections to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpSettings {
    /// Idle time; zero for no limit.
    pub(crate) idle_timeout: Option<Duration>,
    /// Life.
    pub(crate) max_duration: Option<Duration>,
    /// The source address is hashed.
    pub(crate) hash_source_ip: bool,
    /// They are tunnelled in HTTP to another proxy.
    pub(crate) tunnel: Option<TunnelSettings>,
}

/// What rules say of opaque connections to a port and subset of a service.
/// Source: spec/envoy-config.md §2.5.
pub(crate) fn tcp_settings(
    tables: TrafficTables<'_>,
    reads: &mut Reads,
    seen: &Seen<'_>,
    (port, subset): (u16, &str),
) -> TcpSettings {
    let Some(resolved) = resolve(tables, reads, seen) else {
        return TcpSettings::default();
    };
    let policy = policy_of(&resolved, port, subset);
    let pool = policy.base.pool.as_ref();
    TcpSettings {
        idle_timeout: pool.and_then(|pool| pool.tcp_idle_timeout),
        max_duration: pool.and_then(|pool| pool.max_connection_duration),
        hash_source_ip: key_of(&policy.base) == Some(HashKey::SourceIp),
        tunnel: policy.tunnel,
    }
}
