//! VirtualService. A rule that cannot be applied as it is written answers 500 for what it
//! matches, so that no other rule takes its requests unnoticed; where not even its matches can
//! be read the whole object is invalid. Source: spec/policy-and-traffic.md §6, §9.4.

mod action;
mod http;
mod l4;
mod matches;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use std::sync::Arc;

use crate::Str;
use crate::finding::Severity;
use crate::input::VirtualService;
use crate::object::{Invalid, Parsed};

use super::read::{Doc, invalid, strs};
use values::is_host;

/// Most matches of all `http` rules together: each becomes a route of each port.
const MATCHES_COUNT_MAX: usize = 2_000;
/// The reserved gateway that stands for the mesh.
const MESH: &str = "mesh";

pub(super) fn virtual_service(doc: Doc<'_>) -> Arc<Parsed<VirtualService>> {
    doc.row(|doc| {
        let spec: wire::Spec = doc.spec(wire::FIELDS, |_| false)?;
        let gateways = strs(spec.gateways.unwrap_or_default());
        let (http, tls, tcp) = (
            spec.http.unwrap_or_default(),
            spec.tls.unwrap_or_default(),
            spec.tcp.unwrap_or_default(),
        );
        let delegate = spec.hosts.as_ref().is_none_or(Vec::is_empty);
        if delegate && !(gateways.is_empty() && tls.is_empty() && tcp.is_empty()) {
            let reason = "at least one host is required; only a VirtualService that others \
                          delegate to has none, and then neither gateways nor tls nor tcp";
            return Err(invalid("spec.hosts", reason));
        }
        if http.is_empty() && tls.is_empty() && tcp.is_empty() {
            let reason = "at least one rule of http, tls or tcp is required";
            return Err(invalid("spec", reason));
        }
        let mesh = gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH);
        let hosts = hosts(doc, spec.hosts.unwrap_or_default(), mesh)?;
        let mut out = VirtualService {
            hosts,
            gateways,
            export_to: strs(spec.export_to.unwrap_or_default()),
            ..VirtualService::default()
        };
        for (i, value) in http.iter().enumerate() {
            let rule = http::rule(doc, &format!("spec.http[{i}]"), value, delegate)?;
            out.http.push(rule);
        }
        let matches: usize = out.http.iter().map(|rule| rule.matches.len()).sum();
        if matches > MATCHES_COUNT_MAX {
            let reason = arcstr::format!("more than {MATCHES_COUNT_MAX} matches");
            return Err(invalid("spec.http", reason));
        }
        for (list, values, part) in [(&mut out.tls, &tls, "tls"), (&mut out.tcp, &tcp, "tcp")] {
            for (i, value) in values.iter().enumerate() {
                list.push(l4::rule(doc, &format!("spec.{part}[{i}]"), value)?);
            }
        }
        Ok(out)
    })
}

/// The hosts that can be used; an error when some are written and none can.
fn hosts(doc: &mut Doc<'_>, written: Vec<String>, mesh: bool) -> Result<Vec<Str>, Invalid> {
    let mut out = Vec::with_capacity(written.len());
    let mut first = None;
    for (i, host) in written.into_iter().enumerate() {
        let field = format!("spec.hosts[{i}]");
        let reason = if host == "*" && mesh {
            "* stands for no host of the mesh; name the hosts"
        } else if is_host(&host) {
            out.push(Str::from(host));
            continue;
        } else {
            "not a host name"
        };
        left_out(doc, &field, reason);
        first.get_or_insert(invalid(field, reason));
    }
    match first {
        Some(problem) if out.is_empty() => Err(problem),
        _ => Ok(out),
    }
}

/// Notes a value that is refused and without which the rest is right.
fn left_out(doc: &mut Doc<'_>, field: &str, reason: &str) {
    doc.note(
        "vs-field-invalid",
        Severity::Error,
        field,
        arcstr::format!("This is left out, and the rest applies without it: {reason}"),
        "Correct or remove it",
    );
}
