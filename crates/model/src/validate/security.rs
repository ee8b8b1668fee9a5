//! security.istio.io, beyond what parsing judges. Source: spec/policy-and-traffic.md §9.2.

use super::Verdict;
use super::read::At;

/// A DENY rule of HTTP attributes alone refuses all other traffic in its scope, since what
/// cannot be evaluated counts as fulfilled.
pub(super) fn authorization_policy(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    if spec.text("action") != "DENY" {
        return;
    }
    for rule in spec.items("rules") {
        let from = rule.items("from");
        let sources = from.iter().filter_map(|from| from.get("source"));
        let sources = sources.flat_map(|source| names(&source));
        let to = rule.items("to");
        let operations = to.iter().filter_map(|to| to.get("operation"));
        let operations = operations.flat_map(|operation| names(&operation));
        let when = rule.items("when");
        let keys = when.iter().map(|when| when.text("key").to_owned());
        let all: Vec<String> = sources.chain(operations).chain(keys).collect();
        if !all.is_empty() && all.iter().all(|name| is_http(name)) {
            let message = "this DENY rule has HTTP attributes alone, so it refuses all traffic in \
                           its scope that is not HTTP";
            verdict.warn(rule.path(), message);
        }
    }
}

fn names(at: &At<'_>) -> Vec<String> {
    let map = at.value().as_object();
    map.into_iter()
        .flat_map(|map| map.keys().cloned())
        .collect()
}

fn is_http(name: &str) -> bool {
    const FIELDS: [&str; 10] = [
        "hosts",
        "notHosts",
        "methods",
        "notMethods",
        "paths",
        "notPaths",
        "requestPrincipals",
        "notRequestPrincipals",
        "remoteIpBlocks",
        "notRemoteIpBlocks",
    ];
    FIELDS.contains(&name) || name.starts_with("request.") || name == "remote.ip"
}
