//! Rules of `tls` and `tcp` at a waypoint. Source: spec/policy-and-traffic.md §6.4;
//! spec/envoy-config.md §5.9.

use std::collections::BTreeSet;

use flow::Reads;
use model::Str;
use model::input::{VirtualL4, VirtualL4Match};

use super::TcpRoutes;
use super::destination::resolve;
use super::lookup::{Applied, is_of_mesh};
use crate::routes::{RouteTables, Site, UNKNOWN};

/// A rule and the namespace of its VirtualService.
pub(super) type Chosen<'t> = (&'t VirtualL4, &'t Str);

/// The rule that decides: the first that applies, all `tls` rules before any `tcp` rule.
pub(super) fn chosen<'t>(
    site: &Site<'_>,
    applied: &[Applied<'t>],
    port: u16,
) -> Option<Chosen<'t>> {
    let at = L4Site::new(site, port);
    let tls = applied.iter().flat_map(|one| {
        let rules = one.spec.tls.iter().map(move |rule| (rule, &one.key.ns));
        rules.filter(|(rule, _)| applies(rule, true, &at))
    });
    let tcp = applied.iter().flat_map(|one| {
        let rules = one.spec.tcp.iter().map(move |rule| (rule, &one.key.ns));
        rules.filter(|(rule, _)| applies(rule, false, &at))
    });
    tls.chain(tcp).next()
}

/// Where a connection arrives.
struct L4Site<'a> {
    host: &'a str,
    waypoint_ns: &'a str,
    port: u16,
}

impl<'a> L4Site<'a> {
    /// A port of a service behind a waypoint.
    fn new(site: &Site<'a>, port: u16) -> Self {
        Self {
            host: &site.service.key.hostname,
            waypoint_ns: &site.waypoint.key.ns,
            port,
        }
    }
}

/// Whether a rule applies there: a `tls` rule must name exactly the host of the service. Source
/// labels are never met; subnets are not looked at.
fn applies(rule: &VirtualL4, tls: bool, at: &L4Site<'_>) -> bool {
    let fits = |m: &VirtualL4Match| {
        let named = matches!(m.sni_hosts.as_slice(), [only] if only == at.host);
        (named || !tls)
            && m.port.is_none_or(|port| port == at.port)
            && is_of_mesh(&m.gateways)
            && (!m.gateways.is_empty()
                || (m.source_labels.is_empty()
                    && (m.source_namespace.is_empty() || m.source_namespace == at.waypoint_ns)))
    };
    rule.matches.is_empty() || rule.matches.iter().any(fits)
}

/// Where the connections of a rule go.
pub(super) fn routes(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    (rule, ns): Chosen<'_>,
    port: u16,
) -> TcpRoutes {
    let mut out = TcpRoutes {
        clusters: Vec::new(),
        outbound: BTreeSet::new(),
        first: None,
    };
    let several = rule.routes.len() > 1;
    for to in &rule.routes {
        if several && to.weight == 0 {
            continue;
        }
        let found = resolve(site, tables, reads, (ns, &to.destination), port);
        if out.clusters.is_empty() {
            out.first.clone_from(&found.service);
        }
        if found.elsewhere {
            out.outbound.extend(found.service);
        }
        let weight = if several { to.weight } else { 1 };
        out.clusters.push((found.cluster, weight));
    }
    if out.clusters.is_empty() {
        out.clusters.push((UNKNOWN, 1));
    }
    out
}
