//! Listeners, which Gateways and ListenerSets write alike.

use crate::Str;
use crate::finding::Severity;
use crate::input::{AllowedNamespaces, CertificateRef, LabelSelector, Listener, ListenerTls};
use crate::object::Invalid;

use super::super::read::{Doc, at_most, invalid, labels, port, strs};
use super::{GROUP, wire};

const LISTENERS_COUNT_MAX: usize = 64;
const ROUTE_KINDS_COUNT_MAX: usize = 8;

/// `spec.listeners`; in a ListenerSet the port may be left open.
pub(super) fn listeners(
    doc: &mut Doc<'_>,
    wire: Vec<wire::Listener>,
    port_may_be_open: bool,
) -> Result<Vec<Listener>, Invalid> {
    at_most(&wire, LISTENERS_COUNT_MAX, "spec.listeners")?;
    let wire = wire.into_iter().enumerate();
    wire.map(|(i, wire)| listener(doc, i, wire, port_may_be_open))
        .collect()
}

fn listener(
    doc: &mut Doc<'_>,
    i: usize,
    wire: wire::Listener,
    port_may_be_open: bool,
) -> Result<Listener, Invalid> {
    let at = |field: &str| format!("spec.listeners[{i}].{field}");
    let port = match wire.port {
        None | Some(0) if port_may_be_open => 0,
        Some(number) => port(number, || at("port"))?,
        None => return Err(invalid(at("port"), "a listener needs a port")),
    };
    let routes = wire.allowed_routes.unwrap_or_default();
    let kinds = routes.kinds.unwrap_or_default();
    at_most(&kinds, ROUTE_KINDS_COUNT_MAX, &at("allowedRoutes.kinds"))?;
    let kinds = kinds.into_iter().map(|wire| {
        let group = wire.group.as_deref().unwrap_or(GROUP);
        (Str::from(group), Str::from(wire.kind))
    });
    Ok(Listener {
        name: Str::from(wire.name),
        port,
        protocol: Str::from(wire.protocol),
        hostname: wire.hostname.filter(|host| !host.is_empty()).map(Str::from),
        kinds: kinds.collect(),
        allowed: routes
            .namespaces
            .map(|wire| namespaces(doc, &at("allowedRoutes.namespaces"), wire))
            .unwrap_or_default(),
        tls: wire.tls.map(tls),
    })
}

fn tls(wire: wire::ListenerTls) -> ListenerTls {
    let certificates = wire.certificate_refs.into_iter().flatten();
    let passthrough = wire.mode.as_deref() == Some("Passthrough");
    let known = passthrough || matches!(wire.mode.as_deref(), None | Some("" | "Terminate"));
    ListenerTls {
        passthrough,
        unknown_mode: wire.mode.filter(|_| !known).map(Str::from),
        certificates: certificates.map(certificate).collect(),
        options: labels(wire.options.into_iter().flatten()),
    }
}

/// A reference, by default to a core Secret.
pub(in crate::parse) fn certificate(wire: wire::Reference) -> CertificateRef {
    CertificateRef {
        group: Str::from(wire.group.unwrap_or_default()),
        kind: Str::from(wire.kind.unwrap_or_else(|| "Secret".to_owned())),
        ns: wire.namespace.filter(|ns| !ns.is_empty()).map(Str::from),
        name: Str::from(wire.name),
    }
}

/// Which namespaces are let in. A word that nobody knows, and a selector that is not there, let
/// in none.
pub(super) fn namespaces(doc: &mut Doc<'_>, at: &str, wire: wire::Namespaces) -> AllowedNamespaces {
    match (wire.from.as_deref(), wire.selector) {
        (None | Some("" | "Same"), _) => AllowedNamespaces::Same,
        (Some("All"), _) => AllowedNamespaces::All,
        (Some("None"), _) => AllowedNamespaces::None,
        (Some("Selector"), Some(selector)) => AllowedNamespaces::Selector(label_selector(selector)),
        (Some("Selector"), None) => {
            doc.note(
                "gw-namespaces-none",
                Severity::Warning,
                at,
                "from: Selector without a selector lets no namespace in",
                "Write the selector, or from: All",
            );
            AllowedNamespaces::None
        }
        (Some(_), _) => {
            doc.note(
                "gw-namespaces-none",
                Severity::Error,
                arcstr::format!("{at}.from"),
                "There is no such word, so no namespace is let in",
                "Write Same, All, Selector or None",
            );
            AllowedNamespaces::None
        }
    }
}

fn label_selector(wire: wire::Selector) -> LabelSelector {
    let expressions = wire.match_expressions.into_iter().flatten();
    LabelSelector {
        match_labels: labels(wire.match_labels.into_iter().flatten()),
        match_expressions: expressions
            .map(|e| {
                (
                    Str::from(e.key),
                    Str::from(e.operator),
                    strs(e.values.unwrap_or_default()),
                )
            })
            .collect(),
    }
}
