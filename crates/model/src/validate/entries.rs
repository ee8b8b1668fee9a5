//! ServiceEntry, WorkloadEntry, WorkloadGroup, beyond what parsing judges.
//! Source: spec/policy-and-traffic.md §8, §9.4.

use std::collections::BTreeSet;

use super::Verdict;
use super::common::{
    Protocol, export_to, is_host, is_ip, is_label, is_port, is_wildcard_host, port, protocol,
    selector,
};
use super::read::At;

const ITEMS_COUNT_MAX: usize = 256;
const PORT_NAME_CHARS_MAX: usize = 62;
const LABEL_VALUE_CHARS_MAX: usize = 63;
const UNIX: &str = "unix://";

pub(super) fn service_entry(verdict: &mut Verdict, object: &At<'_>, spec: &At<'_>) {
    let resolution = match spec.text("resolution") {
        "" => "NONE",
        word => word,
    };
    for name in ["hosts", "addresses", "ports"] {
        if spec.items(name).len() > ITEMS_COUNT_MAX {
            verdict.reject(
                spec.field(name),
                format!("more than {ITEMS_COUNT_MAX} items"),
            );
        }
    }
    export_to(verdict, object, spec, true);
    entry_hosts(verdict, spec);
    entry_selector(verdict, spec, resolution);
    for address in spec.items("addresses") {
        let text = address.as_text();
        let is_range = text.contains('/') && text.parse::<ipnet::IpNet>().is_ok();
        if !is_ip(text) && !is_range {
            verdict.reject(address.path(), "neither an address nor a range of them");
        } else if is_range && !matches!(resolution, "NONE" | "STATIC") {
            let message = "a range needs resolution NONE or STATIC";
            verdict.reject(address.path(), message);
        }
    }
    entry_ports(verdict, object, spec, resolution);
    entry_endpoints(verdict, spec, resolution);
    if resolution == "DYNAMIC_DNS" {
        dynamic(verdict, object, spec);
    }
}

fn entry_hosts(verdict: &mut Verdict, spec: &At<'_>) {
    for host in spec.items("hosts") {
        let text = host.as_text();
        if text == "*" {
            verdict.reject(host.path(), "* alone stands for no service");
        } else if !is_wildcard_host(text) {
            verdict.reject(host.path(), "not a host name");
        } else if text.starts_with('*') && !text.starts_with("*.") {
            let message = "a wildcard of a part of a label; only whole labels, as in *.example.com, \
                           are matched everywhere";
            verdict.warn(host.path(), message);
        }
    }
}

fn entry_selector(verdict: &mut Verdict, spec: &At<'_>, resolution: &str) {
    let Some(labels) = spec.get("workloadSelector") else {
        return;
    };
    selector(verdict, &labels, "labels");
    if !spec.items("endpoints").is_empty() {
        let message = "workloadSelector and endpoints exclude each other";
        verdict.reject(labels.path(), message);
    }
    if resolution == "NONE" {
        let message = "resolution NONE goes to the address that the client asked for: the selector \
                       has no effect";
        verdict.warn(labels.path(), message);
    }
}

