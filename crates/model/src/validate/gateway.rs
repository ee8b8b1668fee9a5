//! Gateway of networking.istio.io. Source: spec/policy-and-traffic.md §9.4.

use std::collections::BTreeSet;

use super::Verdict;
use super::common::{is_host, is_ip, is_label, is_wildcard_host, port, protocol};
use super::read::At;

pub(super) fn check(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    let servers = spec.items("servers");
    if servers.is_empty() {
        verdict.reject(spec.field("servers"), "at least one server is required");
    }
    let mut names = BTreeSet::new();
    for server in &servers {
        let Some(at) = server.get("port") else {
            verdict.reject(server.field("port"), "a port is required");
            continue;
        };
        let name = at.text("name");
        if name.is_empty() || !is_label(name) {
            verdict.reject(at.field("name"), "a name is required, a DNS label");
        } else if !names.insert(name) {
            verdict.reject(at.field("name"), "an earlier server's port has this name");
        }
        port(verdict, &at, "number");
        let word = at.text("protocol");
        if protocol(word).is_none() {
            verdict.reject(at.field("protocol"), "no such protocol");
        }
        hosts(verdict, server);
        tls(verdict, server, word);
        let bind = server.text("bind");
        if !bind.is_empty() && !is_ip(bind) && !bind.starts_with("unix://") {
            verdict.reject(server.field("bind"), "not an address");
        }
    }
}

fn hosts(verdict: &mut Verdict, server: &At<'_>) {
    let hosts = server.items("hosts");
    if hosts.is_empty() {
        verdict.reject(server.field("hosts"), "at least one host is required");
    }
    for host in hosts {
        let text = host.as_text();
        let (ns, name) = text.split_once('/').unwrap_or(("*", text));
        let is_ns = matches!(ns, "*" | ".") || is_label(ns);
        if !is_ns || !(is_wildcard_host(name) || is_ip(name)) {
            verdict.reject(host.path(), "neither a host name nor namespace/host");
        }
    }
}

fn tls(verdict: &mut Verdict, server: &At<'_>, word: &str) {
    let needs = matches!(word.to_ascii_uppercase().as_str(), "HTTPS" | "TLS");
    let Some(tls) = server.get("tls") else {
        if needs {
            let message = format!("{word} needs the settings of TLS");
            verdict.reject(server.field("tls"), message);
        }
        return;
    };
    let mode = tls.text("mode");
    if !needs {
        let settings = tls.value().as_object();
        let mut others = settings.into_iter().flat_map(|map| map.keys());
        if others.any(|name| name != "httpsRedirect") {
            let message = "a port without TLS has no settings of it but httpsRedirect";
            verdict.reject(tls.path(), message);
        }
        return;
    }
    if tls.is_true("httpsRedirect") {
        let message = "only a port of plain HTTP can redirect to HTTPS";
        verdict.reject(tls.field("httpsRedirect"), message);
    }
    credentials(verdict, &tls, mode);
    let min = version(tls.text("minProtocolVersion"));
    let max = version(tls.text("maxProtocolVersion"));
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        let message = "below minProtocolVersion";
        verdict.reject(tls.field("maxProtocolVersion"), message);
    }
    for name in tls.items("subjectAltNames") {
        if name.as_text().is_empty() {
            verdict.reject(name.path(), "an empty name");
        }
    }
}

fn version(word: &str) -> Option<u8> {
    match word {
        "TLSV1_0" => Some(0),
        "TLSV1_1" => Some(1),
        "TLSV1_2" => Some(2),
        "TLSV1_3" => Some(3),
        _ => None,
    }
}

/// Certificates come from one place: a Secret, several, or files.
fn credentials(verdict: &mut Verdict, tls: &At<'_>, mode: &str) {
    let one = tls.text("credentialName");
    let several = tls.items("credentialNames");
    let pairs = tls.items("tlsCertificates");
    let files = ["serverCertificate", "privateKey"].map(|name| !tls.text(name).is_empty());
    let places = [
        !one.is_empty(),
        !several.is_empty(),
        !pairs.is_empty(),
        files.contains(&true),
    ];
    if places.iter().filter(|given| **given).count() > 1 {
        let message =
            "credentialName, credentialNames, tlsCertificates and files exclude each other";
        verdict.reject(tls.path(), message);
    }
    for (list, name) in [(&several, "credentialNames"), (&pairs, "tlsCertificates")] {
        if list.len() > 2 {
            let message = "two at most: one RSA and one ECDSA certificate";
            verdict.reject(tls.field(name), message);
        }
    }
    for pair in &pairs {
        for name in ["serverCertificate", "privateKey"] {
            if pair.text(name).is_empty() {
                verdict.reject(pair.field(name), "a file is required");
            }
        }
    }
    if !one.is_empty() && !is_credential(one) {
        verdict.reject(tls.field("credentialName"), "not the name of a Secret");
    }
    let is_terminating = matches!(mode, "" | "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL");
    // PASSTHROUGH, the default of the API, is written as it is or not at all.
    if mode.is_empty() || !is_terminating {
        return;
    }
    let by_name = !one.is_empty() || !several.is_empty() || !pairs.is_empty();
    if !by_name {
        for (name, given) in ["serverCertificate", "privateKey"].into_iter().zip(files) {
            if !given {
                let message = format!("mode {mode} needs it, or a credentialName");
                verdict.reject(tls.field(name), message);
            }
        }
    }
    let by_secret = !one.is_empty() || !several.is_empty();
    if mode == "MUTUAL" && !by_secret && tls.text("caCertificates").is_empty() {
        let message = "mode MUTUAL needs it, or a credentialName";
        verdict.reject(tls.field("caCertificates"), message);
    }
}

fn is_credential(text: &str) -> bool {
    let name = text.split_once("://").map_or(text, |(_, name)| name);
    !name.is_empty() && name.split('/').all(is_host)
}
