//! Gateway API kinds except routes, through the published types.

use std::sync::Arc;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;
use gateway_api::apis::standard::gateways::{
    GatewayListeners, GatewayListenersAllowedRoutesNamespaces,
    GatewayListenersAllowedRoutesNamespacesFrom as From, GatewayListenersTls,
    GatewayListenersTlsMode, GatewaySpec, GatewayStatusAddresses, GatewayTls,
};
use gateway_api::apis::standard::referencegrants::ReferenceGrantSpec;

use crate::Str;
use crate::finding::Severity;
use crate::input::{
    AllowedNamespaces, CertificateRef, FrontendTls, Gateway, GatewayClass, GatewayStatusAddress,
    LabelSelector, Listener, ListenerTls, ReferenceGrant,
};
use crate::object::{Invalid, Parsed};

use super::read::{Doc, at_most, ip, labels, port, strs};

/// Group of Gateway API, the default of parent references.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// Class of gateways that somebody else runs.
const REMOTE_CLASS: &str = "istio-remote";

const LISTENERS_COUNT_MAX: usize = 64;
const ADDRESSES_COUNT_MAX: usize = 16;
const ROUTE_KINDS_COUNT_MAX: usize = 8;

const GATEWAY_FIELDS: &[&str] = &[
    "addresses",
    "allowedListeners",
    "allowedRoutes",
    "annotations",
    "certificateRefs",
    "from",
    "frontend",
    "gatewayClassName",
    "hostname",
    "infrastructure",
    "kinds",
    "labels",
    "listeners",
    "matchExpressions",
    "matchLabels",
    "mode",
    "name",
    "namespaces",
    "options",
    "parametersRef",
    "port",
    "protocol",
    "selector",
    "tls",
    "type",
    "value",
];

pub(super) fn gateway(doc: Doc<'_>) -> Arc<Parsed<Gateway>> {
    doc.row(|doc| {
        let spec: GatewaySpec = doc.spec(GATEWAY_FIELDS, |_| false)?;
        let mut status: Vec<GatewayStatusAddresses> = doc.inner("status", "addresses")?;
        let mut place = "status.addresses";
        if status.is_empty() && spec.gateway_class_name == REMOTE_CLASS {
            status = requested(&spec);
            place = "spec.addresses";
        }
        at_most(&spec.listeners, LISTENERS_COUNT_MAX, "spec.listeners")?;
        let is_managed = is_managed(&spec);
        let requested: Vec<_> = spec.addresses.into_iter().flatten().collect();
        at_most(&requested, ADDRESSES_COUNT_MAX, "spec.addresses")?;
        let backend = spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
        let has_client_certificate =
            backend.is_some_and(|backend| backend.client_certificate_ref.is_some());
        let frontend = frontend(spec.tls)?;
        Ok(Gateway {
            class: Str::from(spec.gateway_class_name),
            listeners: spec
                .listeners
                .into_iter()
                .enumerate()
                .map(listener)
                .collect::<Result<_, _>>()?,
            has_address: !status.is_empty(),
            frontend,
            is_managed,
            has_client_certificate,
            requested: requested
                .into_iter()
                .map(|wire| {
                    (
                        Str::from(wire.r#type.unwrap_or_default()),
                        Str::from(wire.value.unwrap_or_default()),
                    )
                })
                .collect(),
            addresses: status
                .iter()
                .enumerate()
                .filter_map(|(i, a)| address(doc, &format!("{place}[{i}]"), a))
                .collect(),
        })
    })
}

/// The addresses of a Gateway that nobody deploys: its status is a copy of them, and files are
/// read before anybody copied. Source: spec/gateway-api.md §4.4, §5.8.
fn requested(spec: &GatewaySpec) -> Vec<GatewayStatusAddresses> {
    let requested = spec.addresses.iter().flatten();
    requested
        .map(|wire| GatewayStatusAddresses {
            r#type: wire.r#type.clone(),
            value: wire.value.clone().unwrap_or_default(),
        })
        .collect()
}

/// A status address; one without a usable type or value is skipped.
/// Source: spec/workload-discovery.md §4.2.
fn address(
    doc: &mut Doc<'_>,
    place: &str,
    wire: &GatewayStatusAddresses,
) -> Option<GatewayStatusAddress> {
    let found = match wire.r#type.as_deref() {
        Some("Hostname") if !wire.value.is_empty() => Some(GatewayStatusAddress::Hostname(
            Str::from(wire.value.as_str()),
        )),
        Some("IPAddress") => ip(&wire.value).map(GatewayStatusAddress::Ip),
        _ => None,
    };
    if found.is_none() {
        doc.note(
            "gateway-address-unusable",
            Severity::Warning,
            Str::from(place),
            "This address cannot be used: its type must be Hostname, or IPAddress with an IP address as value",
            "Set type to Hostname or IPAddress",
        );
    }
    found
}

