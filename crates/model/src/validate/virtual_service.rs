//! VirtualService, beyond what parsing judges. Source: spec/policy-and-traffic.md §9.4.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Verdict;
use super::common::{export_to, is_host, is_ip, is_label, is_subnet, is_wildcard_host, overlap};
use super::read::At;

/// The reserved gateway that stands for the mesh.
const MESH: &str = "mesh";
/// Bodies above it are taken with a warning, bytes.
const BODY_BYTES_ADVISED: usize = 100 * 1024;

pub(super) fn check(verdict: &mut Verdict, object: &At<'_>, spec: &At<'_>) {
    hosts(verdict, spec);
    gateways(verdict, spec);
    export_to(verdict, object, spec, false);
    expressions(verdict, spec);
    for rule in spec.items("http") {
        http(verdict, &rule);
    }
    reach(verdict, spec);
    let hosts: Vec<&str> = spec.items("hosts").iter().map(At::as_text).collect();
    for rule in spec.items("tls") {
        tls(verdict, &rule, &hosts);
    }
    for rule in spec.items("tcp") {
        for one in rule.items("match") {
            l4_match(verdict, &one);
        }
    }
}

fn hosts(verdict: &mut Verdict, spec: &At<'_>) {
    let hosts = spec.items("hosts");
    for (i, host) in hosts.iter().enumerate() {
        let text = host.as_text();
        if !is_wildcard_host(text) && !is_ip(text) {
            verdict.reject(host.path(), "not a host name");
        }
        let before = hosts.iter().take(i);
        if let Some(other) = before.map(At::as_text).find(|other| overlap(other, text)) {
            verdict.reject(
                host.path(),
                format!("the same host as {other}, or a part of it"),
            );
        }
    }
}

fn gateways(verdict: &mut Verdict, spec: &At<'_>) {
    for gateway in spec.items("gateways") {
        let text = gateway.as_text();
        let good = match text.split_once('/') {
            Some((ns, name)) => is_label(ns) && is_host(name),
            None if text.contains('.') => {
                let message = "a deprecated form of names; write namespace/name";
                verdict.warn(gateway.path(), message);
                is_host(text)
            }
            None => text == MESH || is_label(text),
        };
        if !good {
            verdict.reject(gateway.path(), "neither mesh nor the name of a gateway");
        }
    }
}

/// Every regular expression: each is the value of a field that is one by definition.
fn expressions(verdict: &mut Verdict, at: &At<'_>) {
    let Value::Object(map) = at.value() else {
        return;
    };
    for name in map.keys() {
        let Some(inner) = at.get(name) else { continue };
        if name == "regex" && inner.value().is_string() {
            verdict.expression(&inner);
            continue;
        }
        if name == "uriRegexRewrite"
            && let Some(pattern) = inner.get("match")
        {
            verdict.expression(&pattern);
        }
        for item in at.items(name) {
            expressions(verdict, &item);
        }
        expressions(verdict, &inner);
    }
}

fn http(verdict: &mut Verdict, rule: &At<'_>) {
    for one in rule.items("match") {
        let ns = one.text("sourceNamespace");
        if !ns.is_empty() && !is_label(ns) {
            verdict.reject(one.field("sourceNamespace"), "not a namespace");
        }
        for gateway in one.items("gateways") {
            if gateway.as_text().is_empty() {
                verdict.reject(gateway.path(), "not the name of a gateway");
            }
        }
    }
    if rule.has("mirrorPercent") {
        let message = "mirrorPercent is deprecated; use mirrorPercentage";
        verdict.warn(&rule.field("mirrorPercent"), message);
    }
    authority(verdict, rule);
    for (at, name) in [
        (Some(rule.clone()), "timeout"),
        (rule.get("retries"), "perTryTimeout"),
    ] {
        // 0 is none, as the API documents it of the first and proxies of the second.
        if let Some(at) = at
            && !matches!(at.text(name), "0" | "0s" | "0ms")
        {
            super::common::duration(verdict, &at, name);
        }
    }
    let body = rule.get("directResponse").and_then(|at| at.get("body"));
    if let Some(body) = body {
        let bytes = body
            .text("string")
            .len()
            .max(body.text("bytes").len() / 4 * 3);
        if bytes > BODY_BYTES_ADVISED {
            let message = "a body above 100 KB costs memory in every proxy";
            verdict.warn(body.path(), message);
        }
    }
}

