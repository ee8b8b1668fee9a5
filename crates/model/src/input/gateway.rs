//! Gateway, GatewayClass, ListenerSet and ReferenceGrant.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::Str;
use crate::names::ObjectKey;
use crate::object::Labels;

use super::AllowedNamespaces;

/// A listener of a Gateway or a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Name.
    pub name: Str,
    /// Port; 0 where a ListenerSet leaves it to the protocol.
    pub port: u16,
    /// Protocol as written.
    pub protocol: Str,
    /// Hostname, `None` for every host.
    pub hostname: Option<Str>,
    /// `allowedRoutes.namespaces`.
    pub allowed: AllowedNamespaces,
    /// `allowedRoutes.kinds`: group (default applied) and kind; empty when nothing is said.
    pub kinds: Vec<(Str, Str)>,
    /// `tls`.
    pub tls: Option<ListenerTls>,
}

/// `tls` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// `mode` is `Passthrough`.
    pub passthrough: bool,
    /// `mode` as written, where it is no word of the API.
    pub unknown_mode: Option<Str>,
    /// `certificateRefs`.
    pub certificates: Vec<CertificateRef>,
    /// `options`.
    pub options: Labels,
}

/// A reference to an object that holds certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateRef {
    /// API group, the default applied.
    pub group: Str,
    /// Kind, the default applied.
    pub kind: Str,
    /// Namespace, that of the object that refers to it when unset.
    pub ns: Option<Str>,
    /// Name.
    pub name: Str,
}

/// `tls.frontend` of a Gateway: who vouches for the certificates of its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendTls {
    /// `default.validation`; `None` where no certificates are asked for.
    pub default: Option<FrontendValidation>,
    /// `perPort[].tls.validation`: that of a port instead.
    pub per_port: BTreeMap<u16, Option<FrontendValidation>>,
}

impl FrontendTls {
    /// What counts for a port.
    pub fn of_port(&self, port: u16) -> Option<&FrontendValidation> {
        self.per_port.get(&port).unwrap_or(&self.default).as_ref()
    }

    /// Every validation.
    pub fn all(&self) -> impl Iterator<Item = &FrontendValidation> {
        self.default
            .iter()
            .chain(self.per_port.values().filter_map(Option::as_ref))
    }
}

/// A `validation` of `tls.frontend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendValidation {
    /// `caCertificateRefs`.
    pub authorities: Vec<CertificateRef>,
    /// `mode: AllowInsecureFallback`.
    pub accepts_untrusted: bool,
}

/// Type of a Gateway status address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayStatusAddress {
    /// `Hostname`.
    Hostname(Str),
    /// `IPAddress`.
    Ip(IpAddr),
}

/// gateway.networking.k8s.io Gateway, with the status that the source gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// `gatewayClassName`.
    pub class: Str,
    /// Listeners.
    pub listeners: Vec<Listener>,
    /// `status.addresses`; unparsable and untyped ones are left out (and noted).
    pub addresses: Vec<GatewayStatusAddress>,
    /// Whether `status.addresses` has any entry, readable or not: the readiness test.
    pub has_address: bool,
    /// `tls.frontend`.
    pub frontend: FrontendTls,
    /// Whether a controller deploys its instances, as `spec.addresses` tells.
    /// Source: spec/gateway-api.md §2.9.
    pub is_managed: bool,
    /// `spec.addresses`: type (empty when unset) and value.
    pub requested: Vec<(Str, Str)>,
    /// `tls.backend.clientCertificateRef`.
    pub client_certificate: Option<CertificateRef>,
    /// `allowedListeners.namespaces`: whose ListenerSets add listeners; `None` admits nobody.
    pub allowed_listeners: Option<AllowedNamespaces>,
    /// `infrastructure`.
    pub infrastructure: Infrastructure,
}

/// `infrastructure` of a Gateway: what is created for it looks so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// `labels`; `None` when they are not given.
    pub labels: Option<Labels>,
    /// `annotations`; `None` when they are not given.
    pub annotations: Option<Labels>,
    /// `parametersRef`.
    pub parameters: Option<ParametersRef>,
}

/// `infrastructure.parametersRef` of a Gateway: an object in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParametersRef {
    /// API group as written.
    pub group: Str,
    /// Kind.
    pub kind: Str,
    /// Name.
    pub name: Str,
}

impl ParametersRef {
    /// Whether it is of the one kind that can hold parameters, the core ConfigMap.
    pub fn is_config_map(&self) -> bool {
        matches!(self.group.as_str(), "" | "core") && self.kind == "ConfigMap"
    }
}

/// gateway.networking.k8s.io GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayClass {
    /// `spec.controllerName`.
    pub controller: Str,
}

/// gateway.networking.k8s.io ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSet {
    /// The Gateway that it adds to; `None` when `parentRef` names an object of another kind.
    pub parent: Option<ObjectKey>,
    /// Listeners.
    pub listeners: Vec<Listener>,
}

/// gateway.networking.k8s.io ReferenceGrant: every `from` × every `to` counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Group, kind, namespace.
    pub from: Vec<(Str, Str, Str)>,
    /// Group, kind, name (`None` = every one).
    pub to: Vec<(Str, Str, Option<Str>)>,
}
