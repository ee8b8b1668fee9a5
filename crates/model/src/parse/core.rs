//! Core and discovery kinds. They have many fields that do not concern the mesh: of pods and
//! slices, which are many, only those that do are read. What is ignored is not told; wrong types
//! of what is read are.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ServicePort as WirePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use crate::finding::Severity;
use crate::input::{
    EndpointSlice, Namespace, Node, Pod, Service, ServicePort, SliceEndpoint, SlicePort,
    TargetPort, Transport,
};
use crate::labels::LABEL_SERVICE_NAME;
use crate::object::{Invalid, Parsed};
use crate::{FrozenMap, Str, shared};

use super::read::{Doc, invalid, ip, labels, port, strs};

/// Most addresses of a Service from outside.
const EXTERNAL_COUNT_MAX: usize = 64;

pub(super) fn namespace(doc: Doc<'_>) -> Arc<Parsed<Namespace>> {
    doc.row(|_| Ok(Namespace { implicit: false }))
}

pub(super) fn node(doc: Doc<'_>) -> Arc<Parsed<Node>> {
    doc.row(|_| Ok(Node {}))
}

// === Pod ===

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    service_account_name: Option<&'a str>,
    node_name: Option<&'a str>,
    host_network: Option<bool>,
    #[serde(borrow)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    init_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    restart_policy: Option<&'a str>,
    #[serde(borrow)]
    ports: Option<Vec<ContainerPort<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort<'a> {
    name: Option<&'a str>,
    #[serde(rename = "containerPort")]
    number: Option<i32>,
    protocol: Option<&'a str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus<'a> {
    phase: Option<&'a str>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Option<&'a str>,
    #[serde(borrow, rename = "podIPs")]
    pod_ips: Option<Vec<PodIp<'a>>>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Deserialize)]
struct PodIp<'a> {
    ip: Option<&'a str>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    r#type: Option<&'a str>,
    status: Option<&'a str>,
}

pub(super) fn pod(doc: Doc<'_>) -> Arc<Parsed<Pod>> {
    doc.row(|doc| {
        let spec: PodSpec<'_> = doc.part("spec")?;
        let status: PodStatus<'_> = doc.part("status")?;
        let account = spec.service_account_name.filter(|name| !name.is_empty());
        let ips = pod_ips(&status);
        if ips.is_none() {
            doc.note(
                "field-not-applied",
                Severity::Warning,
                "status.podIPs",
                "One of the addresses is no IP address, so the Pod is no workload of the mesh",
                "Correct the address",
            );
        }
        Ok(Pod {
            service_account: shared::text(account.unwrap_or("default")),
            node: shared::text(spec.node_name.unwrap_or_default()),
            host_network: spec.host_network.unwrap_or_default(),
            failed: status.phase == Some("Failed"),
            terminal: matches!(status.phase, Some("Failed" | "Succeeded")),
            ready: is_ready(&status),
            ips,
            tcp_ports: tcp_ports(&spec)?,
        })
    })
}

fn is_ready(status: &PodStatus<'_>) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.r#type == Some("Ready") && c.status == Some("True"))
}

/// One bad address spoils the pod. Source: spec/workload-discovery.md §2.1.
fn pod_ips(status: &PodStatus<'_>) -> Option<Vec<std::net::IpAddr>> {
    let listed: Vec<&str> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.unwrap_or_default())
        .collect();
    let texts = match status.pod_ip {
        Some(single) if listed.is_empty() && !single.is_empty() => vec![single],
        _ => listed,
    };
    let mut ips: Vec<std::net::IpAddr> = texts.into_iter().map(ip).collect::<Option<_>>()?;
    // Room for four is made for the first one of a list that may end early.
    ips.shrink_to_fit();
    Some(ips)
}

fn tcp_ports(spec: &PodSpec<'_>) -> Result<FrozenMap<Str, u16>, Invalid> {
    let sidecar = |c: &&Container<'_>| c.restart_policy == Some("Always");
    let main = spec
        .containers
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, c)| ("containers", i, c));
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init
        .filter(|(_, c)| sidecar(c))
        .map(|(i, c)| ("initContainers", i, c));
    let mut out = BTreeMap::new();
    for (list, i, container) in main.chain(init) {
        for (j, wire) in container.ports.iter().flatten().enumerate() {
            let number = port(wire.number.unwrap_or_default(), || {
                format!("spec.{list}[{i}].ports[{j}].containerPort")
            })?;
            let tcp = matches!(wire.protocol, None | Some("" | "TCP"));
            if let (Some(name), true) = (wire.name.filter(|name| !name.is_empty()), tcp) {
                out.entry(shared::text(name)).or_insert(number);
            }
        }
    }
    Ok(shared::ports(out.into()))
}