fn entry_ports(verdict: &mut Verdict, object: &At<'_>, spec: &At<'_>, resolution: &str) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut is_told_apart = true;
    let mut is_plain = false;
    for one in spec.items("ports") {
        if !one.is_object() {
            verdict.reject(one.path(), "a port that says nothing");
            continue;
        }
        let name = one.text("name");
        if !is_label(name) {
            verdict.reject(one.field("name"), "not a DNS label");
        } else if !names.insert(name) {
            verdict.reject(one.field("name"), "an earlier port has this name");
        }
        port(verdict, &one, "number");
        let number = one.integer("number").filter(|number| is_port(*number));
        if number.is_some_and(|number| !numbers.insert(number)) {
            verdict.reject(one.field("number"), "an earlier port has this number");
        }
        if one
            .integer("targetPort")
            .is_some_and(|target| target != 0 && !is_port(target))
        {
            verdict.reject(one.field("targetPort"), "not a port (1 to 65535)");
        }
        let word = one.text("protocol");
        let kind = protocol(word);
        if kind.is_none() && !word.is_empty() {
            verdict.reject(one.field("protocol"), "no such protocol");
        }
        is_told_apart &= matches!(kind, Some(Protocol::Http | Protocol::Tls));
        is_plain |= word.is_empty() || word.eq_ignore_ascii_case("tcp");
        let hosts = spec.items("hosts").len();
        let is_stream = kind != Some(Protocol::Http);
        if resolution == "DNS" && hosts > 1 && is_stream && !spec.items("endpoints").is_empty() {
            let message =
                "connections to this port go to the endpoints whichever host they ask for";
            verdict.warn(one.path(), message);
        }
    }
    if spec.items("hosts").len() > 1 && resolution != "NONE" && !is_told_apart {
        let message = "several hosts cannot be told apart on ports that are neither HTTP nor TLS";
        verdict.reject(spec.field("hosts"), message);
    }
    let labels = object
        .get("metadata")
        .map(|metadata| metadata.entries("labels"));
    let allocates = !labels.into_iter().flatten().any(|(key, value)| {
        key == "networking.istio.io/enable-autoallocate-ip" && value.as_text() == "false"
    });
    let addressed = !spec.items("addresses").is_empty() || allocates && resolution != "NONE";
    if is_plain && !addressed {
        let message = "TCP without addresses takes the port of every destination (IST0134)";
        verdict.warn(&spec.field("addresses"), message);
    }
}

fn entry_endpoints(verdict: &mut Verdict, spec: &At<'_>, resolution: &str) {
    let endpoints = spec.items("endpoints");
    let ports = spec.items("ports");
    let names: BTreeSet<&str> = ports.iter().map(|port| port.text("name")).collect();
    if resolution == "NONE" && !endpoints.is_empty() {
        let message = "resolution NONE takes no endpoints";
        verdict.reject(spec.field("endpoints"), message);
    }
    if resolution == "DNS_ROUND_ROBIN" && endpoints.len() > 1 {
        let message = "resolution DNS_ROUND_ROBIN takes one endpoint at most";
        verdict.reject(spec.field("endpoints"), message);
    }
    let is_dns = matches!(resolution, "DNS" | "DNS_ROUND_ROBIN");
    if is_dns && endpoints.is_empty() && !spec.has("workloadSelector") {
        for host in spec.items("hosts") {
            if !is_host(host.as_text()) {
                let message = "only a whole name can be resolved; without one, give endpoints";
                verdict.reject(host.path(), message);
            }
        }
    }
    for endpoint in &endpoints {
        let address = endpoint.text("address");
        let is_unix = address.starts_with(UNIX);
        let at = endpoint.field("address");
        if resolution == "STATIC" && !is_unix && !is_ip(address) && !address.is_empty() {
            verdict.reject(&at, "resolution STATIC takes addresses, not names");
        }
        if is_dns && !is_ip(address) && !is_host(address) {
            verdict.reject(&at, "not a host name");
        }
        if is_unix && ports.len() != 1 {
            verdict.reject(&at, "a Unix socket needs exactly one port of the entry");
        }
        for (name, at) in endpoint.entries("ports") {
            if !names.contains(name) {
                verdict.reject(at.path(), "the entry has no port of this name");
            }
        }
        workload(verdict, endpoint, true);
    }
}