/// The authority can be changed in one place.
fn authority(verdict: &mut Verdict, rule: &At<'_>) {
    let named = |headers: Option<At<'_>>| {
        let request = headers.and_then(|headers| headers.get("request"));
        let lists = ["set", "add"].into_iter();
        let names = lists.flat_map(|list| {
            let entries = request.as_ref().map(|request| request.entries(list));
            entries.into_iter().flatten().map(|(name, _)| name)
        });
        let is_host =
            |name: &&str| matches!(name.to_ascii_lowercase().as_str(), "host" | ":authority");
        names.filter(is_host).count()
    };
    let rewritten = rule
        .get("rewrite")
        .is_some_and(|rewrite| !rewrite.text("authority").is_empty());
    let of_rule = named(rule.get("headers")) + usize::from(rewritten);
    let of_routes = rule
        .items("route")
        .iter()
        .map(|one| named(one.get("headers")))
        .max();
    if of_rule + of_routes.unwrap_or_default() > 1 {
        let message = "the authority is set in several places";
        verdict.reject(rule.field("headers"), message);
    }
}

/// Rules that others stand before. Source: spec/policy-and-traffic.md §9.5 (IST0130, IST0131).
fn reach(verdict: &mut Verdict, spec: &At<'_>) {
    let mut catch_all: Option<String> = None;
    let mut seen = BTreeSet::new();
    for rule in spec.items("http") {
        if let Some(before) = &catch_all {
            let message = format!("this rule is never reached: {before} takes every request");
            verdict.warn(rule.path(), &message);
            continue;
        }
        let matches = rule.items("match");
        let mut is_new = matches.is_empty();
        for one in &matches {
            if seen.insert(condition(one)) {
                is_new = true;
            } else {
                verdict.warn(
                    one.path(),
                    "an earlier match is the same, so this is never used",
                );
            }
        }
        if !is_new {
            verdict.warn(
                rule.path(),
                "this rule is never reached: earlier ones have its matches",
            );
        }
        if matches.is_empty() || matches.iter().any(At::is_empty) {
            catch_all = Some(rule.path().to_owned());
        }
    }
}

/// A match apart from its name.
fn condition(one: &At<'_>) -> String {
    let mut value = one.value().clone();
    if let Value::Object(map) = &mut value {
        map.remove("name");
    }
    value.to_string()
}

fn tls(verdict: &mut Verdict, rule: &At<'_>, hosts: &[&str]) {
    let matches = rule.items("match");
    if matches.is_empty() {
        verdict.reject(rule.field("match"), "at least one match is required");
    }
    for one in matches {
        let names = one.items("sniHosts");
        if names.is_empty() {
            verdict.reject(
                one.field("sniHosts"),
                "at least one server name is required",
            );
        }
        for name in names {
            let text = name.as_text();
            let narrow = |host: &&str| {
                let wide = host
                    .strip_prefix('*')
                    .is_some_and(|end| text.ends_with(end));
                wide || host.eq_ignore_ascii_case(text)
            };
            if is_ip(text) {
                verdict.warn(name.path(), "clients send no server name for an address");
            } else if !is_wildcard_host(text) {
                verdict.reject(name.path(), "not a host name");
            }
            if !hosts.iter().any(narrow) {
                verdict.reject(name.path(), "not one of the hosts, nor a part of one");
            }
        }
        l4_match(verdict, &one);
    }
}

fn l4_match(verdict: &mut Verdict, one: &At<'_>) {
    if one.is_null() {
        return;
    }
    let source = one.get("sourceSubnet");
    for subnet in one.items("destinationSubnets").into_iter().chain(source) {
        if !is_subnet(subnet.as_text()) {
            verdict.reject(subnet.path(), "neither an address nor a subnet");
        }
    }
    let ns = one.text("sourceNamespace");
    if !ns.is_empty() && !is_label(ns) {
        verdict.reject(one.field("sourceNamespace"), "not a namespace");
    }
}
