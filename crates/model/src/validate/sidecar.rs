//! Sidecar. Source: spec/policy-and-traffic.md §8.5, §9.4.

use std::collections::BTreeSet;

use super::Verdict;
use super::common::{is_label, is_port, is_wildcard_host, port, protocol, selector};
use super::read::At;

const UNIX: &str = "unix://";

pub(super) fn check(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    if let Some(labels) = spec.get("workloadSelector") {
        selector(verdict, &labels, "labels");
    }
    let mut listeners = BTreeSet::new();
    for one in spec.items("ingress") {
        ingress(verdict, &one);
        let number = one.get("port").and_then(|port| port.integer("number"));
        if number.is_some() && !listeners.insert((one.text("bind"), number)) {
            verdict.reject(one.path(), "an earlier listener has this address and port");
        }
    }
    let mut listeners = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for one in spec.items("egress") {
        egress(verdict, &one, &mut hosts);
        let number = one.get("port").and_then(|port| port.integer("number"));
        if !listeners.insert((one.text("bind"), number)) {
            verdict.reject(one.path(), "an earlier listener has this address and port");
        }
    }
    if let Some(policy) = spec.get("outboundTrafficPolicy") {
        outbound(verdict, &policy);
    }
}

fn ingress(verdict: &mut Verdict, one: &At<'_>) {
    match one.get("port") {
        None => verdict.reject(one.field("port"), "a port is required"),
        Some(at) => listener_port(verdict, &at, false),
    }
    if one.text("bind").starts_with(UNIX) {
        verdict.reject(one.field("bind"), "an address is required, not a socket");
    }
    let endpoint = one.text("defaultEndpoint");
    let is_good = endpoint.is_empty()
        || endpoint.starts_with("unix:///")
        || endpoint.rsplit_once(':').is_some_and(|(host, port)| {
            let here = matches!(host, "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]");
            here && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
    if !is_good {
        let message = "neither 127.0.0.1:port, 0.0.0.0:port nor unix:///path";
        verdict.reject(one.field("defaultEndpoint"), message);
    }
}

fn listener_port(verdict: &mut Verdict, at: &At<'_>, is_egress: bool) {
    if at.has("targetPort") {
        verdict.reject(at.field("targetPort"), "a listener has no targetPort");
    }
    // An egress listener on a socket has the number 0.
    let number = at.integer("number").unwrap_or_default();
    let is_of_socket = is_egress && number == 0;
    if !(is_port(number) || is_of_socket) {
        port(verdict, at, "number");
    }
    let name = at.text("name");
    if !name.is_empty() && !is_label(name) {
        verdict.reject(at.field("name"), "not a DNS label");
    }
    if protocol(at.text("protocol")).is_none() {
        verdict.reject(at.field("protocol"), "no such protocol");
    }
}

fn egress<'a>(verdict: &mut Verdict, one: &At<'a>, seen: &mut BTreeSet<&'a str>) {
    let is_socket = one.text("bind").starts_with(UNIX);
    let mode = one.text("captureMode");
    match one.get("port") {
        None if !one.text("bind").is_empty() => {
            verdict.reject(one.field("bind"), "an address needs a port");
        }
        None => {}
        Some(at) => listener_port(verdict, &at, is_socket),
    }
    if is_socket && !matches!(mode, "" | "DEFAULT" | "NONE") {
        let message = "a socket is reached without capture alone: DEFAULT or NONE";
        verdict.reject(one.field("captureMode"), message);
    }
    let hosts = one.items("hosts");
    if hosts.is_empty() {
        verdict.reject(one.field("hosts"), "at least one host is required");
    }
    for host in &hosts {
        let text = host.as_text();
        if text == "*/*" && hosts.len() > 1 {
            verdict.warn(host.path(), "*/* makes the other hosts superfluous");
        }
        if !seen.insert(text) {
            verdict.warn(host.path(), "an earlier entry is the same");
        }
        let good = text.split_once('/').is_some_and(|(ns, host)| {
            (matches!(ns, "*" | "." | "~") || is_label(ns)) && is_wildcard_host(host)
        });
        if !good {
            verdict.reject(host.path(), "not namespace/host");
        }
    }
}

fn outbound(verdict: &mut Verdict, policy: &At<'_>) {
    let mode = policy.text("mode");
    if mode == "ALLOW_ANY_DYNAMIC_DNS" {
        let message = "a Sidecar cannot resolve hosts per request";
        verdict.reject(policy.field("mode"), message);
    }
    let Some(proxy) = policy.get("egressProxy") else {
        return;
    };
    if mode != "ALLOW_ANY" {
        verdict.reject(proxy.path(), "only mode ALLOW_ANY has an egress proxy");
    }
    if !is_wildcard_host(proxy.text("host")) || proxy.text("host").starts_with('*') {
        verdict.reject(proxy.field("host"), "not a host name");
    }
    match proxy.get("port") {
        None => verdict.reject(proxy.field("port"), "a port is required"),
        Some(at) => port(verdict, &at, "number"),
    }
}