fn dynamic(verdict: &mut Verdict, object: &At<'_>, spec: &At<'_>) {
    for host in spec.items("hosts") {
        if !host.as_text().starts_with('*') {
            verdict.reject(host.path(), "resolution DYNAMIC_DNS takes wildcards alone");
        }
    }
    for name in ["addresses", "endpoints"] {
        if !spec.items(name).is_empty() {
            verdict.reject(spec.field(name), "resolution DYNAMIC_DNS excludes it");
        }
    }
    for port in spec.items("ports") {
        let word = port.text("protocol").to_ascii_lowercase();
        if !matches!(word.as_str(), "http" | "tls" | "grpc" | "http2") {
            let message = "resolution DYNAMIC_DNS takes HTTP, HTTP2, GRPC and TLS";
            verdict.reject(port.field("protocol"), message);
        }
    }
    let labels = object
        .get("metadata")
        .map(|metadata| metadata.entries("labels"));
    let is_bound = labels
        .into_iter()
        .flatten()
        .any(|(key, _)| key == "istio.io/use-waypoint");
    if is_bound && spec.text("location") == "MESH_INTERNAL" {
        let message = "with a waypoint, hosts resolved per request are outside of the mesh";
        verdict.reject(spec.field("location"), message);
    }
}

pub(super) fn workload_entry(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    workload(verdict, spec, true);
    let address = spec.text("address");
    if !address.is_empty() && !address.starts_with(UNIX) && !is_ip(address) && !is_host(address) {
        verdict.reject(spec.field("address"), "neither an address nor a host name");
    }
}

/// What an endpoint, a WorkloadEntry and a template have in common.
fn workload(verdict: &mut Verdict, at: &At<'_>, is_addressed: bool) {
    let address = at.text("address");
    if address.is_empty() && is_addressed {
        if at.text("network").is_empty() {
            verdict.reject(at.field("address"), "an address or a network is required");
        } else {
            let message =
                "without an address, this is reached by the gateways of its network alone";
            verdict.warn(&at.field("address"), message);
        }
    }
    let ports = at.entries("ports");
    if let Some(path) = address.strip_prefix(UNIX) {
        let is_abstract = path.starts_with('@');
        if !(path.starts_with('/') || is_abstract) || path.ends_with('/') {
            verdict.reject(at.field("address"), "not the absolute path of a socket");
        }
        if !ports.is_empty() {
            verdict.reject(at.field("ports"), "a Unix socket has no ports");
        }
    }
    for (name, port) in ports {
        if name.is_empty() || name.chars().count() > PORT_NAME_CHARS_MAX {
            verdict.reject(port.path(), "a name of a port has from 1 to 62 characters");
        }
        if !port.value().as_i64().is_some_and(is_port) {
            verdict.reject(port.path(), "not a port (1 to 65535)");
        }
    }
    for (key, value) in at.entries("labels") {
        let text = value.as_text();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_long = text.chars().count() > LABEL_VALUE_CHARS_MAX;
        if key.is_empty() || is_long || !text.chars().all(plain) {
            verdict.reject(value.path(), "not a label");
        }
    }
}

pub(super) fn workload_group(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    match spec.get("template") {
        None => verdict.reject(spec.field("template"), "a template is required"),
        Some(template) => workload(verdict, &template, false),
    }
    if let Some(probe) = spec.get("probe") {
        self::probe(verdict, &probe);
    }
}

fn probe(verdict: &mut Verdict, probe: &At<'_>) {
    for name in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if probe.integer(name).is_some_and(|number| number < 0) {
            verdict.reject(probe.field(name), "less than 0");
        }
    }
    if let Some(http) = probe.get("httpGet") {
        if !matches!(
            http.text("scheme"),
            "" | "HTTP" | "HTTPS" | "http" | "https"
        ) {
            verdict.reject(http.field("scheme"), "neither HTTP nor HTTPS");
        }
        port(verdict, &http, "port");
        for header in http.items("httpHeaders") {
            if header.text("name").is_empty() {
                verdict.reject(header.field("name"), "a name is required");
            }
        }
    } else if let Some(socket) = probe.get("tcpSocket") {
        port(verdict, &socket, "port");
    } else if let Some(exec) = probe.get("exec") {
        if exec.items("command").is_empty() {
            verdict.reject(exec.field("command"), "a command is required");
        }
    } else {
        let message = "one of httpGet, tcpSocket and exec is required";
        verdict.reject(probe.path(), message);
    }
}
