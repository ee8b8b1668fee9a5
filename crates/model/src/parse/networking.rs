//! networking.istio.io kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::Str;
use crate::finding::Severity;
use crate::input::{EntryPort, Resolution, ServiceEntry, WorkloadEntry};
use crate::object::{Invalid, Parsed};

use super::read::{Doc, invalid, labels, port, strs};

const ENTRY_FIELDS: &[&str] = &[
    "address",
    "addresses",
    "endpoints",
    "exportTo",
    "hosts",
    "labels",
    "locality",
    "location",
    "name",
    "network",
    "number",
    "ports",
    "protocol",
    "resolution",
    "serviceAccount",
    "subjectAltNames",
    "targetPort",
    "weight",
    "workloadSelector",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryWire {
    hosts: Option<Vec<String>>,
    addresses: Option<Vec<String>>,
    ports: Option<Vec<PortWire>>,
    location: Option<String>,
    resolution: Option<String>,
    endpoints: Option<Vec<EndpointWire>>,
    workload_selector: Option<SelectorWire>,
    subject_alt_names: Option<Vec<String>>,
    export_to: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortWire {
    name: Option<String>,
    number: i64,
    protocol: Option<String>,
    target_port: Option<i64>,
}

#[derive(Deserialize)]
struct SelectorWire {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointWire {
    address: Option<String>,
    ports: Option<BTreeMap<String, i64>>,
    labels: Option<BTreeMap<String, String>>,
    network: Option<String>,
    locality: Option<String>,
    weight: Option<u32>,
    service_account: Option<String>,
}

#[derive(Deserialize)]
struct AllocatedWire {
    value: Option<String>,
    host: Option<String>,
}

pub(super) fn service_entry(doc: Doc<'_>) -> Arc<Parsed<ServiceEntry>> {
    doc.row(|doc| {
        let spec: EntryWire = doc.spec(ENTRY_FIELDS, |_| false)?;
        let allocated: Vec<AllocatedWire> = doc.inner("status", "addresses")?;
        let hosts = strs(spec.hosts.unwrap_or_default());
        if hosts.is_empty() {
            return Err(invalid("spec.hosts", "at least one host is required"));
        }
        if let Some(i) = hosts.iter().position(|host| !is_host(host)) {
            return Err(invalid(format!("spec.hosts[{i}]"), "not a host name"));
        }
        let export_to = strs(spec.export_to.unwrap_or_default());
        if !export_to.is_empty() && !export_to.iter().any(|ns| ns == "*") {
            doc.note(
                "se-exportto-ambient",
                Severity::Error,
                "spec.exportTo",
                "exportTo does not restrict clients of the ambient mesh: ztunnel serves the hosts to every namespace",
                "Use serviceEntryVisibility of the mesh config, or policies",
            );
        }
        let ports = spec.ports.into_iter().flatten().enumerate();
        let endpoints = spec.endpoints.into_iter().flatten().enumerate();
        Ok(ServiceEntry {
            hosts,
            addresses: strs(spec.addresses.unwrap_or_default()),
            ports: ports.map(entry_port).collect::<Result<_, _>>()?,
            external: is_external(spec.location.as_deref())?,
            resolution: resolution(spec.resolution.as_deref())?,
            endpoints: endpoints
                .map(|(i, wire)| endpoint(&format!("spec.endpoints[{i}]"), wire))
                .collect::<Result<_, _>>()?,
            selector: spec
                .workload_selector
                .map(|wire| labels(wire.labels.into_iter().flatten())),
            subject_alt_names: strs(spec.subject_alt_names.unwrap_or_default()),
            export_to,
            allocated: allocated
                .into_iter()
                .map(|a| {
                    (
                        Str::from(a.value.unwrap_or_default()),
                        Str::from(a.host.unwrap_or_default()),
                    )
                })
                .collect(),
        })
    })
}

/// Hosts become parts of wire names, whose separators they must not carry.
fn is_host(host: &str) -> bool {
    const BYTES_MAX: usize = 253;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*');
    !host.is_empty() && host.len() <= BYTES_MAX && host.chars().all(plain)
}

fn is_external(location: Option<&str>) -> Result<bool, Invalid> {
    match location {
        None | Some("" | "MESH_EXTERNAL") => Ok(true),
        Some("MESH_INTERNAL") => Ok(false),
        Some(word) => Err(invalid(
            "spec.location",
            arcstr::format!("{word:?} is not MESH_EXTERNAL or MESH_INTERNAL"),
        )),
    }
}

fn resolution(word: Option<&str>) -> Result<Resolution, Invalid> {
    match word {
        None | Some("" | "NONE") => Ok(Resolution::None),
        Some("STATIC") => Ok(Resolution::Static),
        Some("DNS") => Ok(Resolution::Dns),
        Some("DNS_ROUND_ROBIN") => Ok(Resolution::DnsRoundRobin),
        Some("DYNAMIC_DNS") => Ok(Resolution::DynamicDns),
        Some(word) => Err(invalid(
            "spec.resolution",
            arcstr::format!("{word:?} is not NONE, STATIC, DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS"),
        )),
    }
}

fn entry_port((i, wire): (usize, PortWire)) -> Result<EntryPort, Invalid> {
    let at = |field: &str| format!("spec.ports[{i}].{field}");
    let target = wire.target_port.filter(|target| *target != 0);
    Ok(EntryPort {
        name: Str::from(wire.name.unwrap_or_default()),
        number: port(wire.number, || at("number"))?,
        protocol: Str::from(wire.protocol.unwrap_or_default()),
        target: target
            .map(|target| port(target, || at("targetPort")))
            .transpose()?,
    })
}

fn endpoint(at: &str, wire: EndpointWire) -> Result<WorkloadEntry, Invalid> {
    let text = |text: Option<String>| Str::from(text.unwrap_or_default());
    let ports = wire.ports.into_iter().flatten();
    Ok(WorkloadEntry {
        ports: ports
            .map(|(name, number)| {
                let number = port(number, || format!("{at}.ports.{name}"))?;
                Ok((Str::from(name), number))
            })
            .collect::<Result<_, Invalid>>()?,
        address: text(wire.address),
        labels: labels(wire.labels.into_iter().flatten()),
        network: text(wire.network),
        locality: text(wire.locality),
        weight: wire.weight.unwrap_or_default(),
        service_account: text(wire.service_account),
    })
}

pub(super) fn workload_entry(doc: Doc<'_>) -> Arc<Parsed<WorkloadEntry>> {
    doc.row(|doc| {
        let spec: EndpointWire = doc.spec(ENTRY_FIELDS, |_| false)?;
        endpoint("spec", spec)
    })
}
