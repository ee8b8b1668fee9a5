//! EnvoyFilter. The patches themselves are not decoded. Source: spec/policy-and-traffic.md
//! §5.2 to §5.4, §9.3.

use super::Verdict;
use super::common::{attachment, selector};
use super::read::At;

const MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// A longer expression never fits the version of a proxy.
const VERSION_CHARS_MAX: usize = 1_024;

pub(super) fn check(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    let message = "this exposes internals of proxies, which change without notice; check it with \
                   every upgrade";
    verdict.warn(spec.path(), message);
    attachment(verdict, spec);
    if let Some(labels) = spec.get("workloadSelector") {
        selector(verdict, &labels, "labels");
        if !spec.items("targetRefs").is_empty() {
            let message = "workloadSelector and targetRefs exclude each other";
            verdict.reject(labels.path(), message);
        }
    }
    for one in spec.items("configPatches") {
        config_patch(verdict, &one);
    }
}

fn config_patch(verdict: &mut Verdict, one: &At<'_>) {
    let matched = one.get("match");
    let context = matched
        .as_ref()
        .map_or("", |matched| matched.text("context"));
    if context == "WAYPOINT" {
        return;
    }
    if let Some(at) = matched.as_ref().and_then(|matched| matched.get("waypoint")) {
        verdict.reject(at.path(), "only context WAYPOINT has this match");
    }
    let apply_to = one.text("applyTo");
    if matches!(apply_to, "" | "INVALID") {
        verdict.reject(one.field("applyTo"), "what to patch is required");
        return;
    }
    let Some(patch) = one.get("patch") else {
        verdict.reject(one.field("patch"), "a patch is required");
        return;
    };
    let operation = patch.text("operation");
    if matches!(operation, "" | "INVALID") {
        verdict.reject(patch.field("operation"), "an operation is required");
    } else if operation != "REMOVE" && !patch.has("value") {
        verdict.reject(patch.field("value"), "only REMOVE needs no value");
    }
    let is_filter = matches!(
        apply_to,
        "NETWORK_FILTER" | "HTTP_FILTER" | "LISTENER_FILTER"
    );
    if let Some(value) = patch.get("value").filter(|_| is_filter) {
        let is_named = !value.text("name").is_empty();
        let is_typed = value.has("typed_config") || value.has("typedConfig");
        if is_named && !is_typed && operation != "REMOVE" && !value.has("config_discovery") {
            let message = "a filter of a name alone: give its typed_config";
            verdict.warn(value.path(), message);
        }
    }
    let Some(matched) = matched else { return };
    fits(verdict, &matched, apply_to);
    let version = matched
        .get("proxy")
        .and_then(|proxy| proxy.get("proxyVersion"));
    if let Some(version) = version.filter(|version| !version.as_text().is_empty()) {
        if version.as_text().chars().count() > VERSION_CHARS_MAX {
            verdict.warn(
                version.path(),
                "longer than 1024 characters, so it fits no proxy",
            );
        } else {
            verdict.expression(&version);
        }
    }
    if let Some(listener) = matched.get("listener") {
        self::listener(verdict, &listener, apply_to);
    }
}

/// The match is about what is patched.
fn fits(verdict: &mut Verdict, matched: &At<'_>, apply_to: &str) {
    let right = match apply_to {
        "LISTENER" | "FILTER_CHAIN" | "NETWORK_FILTER" | "HTTP_FILTER" | "LISTENER_FILTER" => {
            "listener"
        }
        "ROUTE_CONFIGURATION" | "VIRTUAL_HOST" | "HTTP_ROUTE" => "routeConfiguration",
        "CLUSTER" => "cluster",
        _ => return,
    };
    for name in ["listener", "routeConfiguration", "cluster"] {
        if name != right
            && let Some(at) = matched.get(name)
        {
            let message = format!("{apply_to} is matched by {right}");
            verdict.reject(at.path(), message);
        }
    }
}

fn listener(verdict: &mut Verdict, listener: &At<'_>, apply_to: &str) {
    let chain = listener.get("filterChain");
    let Some(filter) = chain.and_then(|chain| chain.get("filter")) else {
        return;
    };
    if matches!(apply_to, "LISTENER" | "FILTER_CHAIN") {
        let message = format!("the match of a filter has no effect on {apply_to}");
        verdict.warn(filter.path(), &message);
    }
    let name = filter.text("name");
    if name.is_empty() {
        verdict.reject(filter.field("name"), "a name is required");
    }
    let Some(inner) = filter.get("subFilter") else {
        return;
    };
    if apply_to != "HTTP_FILTER" {
        verdict.reject(
            inner.path(),
            "only HTTP_FILTER has filters inside of another",
        );
    } else if !matches!(name, MANAGER | "envoy.http_connection_manager") {
        let message = format!("only {MANAGER} has filters inside");
        verdict.reject(inner.path(), message);
    }
    if inner.text("name").is_empty() {
        verdict.reject(inner.field("name"), "a name is required");
    }
}
