//! DestinationRule, beyond what parsing judges. Source: spec/policy-and-traffic.md §9.4.

use super::Verdict;
use super::common::{export_to, is_wildcard_host, selector};
use super::read::At;

pub(super) fn check(verdict: &mut Verdict, object: &At<'_>, spec: &At<'_>) {
    if !is_wildcard_host(spec.text("host")) {
        verdict.reject(spec.field("host"), "not a host name");
    }
    export_to(verdict, object, spec, false);
    if let Some(labels) = spec.get("workloadSelector") {
        selector(verdict, &labels, "matchLabels");
    }
    if let Some(at) = spec.get("trafficPolicy") {
        policy(verdict, &at);
    }
    for subset in spec.items("subsets") {
        if let Some(at) = subset.get("trafficPolicy") {
            policy(verdict, &at);
        }
    }
}

fn policy(verdict: &mut Verdict, at: &At<'_>) {
    if at.is_empty() {
        verdict.reject(at.path(), "a policy that says nothing");
    }
    settings(verdict, at);
    for port in at.items("portLevelSettings") {
        let says = ["loadBalancer", "connectionPool", "outlierDetection", "tls"];
        if !says.iter().any(|name| port.has(name)) {
            verdict.reject(port.path(), "settings that say nothing");
        }
        settings(verdict, &port);
    }
}

/// What a rule, a subset and a port have in common.
fn settings(verdict: &mut Verdict, at: &At<'_>) {
    if let Some(pool) = at.get("connectionPool") {
        if pool.is_empty() {
            verdict.reject(pool.path(), "a pool that says nothing");
        }
        for part in ["tcp", "http"] {
            if let Some(part) = pool.get(part).filter(At::is_empty) {
                verdict.reject(part.path(), "settings that say nothing");
            }
        }
    }
    if let Some(balancer) = at.get("loadBalancer") {
        load_balancer(verdict, &balancer, at.has("outlierDetection"));
    }
    if let Some(tls) = at.get("tls") {
        let verifies = ["caCertificates", "credentialName"];
        let opens = matches!(tls.text("mode"), "SIMPLE" | "MUTUAL");
        let is_vague = verifies.iter().all(|name| tls.text(name).is_empty());
        if opens && is_vague && !tls.is_true("insecureSkipVerify") {
            let message = "without caCertificates the server is whoever the authorities of the \
                           system vouch for (IST0128, IST0129)";
            verdict.warn(tls.path(), message);
        }
        mutual(verdict, &tls);
    }
}

/// MUTUAL presents a certificate, from files or from a Secret.
fn mutual(verdict: &mut Verdict, tls: &At<'_>) {
    if tls.text("mode") != "MUTUAL" || !tls.text("credentialName").is_empty() {
        return;
    }
    for name in ["clientCertificate", "privateKey"] {
        if tls.text(name).is_empty() {
            let message = "mode MUTUAL needs it, or a credentialName";
            verdict.reject(tls.field(name), message);
        }
    }
}

fn load_balancer(verdict: &mut Verdict, balancer: &At<'_>, has_outlier: bool) {
    let hash = balancer.get("consistentHash");
    if let Some(hash) = hash.filter(|hash| hash.has("minimumRingSize")) {
        let message = "minimumRingSize is deprecated; use ringHash.minimumRingSize";
        verdict.warn(&hash.field("minimumRingSize"), message);
    }
    let locality = balancer.get("localityLbSetting");
    for name in ["failover", "failoverPriority"] {
        let given = locality.as_ref().filter(|at| !at.items(name).is_empty());
        if let Some(locality) = given.filter(|_| !has_outlier) {
            let message = "nothing fails over without outlierDetection";
            verdict.warn(&locality.field(name), message);
        }
    }
}
