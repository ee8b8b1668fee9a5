//! Stage `waypoint`: Gateway → [`WaypointRow`].
//!
//! Every Gateway has a row, whatever its class, so that a reference can tell a missing waypoint
//! from one that is not ready. Source: spec/workload-discovery.md §4.2.

use std::collections::BTreeSet;
use std::sync::Arc;

use flow::{Output, Reads, View};
use model::derived::{InboundBinding, WaypointFor};
use model::input::{AllowedNamespaces, Gateway, GatewayClass, GatewayStatusAddress, Listener, Pod};
use model::labels::{LABEL_GATEWAY_NAME, LABEL_WAYPOINT_FOR};
use model::{
    Finding, GatewayAddress, GatewayController, Kind, NamespacedHostname, ObjectKey, ObjectRef,
    Parsed, Str, WaypointRow, defaults,
};

use crate::attach::Fallback;
use crate::keys;
use crate::tables::{self, InputView, MeshTable, error, warning};

/// The tracked view of waypoint rows.
pub type WaypointTable<'t> = View<'t, ObjectKey, WaypointRow>;

/// Index of pods by the Gateway whose instances they are.
#[derive(Clone, Copy, Debug)]
pub struct PodsByGateway;

impl flow::Index<ObjectKey, Parsed<Pod>> for PodsByGateway {
    type At = ObjectKey;

