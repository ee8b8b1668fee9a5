//! What a rule does with requests. Source: spec/envoy-config.md §5.2, §5.4, §5.5.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use flow::Reads;
use model::input::{BackendRef, HashKey, HttpRule, RouteFilter};

use super::backend::{Grants, Referrer, UNKNOWN, resolve};
use super::filters::Filters;
use super::reach::Reached;
use super::{At, RouteTables, hash, retry};
use crate::ir::{ForwardIr, MirrorIr, Outbound, RouteAction, WeightedCluster};

/// Largest weight that Gateway API allows; larger ones would overflow Envoy's sum.
const WEIGHT_MAX: u32 = 1_000_000;

/// Makes the actions of rules, and remembers the services elsewhere that they lead to.
pub(super) struct Maker<'a, 't> {
    pub(super) at: At<'a>,
    pub(super) tables: &'a RouteTables<'t>,
    pub(super) outbound: &'a mut BTreeSet<Outbound>,
}

impl Maker<'_, '_> {
    /// Forwarding, or 500 when no backend is left. What depends on the match, which is the path
    /// and redirects, is filled in later.
    pub(super) fn forward(
        &mut self,
        reads: &mut Reads,
        reached: &Reached<'_>,
        rule: &HttpRule,
        filters: &Filters<'_>,
    ) -> RouteAction {
        let referrer = Referrer {
            kind: reached.kind,
            ns: &reached.parsed.key().ns,
            domain: &self.at.mesh.domain,
            grants: if reached.by_gateway {
                Grants::Checked
            } else {
                Grants::Ignored
            },
        };
        let rewritten = filters.rewrite.and_then(|rewrite| rewrite.host.clone());
        let host = rewritten.or_else(|| filters.host.clone());
        let mut clusters = Vec::new();
        let mut hash = Vec::new();
        for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
            let mut to = self.destination(reads, &referrer, backend, &mut hash);
            // The rule's word counts over that of a backend.
            if host.is_some() {
                to.host_rewrite = None;
            }
            clusters.push(to);
        }
        if clusters.is_empty() {
            return RouteAction::Respond(500, Bytes::new());
        }
        let (request, backend) = (
            retry::positive(rule.timeouts.request),
            retry::positive(rule.timeouts.backend_request),
        );
        let hashed = !hash.is_empty();
        let retry = match &rule.retry {
            Some(own) => retry::of_rule(own, backend, hashed),
            None => retry::retry_of(self.at.mesh, None, hashed),
        };
        // Only a policy of its own says how long a try may take.
        let timeout = match (&rule.retry, &retry) {
            (Some(_), Some(_)) => request,
            _ => backend.or(request),
        };
        RouteAction::Forward(Box::new(ForwardIr {
            clusters,
            timeout: timeout.unwrap_or(Duration::ZERO),
            retry,
            host_rewrite: host,
            path_rewrite: None,
            mirrors: self.mirrors(reads, &referrer, rule),
            hash,
            missing_is_500: true,
        }))
    }

    fn destination(
        &mut self,
        reads: &mut Reads,
        referrer: &Referrer<'_>,
        backend: &BackendRef,
        hash: &mut Vec<HashKey>,
    ) -> WeightedCluster {
        let found = resolve(self.tables, reads, referrer, &backend.target);
        let name = match found.row(self.tables.services, reads) {
            None => UNKNOWN,
            Some((row, port)) => {
                for key in hash::of(self.at, self.tables, reads, row, port) {
                    if !hash.contains(&key) {
                        hash.push(key);
                    }
                }
                let (name, outbound) = self.at.cluster(row, (port, ""));
                self.outbound.extend(outbound);
                name
            }
        };
        let filters = Filters::of(&backend.filters);
        WeightedCluster {
            cluster: name,
            weight: backend.weight.min(WEIGHT_MAX),
            request: filters.request,
            response: filters.response,
            host_rewrite: filters.host,
        }
    }

    /// Mirrors that lead somewhere.
    fn mirrors(
        &mut self,
        reads: &mut Reads,
        referrer: &Referrer<'_>,
        rule: &HttpRule,
    ) -> Vec<MirrorIr> {
        let mut out = Vec::new();
        for filter in &rule.filters {
            let RouteFilter::Mirror(mirror) = filter else {
                continue;
            };
            if mirror.per_million == 0 {
                continue;
            }
            let found = resolve(self.tables, reads, referrer, &mirror.target);
            if let Some((row, port)) = found.row(self.tables.services, reads) {
                let (name, outbound) = self.at.cluster(row, (port, ""));
                self.outbound.extend(outbound);
                out.push(MirrorIr {
                    cluster: name,
                    per_million: mirror.per_million,
                });
            }
        }
        out
    }
}
