//! Rules of `tls` and `tcp`. Source: spec/policy-and-traffic.md §6.4, §9.4.

use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{HeaderOperations, VirtualL4, VirtualL4Match, WeightedDestination};
use crate::object::Invalid;

use super::super::read::{Doc, invalid, labels, port, strs};
use super::{action, wire};

/// A rule; one without usable destinations leads nowhere, so that its connections are closed.
///
/// # Errors
/// Not even its matches can be read.
pub(super) fn rule(doc: &mut Doc<'_>, at: &str, value: &Value) -> Result<VirtualL4, Invalid> {
    let (matches, routes) = match doc.fields::<wire::L4>(value, at, wire::FIELDS, |_| false) {
        Err(error) => {
            let only: wire::L4MatchOnly = doc.fields(value, at, wire::FIELDS, |_| true)?;
            (list(at, only.matches)?, Err(error))
        }
        Ok(wire) => (
            list(at, wire.matches)?,
            destinations(at, wire.route.unwrap_or_default()),
        ),
    };
    let routes = routes.unwrap_or_else(|problem| {
        let message = arcstr::format!(
            "This rule cannot be applied, so connections that it matches are closed: {}",
            problem.reason
        );
        doc.note(
            "vs-rule-invalid",
            Severity::Error,
            problem.field,
            message,
            "Correct the field",
        );
        Vec::new()
    });
    Ok(VirtualL4 { matches, routes })
}

fn list(
    at: &str,
    written: Option<Vec<Option<wire::L4Match>>>,
) -> Result<Vec<VirtualL4Match>, Invalid> {
    let written = written.into_iter().flatten().enumerate();
    written
        .map(|(i, one)| {
            let at = format!("{at}.match[{i}]");
            let wire = one.ok_or_else(|| invalid(at.clone(), "a match that says nothing"))?;
            let number = wire.port.filter(|number| *number != 0);
            Ok(VirtualL4Match {
                sni_hosts: strs(wire.sni_hosts.unwrap_or_default()),
                destination_subnets: strs(wire.destination_subnets.unwrap_or_default()),
                port: number
                    .map(|number| port(number, || format!("{at}.port")))
                    .transpose()?,
                source_labels: labels(wire.source_labels.into_iter().flatten()),
                gateways: strs(wire.gateways.unwrap_or_default()),
                source_namespace: wire.source_namespace.map(Str::from).unwrap_or_default(),
                source_subnet: wire.source_subnet.map(Str::from).unwrap_or_default(),
            })
        })
        .collect()
}

fn destinations(
    at: &str,
    written: Vec<wire::L4Destination>,
) -> Result<Vec<WeightedDestination>, Invalid> {
    let mut out = Vec::with_capacity(written.len());
    for (i, one) in written.into_iter().enumerate() {
        let at = format!("{at}.route[{i}]");
        out.push(WeightedDestination {
            destination: action::destination(&format!("{at}.destination"), one.destination)?,
            weight: action::weight(&at, one.weight)?,
            headers: HeaderOperations::default(),
        });
    }
    if out.is_empty() {
        return Err(invalid(
            format!("{at}.route"),
            "at least one destination is required",
        ));
    }
    action::weights(&format!("{at}.route"), &out)?;
    Ok(out)
}
