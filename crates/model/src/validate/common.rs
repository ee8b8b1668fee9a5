//! Rules that several kinds share. Source: spec/policy-and-traffic.md §9.1.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Verdict;
use super::read::At;
use crate::parse::duration;

const LABELS_COUNT_MAX: usize = 4_096;
const LABEL_VALUE_CHARS_MAX: usize = 63;
const TARGETS_COUNT_MAX: usize = 16;
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// At most one of `selector`, `targetRef` and `targetRefs`; each of them judged.
pub(super) fn attachment(verdict: &mut Verdict, spec: &At<'_>) {
    let selector = spec.get("selector");
    let refs = spec.items("targetRefs");
    let single = spec.get("targetRef");
    let given = [selector.is_some(), single.is_some(), !refs.is_empty()];
    if given.iter().filter(|given| **given).count() > 1 {
        let message = "only one of selector, targetRef and targetRefs can be given";
        verdict.reject(spec.path(), message);
    }
    if let Some(selector) = selector {
        self::selector(verdict, &selector, "matchLabels");
    }
    if refs.len() > TARGETS_COUNT_MAX {
        let message = format!("more than {TARGETS_COUNT_MAX} items");
        verdict.reject(spec.field("targetRefs"), message);
    }
    for target in refs.iter().chain(&single) {
        target_ref(verdict, target);
    }
}

fn target_ref(verdict: &mut Verdict, target: &At<'_>) {
    const KINDS: [(&str, &str); 4] = [
        ("Gateway", "gateway.networking.k8s.io"),
        ("GatewayClass", "gateway.networking.k8s.io"),
        ("Service", ""),
        ("ServiceEntry", "networking.istio.io"),
    ];
    if target.text("name").is_empty() {
        verdict.reject(target.field("name"), "a name is required");
    }
    if !target.text("namespace").is_empty() {
        let message = "only the object's own namespace is possible; leave this out";
        verdict.reject(target.field("namespace"), message);
    }
    let group = match target.text("group") {
        "core" => "",
        group => group,
    };
    if !KINDS.contains(&(target.text("kind"), group)) {
        let message = "not a Gateway, GatewayClass, Service or ServiceEntry of its group";
        verdict.reject(target.field("kind"), message);
    }
}

/// A selector; one without labels concerns the whole namespace.
pub(super) fn selector(verdict: &mut Verdict, selector: &At<'_>, labels: &str) {
    let entries = selector.entries(labels);
    if entries.is_empty() {
        let message = "this selector names no labels, so it selects the whole namespace";
        verdict.warn(selector.path(), message);
    }
    if entries.len() > LABELS_COUNT_MAX {
        let message = format!("more than {LABELS_COUNT_MAX} labels");
        verdict.reject(selector.field(labels), message);
    }
    for (key, value) in entries {
        let text = value.as_text();
        if key.is_empty() {
            verdict.reject(value.path(), "a label without a key");
        } else if key.contains('*') || text.contains('*') {
            verdict.reject(value.path(), "a selector takes no *");
        } else if text.chars().count() > LABEL_VALUE_CHARS_MAX {
            verdict.reject(value.path(), "longer than 63 characters");
        }
    }
}

/// `exportTo`; `~`, nobody, is for ServiceEntries alone.
pub(super) fn export_to(verdict: &mut Verdict, object: &At<'_>, spec: &At<'_>, nobody: bool) {
    let metadata = object.get("metadata");
    let own = metadata
        .as_ref()
        .map_or("", |metadata| metadata.text("namespace"));
    let list = spec.items("exportTo");
    let mut seen = BTreeSet::new();
    for item in &list {
        let text = match item.as_text() {
            "." => own,
            text => text,
        };
        if !seen.insert(text) {
            verdict.reject(item.path(), "an earlier entry says the same");
        } else if text == "~" && !nobody {
            verdict.reject(item.path(), "only a ServiceEntry can be exported to nobody");
        } else if matches!(text, "*" | "~") && list.len() > 1 {
            verdict.reject(item.path(), format!("{text} excludes other entries"));
        } else if !matches!(text, "*" | "~") && item.as_text() != "." && !is_label(text) {
            verdict.reject(item.path(), "not a namespace");
        }
    }
}

/// A duration of at least a millisecond, and not finer.
pub(super) fn duration(verdict: &mut Verdict, at: &At<'_>, name: &str) {
    if let Some(at) = at.get(name)
        && let Err(reason) = duration::positive(at.as_text())
    {
        verdict.reject(at.path(), reason);
    }
}

/// A port number that must be there.
pub(super) fn port(verdict: &mut Verdict, at: &At<'_>, name: &str) {
    if !at.integer(name).is_some_and(is_port) {
        verdict.reject(at.field(name), "not a port (1 to 65535)");
    }
}

pub(super) fn is_port(number: i64) -> bool {
    (1..=65_535).contains(&number)
}

/// A DNS label, in either case.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    text.len() <= LABEL_BYTES_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|c| plain(*c))
}

/// A name of a host, without wildcard.
pub(super) fn is_host(text: &str) -> bool {
    text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label)
}

/// A name of a host, which may begin with `*`.
pub(super) fn is_wildcard_host(text: &str) -> bool {
    match text.strip_prefix('*') {
        None => is_host(text),
        Some("") => true,
        Some(rest) => {
            let rest = rest.strip_prefix('.').or(rest.strip_prefix('-'));
            let rest = rest.unwrap_or(text.get(1..).unwrap_or_default());
            is_host(rest)
        }
    }
}

pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

pub(super) fn is_subnet(text: &str) -> bool {
    is_ip(text) || text.parse::<ipnet::IpNet>().is_ok()
}

/// Whether two hosts have a name in common.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let covers = |wide: &str, narrow: &str| {
        wide.strip_prefix('*').is_some_and(|end| {
            let narrow = narrow.strip_prefix('*').unwrap_or(narrow);
            narrow.ends_with(end)
        })
    };
    a.eq_ignore_ascii_case(b) || covers(a, b) || covers(b, a)
}

/// Protocols of ports. Source: spec/policy-and-traffic.md §8.2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Told apart by the authority of requests.
    Http,
    /// Told apart by the name in the handshake.
    Tls,
    /// Not told apart.
    Other,
}

pub(super) fn protocol(text: &str) -> Option<Protocol> {
    Some(match text.to_ascii_lowercase().as_str() {
        "http" | "http2" | "http_proxy" | "grpc" | "grpc-web" => Protocol::Http,
        "https" | "tls" => Protocol::Tls,
        "tcp" | "udp" | "mongo" | "redis" | "mysql" | "hbone" | "double_hbone" => Protocol::Other,
        _ => return None,
    })
}