fn listener((i, wire): (usize, GatewayListeners)) -> Result<Listener, Invalid> {
    let routes = wire.allowed_routes.unwrap_or_default();
    let kinds = routes.kinds.unwrap_or_default();
    at_most(
        &kinds,
        ROUTE_KINDS_COUNT_MAX,
        &format!("spec.listeners[{i}].allowedRoutes.kinds"),
    )?;
    let kinds = kinds.into_iter().map(|wire| {
        let group = wire.group.as_deref().unwrap_or(GROUP);
        (Str::from(group), Str::from(wire.kind))
    });
    Ok(Listener {
        name: Str::from(wire.name),
        port: port(wire.port, || format!("spec.listeners[{i}].port"))?,
        protocol: Str::from(wire.protocol),
        hostname: wire.hostname.filter(|host| !host.is_empty()).map(Str::from),
        kinds: kinds.collect(),
        allowed: allowed(routes.namespaces),
        tls: wire.tls.map(listener_tls),
    })
}

fn listener_tls(wire: GatewayListenersTls) -> ListenerTls {
    let certificates = wire.certificate_refs.into_iter().flatten();
    ListenerTls {
        passthrough: matches!(wire.mode, Some(GatewayListenersTlsMode::Passthrough)),
        certificates: certificates
            .map(|c| certificate(c.group, c.kind, c.namespace, c.name))
            .collect(),
        options: labels(wire.options.into_iter().flatten()),
    }
}

fn certificate(
    group: Option<String>,
    kind: Option<String>,
    ns: Option<String>,
    name: String,
) -> CertificateRef {
    CertificateRef {
        group: Str::from(group.unwrap_or_default()),
        kind: Str::from(kind.unwrap_or_else(|| "Secret".to_owned())),
        ns: ns.filter(|ns| !ns.is_empty()).map(Str::from),
        name: Str::from(name),
    }
}

fn frontend(wire: Option<GatewayTls>) -> Result<FrontendTls, Invalid> {
    let Some(wire) = wire.and_then(|tls| tls.frontend) else {
        return Ok(FrontendTls::default());
    };
    let of_default = wire.default.validation.map(|v| v.ca_certificate_refs);
    let mut out = FrontendTls {
        default: of_default
            .into_iter()
            .flatten()
            .map(|c| certificate(Some(c.group), Some(c.kind), c.namespace, c.name))
            .collect(),
        ..FrontendTls::default()
    };
    for (i, of_port) in wire.per_port.into_iter().flatten().enumerate() {
        let at = port(of_port.port, || {
            format!("spec.tls.frontend.perPort[{i}].port")
        })?;
        let refs = of_port.tls.validation.map(|v| v.ca_certificate_refs);
        let refs = refs
            .into_iter()
            .flatten()
            .map(|c| certificate(Some(c.group), Some(c.kind), c.namespace, c.name))
            .collect();
        out.per_port.insert(at, refs);
    }
    Ok(out)
}

/// Source: spec/gateway-api.md §2.9.
fn is_managed(spec: &GatewaySpec) -> bool {
    let mut addresses = spec.addresses.iter().flatten();
    match (addresses.next(), addresses.next()) {
        (None, _) => true,
        (Some(only), None) => matches!(only.r#type.as_deref(), None | Some("IPAddress")),
        (Some(_), Some(_)) => false,
    }
}

fn allowed(wire: Option<GatewayListenersAllowedRoutesNamespaces>) -> AllowedNamespaces {
    let Some(wire) = wire else {
        return AllowedNamespaces::Same;
    };
    match (wire.from, wire.selector) {
        (None | Some(From::Same), _) => AllowedNamespaces::Same,
        (Some(From::All), _) => AllowedNamespaces::All,
        (Some(From::Selector), None) => AllowedNamespaces::None,
        (Some(From::Selector), Some(selector)) => {
            let expressions = selector.match_expressions.into_iter().flatten();
            AllowedNamespaces::Selector(LabelSelector {
                match_labels: labels(selector.match_labels.into_iter().flatten()),
                match_expressions: expressions
                    .map(|e| {
                        (
                            Str::from(e.key),
                            Str::from(e.operator),
                            strs(e.values.unwrap_or_default()),
                        )
                    })
                    .collect(),
            })
        }
    }
}

pub(super) fn gateway_class(doc: Doc<'_>) -> Arc<Parsed<GatewayClass>> {
    const FIELDS: &[&str] = &["controllerName", "description", "parametersRef"];
    doc.row(|doc| {
        let spec: GatewayClassSpec = doc.spec(FIELDS, |_| false)?;
        Ok(GatewayClass {
            controller: Str::from(spec.controller_name),
        })
    })
}

pub(super) fn reference_grant(doc: Doc<'_>) -> Arc<Parsed<ReferenceGrant>> {
    const FIELDS: &[&str] = &["from", "to", "group", "kind", "namespace", "name"];
    doc.row(|doc| {
        let spec: ReferenceGrantSpec = doc.spec(FIELDS, |_| false)?;
        let from = spec.from.into_iter();
        let to = spec.to.into_iter();
        Ok(ReferenceGrant {
            from: from
                .map(|f| {
                    (
                        Str::from(f.group),
                        Str::from(f.kind),
                        Str::from(f.namespace),
                    )
                })
                .collect(),
            to: to
                .map(|t| {
                    (
                        Str::from(t.group),
                        Str::from(t.kind),
                        t.name.filter(|n| !n.is_empty()).map(Str::from),
                    )
                })
                .collect(),
        })
    })
}