// === Service ===

pub(super) fn service(doc: Doc<'_>) -> Arc<Parsed<Service>> {
    doc.row(|doc| {
        let spec: ServiceSpec = doc.part("spec")?;
        let ports = spec.ports.iter().flatten().enumerate();
        let status: ServiceStatus = doc.part("status").unwrap_or_default();
        Ok(Service {
            load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
            external: external(&spec, status),
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            cluster_ips: cluster_ips(&spec)?,
            selector: labels(spec.selector.iter().flatten()),
            ports: ports
                .map(|(i, wire)| service_port(i, wire))
                .collect::<Result<_, _>>()?,
            ip_families: strs(spec.ip_families.unwrap_or_default()),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            traffic_distribution: spec
                .traffic_distribution
                .filter(|text| !text.is_empty())
                .map(Str::from),
        })
    })
}

/// The status is for others to write, so what cannot be read of it is not there.
fn external(spec: &ServiceSpec, status: ServiceStatus) -> Vec<Str> {
    let ingress = status.load_balancer.and_then(|balancer| balancer.ingress);
    let ingress = ingress.into_iter().flatten();
    let ingress = ingress.flat_map(|one| [one.ip, one.hostname]).flatten();
    let listed = spec.external_ips.iter().flatten().cloned();
    let all = ingress.chain(listed).filter(|text| !text.is_empty());
    all.take(EXTERNAL_COUNT_MAX).map(Str::from).collect()
}

fn cluster_ips(spec: &ServiceSpec) -> Result<Vec<std::net::IpAddr>, Invalid> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let (field, texts) = match &spec.cluster_ip {
        Some(single) if listed.is_empty() => ("spec.clusterIP", std::slice::from_ref(single)),
        _ => ("spec.clusterIPs", listed),
    };
    texts
        .iter()
        .filter(|text| !text.is_empty() && *text != "None")
        .map(|text| {
            ip(text).ok_or_else(|| invalid(field, arcstr::format!("{text:?} is not an address")))
        })
        .collect()
}

fn service_port(i: usize, wire: &WirePort) -> Result<ServicePort, Invalid> {
    let at = |field: &str| format!("spec.ports[{i}].{field}");
    let number = port(wire.port, || at("port"))?;
    let target = match &wire.target_port {
        // As the API server has it, 0 is the port itself.
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::String(name)) if name.is_empty() => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(port(*target, || at("targetPort"))?),
        Some(IntOrString::String(name)) => TargetPort::Named(Str::from(name.as_str())),
    };
    Ok(ServicePort {
        name: Str::from(wire.name.as_deref().unwrap_or_default()),
        port: number,
        target,
        transport: transport(wire.protocol.as_deref(), || at("protocol"))?.unwrap_or_default(),
        app_protocol: wire
            .app_protocol
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(Str::from),
    })
}

fn transport(
    word: Option<&str>,
    field: impl FnOnce() -> String,
) -> Result<Option<Transport>, Invalid> {
    match word {
        None | Some("") => Ok(None),
        Some("TCP") => Ok(Some(Transport::Tcp)),
        Some("UDP") => Ok(Some(Transport::Udp)),
        Some("SCTP") => Ok(Some(Transport::Sctp)),
        Some(word) => Err(invalid(
            field(),
            arcstr::format!("{word:?} is not TCP, UDP or SCTP"),
        )),
    }
}

// === EndpointSlice ===

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    #[serde(borrow)]
    addresses: Option<Vec<&'a str>>,
    conditions: Option<EndpointConditions>,
    #[serde(borrow)]
    target_ref: Option<EndpointTarget<'a>>,
}

#[derive(Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct EndpointTarget<'a> {
    kind: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    uid: Option<&'a str>,
}

#[derive(Deserialize)]
struct EndpointPort<'a> {
    name: Option<&'a str>,
    port: Option<i32>,
    protocol: Option<&'a str>,
}

