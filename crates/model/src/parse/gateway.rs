//! Gateway API kinds except routes, through the published types.

mod listeners;
mod wire;

use std::sync::Arc;

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;
use gateway_api::apis::standard::gateways::GatewayStatusAddresses;
use gateway_api::apis::standard::referencegrants::ReferenceGrantSpec;

use crate::Str;
use crate::finding::Severity;
use crate::gateway::GatewayController;
use crate::input::{
    FrontendTls, FrontendValidation, Gateway, GatewayClass, GatewayStatusAddress, Infrastructure,
    ListenerSet, ParametersRef, ReferenceGrant,
};
use crate::names::ObjectKey;
use crate::object::{Invalid, Parsed};

use super::read::{Doc, at_most, ip, labels, port};

pub(super) use listeners::certificate;
pub(super) use wire::Reference;

/// Group of Gateway API, the default of parent references.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

const ADDRESSES_COUNT_MAX: usize = 16;
const AUTHORITIES_COUNT_MAX: usize = 8;

const GATEWAY_FIELDS: &[&str] = &[
    "addresses",
    "allowedListeners",
    "allowedRoutes",
    "annotations",
    "backend",
    "caCertificateRefs",
    "certificateRefs",
    "clientCertificateRef",
    "default",
    "defaultScope",
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
    "perPort",
    "port",
    "protocol",
    "selector",
    "tls",
    "type",
    "validation",
    "value",
];

pub(super) fn gateway(doc: Doc<'_>) -> Arc<Parsed<Gateway>> {
    doc.row(|doc| {
        let spec: wire::GatewaySpec = doc.spec(GATEWAY_FIELDS, |_| false)?;
        let mut status: Vec<GatewayStatusAddresses> = doc.inner("status", "addresses")?;
        let mut place = "status.addresses";
        // The class may have an object that says otherwise; nobody reads the addresses then.
        let class = GatewayController::built_in(&spec.gateway_class_name);
        if status.is_empty() && class == Some(GatewayController::Remote) {
            status = requested(&spec);
            place = "spec.addresses";
        }
        let is_managed = is_managed(&spec);
        let requested: Vec<_> = spec.addresses.into_iter().flatten().collect();
        at_most(&requested, ADDRESSES_COUNT_MAX, "spec.addresses")?;
        if spec.default_scope.is_some_and(|scope| scope != "None") {
            doc.not_applied(
                "spec.defaultScope",
                "routes that name no Gateway attach to none",
            );
        }
        let (frontend_tls, backend) = match spec.tls {
            Some(tls) => (tls.frontend, tls.backend),
            None => (None, None),
        };
        let client_certificate = backend.and_then(|backend| backend.client_certificate_ref);
        let allowed = spec
            .allowed_listeners
            .and_then(|allowed| allowed.namespaces);
        let at = "spec.allowedListeners.namespaces";
        Ok(Gateway {
            class: Str::from(spec.gateway_class_name),
            listeners: listeners::listeners(doc, spec.listeners, false)?,
            has_address: !status.is_empty(),
            frontend: frontend(doc, frontend_tls)?,
            is_managed,
            client_certificate: client_certificate.map(certificate),
            // Here nothing said means nobody.
            allowed_listeners: allowed
                .filter(|wire| wire.from.is_some())
                .map(|wire| listeners::namespaces(doc, at, wire)),
            infrastructure: infrastructure(spec.infrastructure),
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
fn requested(spec: &wire::GatewaySpec) -> Vec<GatewayStatusAddresses> {
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

fn frontend(doc: &mut Doc<'_>, wire: Option<wire::Frontend>) -> Result<FrontendTls, Invalid> {
    let Some(wire) = wire else {
        return Ok(FrontendTls::default());
    };
    let mut out = FrontendTls {
        default: validation(doc, "spec.tls.frontend.default", wire.default)?,
        ..FrontendTls::default()
    };
    for (i, of_port) in wire.per_port.into_iter().flatten().enumerate() {
        let place = format!("spec.tls.frontend.perPort[{i}]");
        let at = port(of_port.port, || format!("{place}.port"))?;
        let found = validation(doc, &format!("{place}.tls"), of_port.tls)?;
        out.per_port.insert(at, found);
    }
    Ok(out)
}

fn validation(
    doc: &mut Doc<'_>,
    at: &str,
    wire: Option<wire::FrontendTls>,
) -> Result<Option<FrontendValidation>, Invalid> {
    let Some(wire) = wire.and_then(|tls| tls.validation) else {
        return Ok(None);
    };
    let refs = wire.ca_certificate_refs;
    let place = format!("{at}.validation.caCertificateRefs");
    at_most(&refs, AUTHORITIES_COUNT_MAX, &place)?;
    let accepts_untrusted = match wire.mode.as_deref() {
        None | Some("" | "AllowValidOnly") => false,
        Some("AllowInsecureFallback") => true,
        Some(_) => {
            doc.note(
                "gw-frontend-mode-unknown",
                Severity::Error,
                arcstr::format!("{at}.validation.mode"),
                "There is no such word, so clients must show a valid certificate",
                "Write AllowValidOnly or AllowInsecureFallback",
            );
            false
        }
    };
    Ok(Some(FrontendValidation {
        authorities: refs.into_iter().map(certificate).collect(),
        accepts_untrusted,
    }))
}

fn infrastructure(wire: Option<wire::Infrastructure>) -> Infrastructure {
    let Some(wire) = wire else {
        return Infrastructure::default();
    };
    Infrastructure {
        labels: wire.labels.map(labels),
        annotations: wire.annotations.map(labels),
        parameters: wire.parameters_ref.map(|wire| ParametersRef {
            group: Str::from(wire.group),
            kind: Str::from(wire.kind),
            name: Str::from(wire.name),
        }),
    }
}

/// Source: spec/gateway-api.md §2.9.
fn is_managed(spec: &wire::GatewaySpec) -> bool {
    let mut addresses = spec.addresses.iter().flatten();
    match (addresses.next(), addresses.next()) {
        (None, _) => true,
        (Some(only), None) => matches!(only.r#type.as_deref(), None | Some("IPAddress")),
        (Some(_), Some(_)) => false,
    }
}

pub(super) fn listener_set(doc: Doc<'_>) -> Arc<Parsed<ListenerSet>> {
    const FIELDS: &[&str] = &[
        "allowedRoutes",
        "certificateRefs",
        "from",
        "group",
        "hostname",
        "kind",
        "kinds",
        "listeners",
        "matchExpressions",
        "matchLabels",
        "mode",
        "name",
        "namespace",
        "namespaces",
        "options",
        "parentRef",
        "port",
        "protocol",
        "selector",
        "tls",
    ];
    doc.row(|doc| {
        let spec: wire::ListenerSetSpec = doc.spec(FIELDS, |_| false)?;
        let parent = spec.parent_ref;
        let is_gateway = parent.group.as_deref().is_none_or(|group| group == GROUP)
            && parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
        if !is_gateway {
            doc.note(
                "listener-set-parent",
                Severity::Error,
                "spec.parentRef",
                "Its parent is no Gateway, so its listeners are not added to anything",
                "Name a Gateway",
            );
        }
        let ns = parent.namespace.filter(|ns| !ns.is_empty()).map(Str::from);
        let ns = ns.unwrap_or_else(|| doc.meta.key.ns.clone());
        Ok(ListenerSet {
            parent: is_gateway.then(|| ObjectKey::new(ns, parent.name)),
            listeners: listeners::listeners(doc, spec.listeners, true)?,
        })
    })
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