    fn keys(key: &ObjectKey, pod: &Parsed<Pod>, emit: &mut dyn FnMut(&ObjectKey)) {
        if let Some(gateway) = pod.meta.label(LABEL_GATEWAY_NAME) {
            emit(&ObjectKey::new(key.ns.clone(), gateway.clone()));
        }
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct WaypointView<'t> {
    /// Gateways.
    pub gateways: InputView<'t, Gateway>,
    /// GatewayClasses.
    pub gateway_classes: InputView<'t, GatewayClass>,
    /// Pods, with index [`PodsByGateway`].
    pub pods: InputView<'t, Pod>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The waypoint row of a Gateway. An unreadable Gateway is a waypoint that is never ready.
pub fn derive(
    key: &ObjectKey,
    view: &WaypointView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, WaypointRow, Finding> {
    let Some(object) = view.gateways.get(reads, key) else {
        return Output::gone();
    };
    let Ok(gateway) = &object.body else {
        return Output::one(key.clone(), unreadable(key));
    };
    let class = view
        .gateway_classes
        .get(reads, &ObjectKey::cluster(gateway.class.clone()));
    let text = class_text(object, class, keys::ANNOTATION_INBOUND_BINDING);
    let binding = text.and_then(|text| parse_binding(text));
    let listener = bound_listener(gateway, binding);
    let mesh = tables::mesh(view.mesh, reads);
    let row = WaypointRow {
        key: key.clone(),
        class: gateway.class.clone(),
        controller: GatewayController::of(class.map(|class| &**class), &gateway.class),
        ready: gateway.has_address,
        address: address(key, gateway, &mesh.network),
        serves: serves(object, class),
        allowed: listener
            .map(|listener| listener.allowed.clone())
            .unwrap_or_default(),
        listener: listener.map(|listener| listener.name.clone()),
        takes: (gateway.listeners.iter().find(|one| is_hbone(one)))
            .or(listener)
            .map_or_else(Vec::new, |listener| listener.supported_kinds().0),
        service_accounts: service_accounts(key, view, reads),
        binding,
        forwards_identity: object
            .meta
            .annotation(keys::ANNOTATION_FORWARD_IDENTITY)
            .is_some_and(|text| text == "true"),
    };
    let mut notes = findings(&row, gateway, Fallback::of_mesh(&mesh));
    if row.is_mesh_class() {
        notes.extend(unknown_word(object, class));
    }
    Output::one(key.clone(), row).with_notes(notes)
}

fn unreadable(key: &ObjectKey) -> WaypointRow {
    WaypointRow {
        key: key.clone(),
        class: Str::new(),
        controller: None,
        ready: false,
        address: None,
        serves: WaypointFor::None,
        allowed: AllowedNamespaces::None,
        listener: None,
        takes: Vec::new(),
        service_accounts: Vec::new(),
        binding: None,
        forwards_identity: false,
    }
}

fn class_text<'a>(
    gateway: &'a Parsed<Gateway>,
    class: Option<&'a Arc<Parsed<GatewayClass>>>,
    annotation: &str,
) -> Option<&'a Str> {
    let inherited = || class.and_then(|class| class.meta.annotation(annotation));
    gateway.meta.annotation(annotation).or_else(inherited)
}

fn serves(gateway: &Parsed<Gateway>, class: Option<&Arc<Parsed<GatewayClass>>>) -> WaypointFor {
    let inherited = || class.and_then(|class| class.meta.label(LABEL_WAYPOINT_FOR));
    match gateway
        .meta
        .label(LABEL_WAYPOINT_FOR)
        .or_else(inherited)
        .map(Str::as_str)
    {
        None | Some("service") => WaypointFor::Service,
        Some("workload") => WaypointFor::Workload,
        Some("all") => WaypointFor::All,
        Some(_) => WaypointFor::None,
    }
}

/// The finding on a word of `istio.io/waypoint-for` that nobody knows.
fn unknown_word(
    gateway: &Parsed<Gateway>,
    class: Option<&Arc<Parsed<GatewayClass>>>,
) -> Option<Finding> {
    let own = gateway.meta.label(LABEL_WAYPOINT_FOR);
    let inherited = || class.and_then(|class| class.meta.label(LABEL_WAYPOINT_FOR));
    let word = own.or_else(inherited)?;
    if matches!(word.as_str(), "service" | "workload" | "all" | "none") {
        return None;
    }
    let place = if own.is_some() {
        "the Gateway"
    } else {
        "its GatewayClass"
    };
    let note = error(
        "wp-for-unknown",
        ObjectRef::new(Kind::Gateway, gateway.meta.key.clone()),
        format!(
            "istio.io/waypoint-for: {word:?} of {place} is no known word, so the waypoint serves nothing and nothing can be bound to it"
        ),
        "Write service, workload, all or none",
    );
    Some(note.at("metadata.labels[istio.io/waypoint-for]"))
}

/// `NONE` or `PROXY`, optionally `/port`; a bad port is 0.
fn parse_binding(text: &str) -> Option<InboundBinding> {
    let (protocol, port) = match text.split_once('/') {
        None => (text, 0),
        Some((_, rest)) if rest.contains('/') => return None,
        Some((protocol, port)) => (protocol, port.parse().unwrap_or(0)),
    };
    match protocol {
        "NONE" => Some(InboundBinding { proxy: false, port }),
        "PROXY" => Some(InboundBinding { proxy: true, port }),
        _ => None,
    }
}

/// The listener that rules who may attach.
fn bound_listener(gateway: &Gateway, binding: Option<InboundBinding>) -> Option<&Listener> {
    let named = match binding {
        Some(InboundBinding { port, .. }) if port != 0 => gateway
            .listeners
            .iter()
            .find(|listener| listener.port == port),
        Some(InboundBinding { proxy: true, .. }) => gateway
            .listeners
            .iter()
            .find(|listener| listener.protocol == keys::PROTOCOL_PROXY),
        _ => None,
    };
    named.or_else(|| gateway.listeners.iter().find(|listener| is_hbone(listener)))
}

fn is_hbone(listener: &Listener) -> bool {
    listener.protocol == keys::PROTOCOL_HBONE && listener.port == defaults::HBONE_PORT
}

/// The first host name, else the first IP.
fn address(key: &ObjectKey, gateway: &Gateway, network: &Str) -> Option<GatewayAddress> {
    let hostname = gateway.addresses.iter().find_map(|address| match address {
        GatewayStatusAddress::Hostname(name) => Some(GatewayAddress::Hostname(
            NamespacedHostname::new(key.ns.clone(), name.clone()),
        )),
        GatewayStatusAddress::Ip(_) => None,
    });
    hostname.or_else(|| {
        gateway.addresses.iter().find_map(|address| match address {
            GatewayStatusAddress::Ip(ip) => Some(GatewayAddress::Ip {
                network: network.clone(),
                ip: *ip,
            }),
            GatewayStatusAddress::Hostname(_) => None,
        })
    })
}

fn service_accounts(key: &ObjectKey, view: &WaypointView<'_>, reads: &mut Reads) -> Vec<Str> {
    let pods = view.pods.by::<PodsByGateway>(reads, key);
    let accounts: BTreeSet<Str> = pods
        .filter_map(|(_, pod)| pod.ok())
        // Failed pods are not watched in a cluster. Source: spec/workload-discovery.md §0.1.
        .filter(|pod| !pod.failed)
        .map(|pod| pod.service_account.clone())
        .collect();
    accounts.into_iter().collect()
}

fn findings(row: &WaypointRow, gateway: &Gateway, consequence: Fallback) -> Vec<Finding> {
    let mut notes = Vec::new();
    if !row.is_mesh_class() {
        return notes;
    }
    let object = || ObjectRef::new(Kind::Gateway, row.key.clone());
    for (i, listener) in gateway.listeners.iter().enumerate() {
        if !is_hbone(listener) && row.listener.as_ref() != Some(&listener.name) {
            let Listener {
                name,
                protocol,
                port,
                ..
            } = listener;
            notes.push(
                warning(
                    "wp-listener-shape",
                    object(),
                    format!("Listener {name} ({protocol}/{port}) is ignored: a waypoint serves only HBONE on 15008"),
                    "Remove the listener",
                )
                .at(format!("spec.listeners[{i}]")),
            );
        }
    }
    if row.listener.is_none() {
        notes.push(
            warning(
                "wp-listener-shape",
                object(),
                "No listener with protocol HBONE on port 15008; only objects of the Gateway's own namespace can attach",
                "Add a listener with protocol HBONE and port 15008",
            )
            .at("spec.listeners"),
        );
    }
    if !row.ready {
        notes.push(
            error(
                "wp-not-ready",
                object(),
                format!(
                    "The waypoint has no address in its status; for objects that name it, {}",
                    consequence.text()
                ),
                "Check that the waypoint's deployment has a ready pod and its Service an address",
            )
            .at("status.addresses"),
        );
    }
    notes
}