pub(super) fn endpoint_slice(doc: Doc<'_>) -> Arc<Parsed<EndpointSlice>> {
    doc.row(|doc| {
        let address_type: &str = doc.part("addressType")?;
        let endpoints: Vec<Endpoint<'_>> = doc.part("endpoints")?;
        let ports: Vec<EndpointPort<'_>> = doc.part("ports")?;
        note_ports(doc, &endpoints, &ports);
        if address_type != "FQDN" {
            note_addresses(doc, &endpoints);
        }
        let service = doc
            .meta
            .label(LABEL_SERVICE_NAME)
            .filter(|name| !name.is_empty());
        Ok(EndpointSlice {
            fqdn: address_type == "FQDN",
            service: service.cloned(),
            endpoints: slice_endpoints(&endpoints, &doc.meta.key.ns),
            ports: ports
                .into_iter()
                .enumerate()
                .map(slice_port)
                .collect::<Result<_, _>>()?,
        })
    })
}

/// Endpoints that are left out for an address. Source: spec/workload-discovery.md §2.3.
fn note_addresses(doc: &mut Doc<'_>, endpoints: &[Endpoint<'_>]) {
    for (i, endpoint) in endpoints.iter().enumerate().filter(|(_, e)| !is_pod(e)) {
        let mut addresses = endpoint.addresses.iter().flatten();
        if let Some(j) = addresses.position(|text| ip(text).is_none()) {
            doc.note(
                "field-not-applied",
                Severity::Warning,
                format!("endpoints[{i}].addresses[{j}]"),
                "This is no IP address, so the endpoint is not used",
                "Correct the address",
            );
        }
    }
}

fn is_pod(endpoint: &Endpoint<'_>) -> bool {
    let target = endpoint.target_ref.as_ref();
    target.and_then(|target| target.kind) == Some("Pod")
}

/// Ports that no endpoint without pod is reached on. An API server fills in name and protocol,
/// files may lack them. Source: spec/workload-discovery.md §2.9.
fn note_ports(doc: &mut Doc<'_>, endpoints: &[Endpoint<'_>], ports: &[EndpointPort<'_>]) {
    if endpoints.iter().all(is_pod) {
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        if port.name.is_some() && port.port.is_some() && port.protocol.is_some() {
            continue;
        }
        doc.note(
            "field-not-applied",
            Severity::Warning,
            format!("ports[{i}]"),
            "A port without name, port or protocol is not used; the endpoints are not reached on it",
            "Write all three; the name may be empty",
        );
    }
}

fn slice_endpoints(wire: &[Endpoint<'_>], ns: &Str) -> Vec<SliceEndpoint> {
    // Of what is read a collected list would keep the room, five times what it needs.
    let mut endpoints = Vec::with_capacity(wire.len());
    endpoints.extend(wire.iter().map(|endpoint| slice_endpoint(endpoint, ns)));
    endpoints
}

fn slice_endpoint(wire: &Endpoint<'_>, ns: &Str) -> SliceEndpoint {
    let target = wire.target_ref.as_ref();
    if let Some(target) = target.filter(|target| target.kind == Some("Pod")) {
        let ns = target.namespace.map_or_else(|| ns.clone(), shared::text);
        let text = |text: Option<&str>| shared::text(text.unwrap_or_default());
        // The rest is the pod's to say. Left out, a pod that becomes ready changes no slice.
        return SliceEndpoint {
            addresses: Vec::new(),
            ready: true,
            pod: Some((ns, text(target.name), text(target.uid))),
        };
    }
    let conditions = wire.conditions.as_ref();
    SliceEndpoint {
        addresses: wire
            .addresses
            .iter()
            .flatten()
            .copied()
            .map(Str::from)
            .collect(),
        ready: conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true),
        pod: None,
    }
}

fn slice_port((i, wire): (usize, EndpointPort<'_>)) -> Result<SlicePort, Invalid> {
    let number = wire
        .port
        .map(|number| port(number, || format!("ports[{i}].port")))
        .transpose()?;
    Ok(SlicePort {
        name: wire.name.map(shared::text),
        port: number,
        transport: transport(wire.protocol, || format!("ports[{i}].protocol"))?,
    })
}
