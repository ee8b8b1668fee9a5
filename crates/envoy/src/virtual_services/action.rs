//! What routes do. Source: spec/policy-and-traffic.md §6.2; spec/envoy-config.md §5.2, §5.4, §5.5.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use flow::Reads;
use model::Str;
use model::input::{
    Fault, HashKey, HeaderEdits, StringMatch, VirtualCors, VirtualHttp, VirtualRedirect,
    VirtualRewrite, WeightedDestination,
};

use super::defects::rule_defect;
use super::delegate::Rule;
use super::destination::{Sent, resolve};
use crate::ir::{
    CorsIr, FaultIr, ForwardIr, MirrorIr, OriginMatch, Outbound, PathRewrite, RedirectIr,
    RouteAction, WeightedCluster,
};
use crate::routes::{RouteTables, Site, retry_of};

/// Body of what stands in for a rule that cannot be applied.
const INVALID: &[u8] = b"rule is invalid";

/// An action and what goes with it.
pub(super) struct Done {
    /// What to do.
    pub(super) action: RouteAction,
    /// Changes of request headers.
    pub(super) request: HeaderEdits,
    /// Changes of response headers.
    pub(super) response: HeaderEdits,
    /// Host and port of the only destination.
    pub(super) only: Option<(Str, u16)>,
    /// CORS policy.
    pub(super) cors: Option<CorsIr>,
    /// Faults.
    pub(super) fault: Option<FaultIr>,
}

/// What stands in for a rule that cannot be applied: nothing else that it says is told, for that
/// may be the very value that Envoy refuses.
fn invalid() -> Done {
    Done {
        action: RouteAction::Respond(500, Bytes::from_static(INVALID)),
        request: HeaderEdits::default(),
        response: HeaderEdits::default(),
        only: None,
        cors: None,
        fault: None,
    }
}

/// What a rule does with the requests of a service port.
pub(super) fn of(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    rule: &Rule<'_>,
    port: u16,
    outbound: &mut BTreeSet<Outbound>,
) -> Done {
    let http = &*rule.http;
    if rule_defect(http).is_some() {
        return invalid();
    }
    let headers = http.headers.clone().unwrap_or_default();
    let (request, host) = taken(&headers.request);
    let plain = |action| Done {
        action,
        request: request.clone(),
        response: headers.response.clone(),
        only: None,
        cors: http.cors.as_ref().map(cors),
        fault: http.fault.as_ref().and_then(fault),
    };
    if let Some(to) = &http.redirect {
        return plain(RouteAction::Redirect(redirect(to, port)));
    }
    if let Some(answer) = &http.direct_response {
        return plain(RouteAction::Respond(answer.status, answer.body.clone()));
    }
    let mut sent = Vec::new();
    for to in shares(http) {
        let found = resolve(site, tables, reads, (rule.ns, &to.destination), port);
        note(&found, outbound);
        sent.push((found, to));
    }
    let mut done = plain(RouteAction::Respond(500, Bytes::from_static(INVALID)));
    if sent.is_empty() {
        return done;
    }
    let rewrite = http.rewrite.as_ref();
    if let [(only, _)] = sent.as_slice() {
        done.only = Some((only.host.clone(), only.port));
    }
    let own = rewrite.and_then(|r| r.authority.clone()).or(host);
    let (clusters, host_rewrite) = clusters(&sent, own);
    let hash = keys(sent.into_iter().map(|(found, _)| found));
    let mut mirrors = Vec::new();
    for mirror in http.mirrors.iter().filter(|mirror| mirror.per_million > 0) {
        let found = resolve(site, tables, reads, (rule.ns, &mirror.destination), port);
        note(&found, outbound);
        mirrors.push(MirrorIr {
            cluster: found.cluster,
            per_million: mirror.per_million,
        });
    }
    done.action = RouteAction::Forward(Box::new(ForwardIr {
        clusters,
        timeout: http.timeout.unwrap_or(Duration::ZERO),
        retry: retry_of(site.mesh, http.retries.as_ref(), !hash.is_empty()),
        host_rewrite,
        path_rewrite: rewrite.and_then(path),
        mirrors,
        hash,
        missing_is_500: false,
    }));
    done
}

/// Keys of consistent hashing, each once.
fn keys(sent: impl Iterator<Item = Sent>) -> Vec<HashKey> {
    let mut out = Vec::new();
    for key in sent.flat_map(|found| found.hash) {
        if !out.contains(&key) {
            out.push(key);
        }
    }
    out
}

/// The clusters of the destinations, and the host that all of them get: that of the route, or
/// what the only destination makes it.
fn clusters(
    sent: &[(Sent, &WeightedDestination)],
    own: Option<Str>,
) -> (Vec<WeightedCluster>, Option<Str>) {
    let cluster = |found: &Sent, to: &WeightedDestination, weight: u32| {
        let (request, host) = taken(&to.headers.request);
        let cluster = WeightedCluster {
            request,
            response: to.headers.response.clone(),
            ..WeightedCluster::plain(found.cluster.clone(), weight)
        };
        (cluster, host)
    };
    if let [(only, to)] = sent {
        let (cluster, host) = cluster(only, to, 1);
        return (vec![cluster], own.or(host));
    }
    let weighted = sent.iter().map(|(found, to)| {
        let (cluster, host) = cluster(found, to, to.weight);
        WeightedCluster {
            host_rewrite: host.filter(|_| own.is_none()),
            ..cluster
        }
    });
    (weighted.collect(), own)
}

/// Destinations that get a share: the only one whatever its weight, of several those with one.
fn shares(http: &VirtualHttp) -> impl Iterator<Item = &WeightedDestination> {
    let several = http.routes.len() > 1;
    http.routes
        .iter()
        .filter(move |to| !several || to.weight > 0)
}

fn note(found: &Sent, outbound: &mut BTreeSet<Outbound>) {
    if found.elsewhere {
        outbound.extend(found.service.clone());
    }
}

/// Edits without those of the authority, and what these make of it: `set` before `add`.
fn taken(edits: &HeaderEdits) -> (HeaderEdits, Option<Str>) {
    let is_host = |(name, _): &&(Str, Str)| {
        name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
    };
    let mut host = edits.set.iter().chain(&edits.add).filter(is_host);
    let host = host.next().map(|(_, value)| value.clone());
    let rest = |list: &[(Str, Str)]| list.iter().filter(|one| !is_host(one)).cloned().collect();
    let out = HeaderEdits {
        set: rest(&edits.set),
        add: rest(&edits.add),
        remove: edits.remove.clone(),
    };
    (out, host)
}

/// A redirect; ports that the scheme implies are left out.
fn redirect(of: &VirtualRedirect, listener: u16) -> RedirectIr {
    let port = if of.port_of_request {
        Some(listener)
    } else {
        of.port
    };
    let implied = if of.scheme.as_deref() == Some("https") {
        443
    } else {
        80
    };
    let whole = of.uri.clone().map(PathRewrite::Full);
    RedirectIr {
        status: of.code,
        scheme: of.scheme.clone(),
        host: of.authority.clone(),
        port: port.filter(|port| *port != implied),
        path: whole.or_else(|| of.uri_prefix.clone().map(PathRewrite::Prefix)),
    }
}

fn path(rewrite: &VirtualRewrite) -> Option<PathRewrite> {
    let regex = rewrite.uri_regex.as_ref();
    let regex = regex.map(|(pattern, to)| PathRewrite::Regex(pattern.clone(), to.clone()));
    rewrite.uri.clone().map(PathRewrite::Prefix).or(regex)
}

/// Faults; none where neither kind is left.
fn fault(of: &Fault) -> Option<FaultIr> {
    let ir = FaultIr {
        delay: of.delay,
        abort: of.abort,
    };
    (ir != FaultIr::default()).then_some(ir)
}

fn cors(of: &VirtualCors) -> CorsIr {
    let list = |words: &[Str]| Str::from(words.join(","));
    CorsIr {
        origins: of.origins.iter().map(origin).collect(),
        methods: list(&of.methods),
        headers: list(&of.headers),
        expose: list(&of.expose),
        max_age_s: of.max_age_s,
        credentials: of.credentials,
        forward_unmatched_preflights: !of.ignore_unmatched_preflights,
    }
}

fn origin(of: &StringMatch) -> OriginMatch {
    match of {
        StringMatch::Prefix(text) if text.is_empty() => OriginMatch::Any,
        StringMatch::Exact(text) => OriginMatch::Exact(text.clone()),
        StringMatch::Prefix(text) => OriginMatch::Prefix(text.clone()),
        StringMatch::Regex(text) => OriginMatch::Regex(text.clone()),
    }
}
