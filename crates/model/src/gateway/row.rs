//! Rows of Gateways, their listeners and their routes.

use std::fmt;

use crate::Str;
use crate::finding::ObjectRef;
use crate::input::AllowedNamespaces;
use crate::names::{Kind, NamespacedHostname, ObjectKey};
use crate::secret::CredentialGrants;

use super::GatewayController;

/// Why something is not as it should be: a reason of the API and words for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Defect {
    /// One word of the API's list.
    pub reason: &'static str,
    /// For people.
    pub message: Str,
}

impl Defect {
    /// From its parts.
    pub fn new(reason: &'static str, message: impl Into<Str>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// A Gateway of ours. Source: spec/gateway-api.md §2.3, §2.9, §3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRow {
    /// The Gateway.
    pub key: ObjectKey,
    /// Who controls its class.
    pub controller: GatewayController,
    /// Its class.
    pub class: Str,
    /// A controller deploys its instances (`spec.addresses` names no Services).
    pub is_managed: bool,
    /// Name of its Deployment, Service, HorizontalPodAutoscaler and PodDisruptionBudget.
    pub deployment: Str,
    /// Service account of its instances.
    pub service_account: Str,
    /// Services behind which its instances are, in the order of `spec.addresses`.
    pub targets: Vec<NamespacedHostname>,
    /// Listeners: its own in the order of its spec, then those of admitted ListenerSets, the
    /// oldest first. None where the Gateway cannot have any for want of a target; see
    /// [`Self::address_defect`].
    pub listeners: Vec<ListenerRow>,
    /// ListenerSets that name it as their parent, the oldest first.
    pub listener_sets: Vec<ListenerSetRow>,
    /// Why nothing is run for its class; it has no listeners then.
    pub class_defect: Option<Defect>,
    /// What is wrong with its addresses; its ListenerSets are not accepted either.
    pub address_defect: Option<Defect>,
    /// What is wrong with `spec.infrastructure.parametersRef`.
    pub parameters_defect: Option<Defect>,
    /// Resource with the certificate that its proxies show to backends
    /// (`kubernetes-gateway://ns/name`); `None` where none is asked for or it cannot be used.
    pub client_certificate: Option<Str>,
    /// What is wrong with `spec.tls.backend.clientCertificateRef`.
    pub client_certificate_defect: Option<Defect>,
    /// What its proxies may have: what its listeners verifiably refer to, and nothing else.
    pub grants: CredentialGrants,
}

impl GatewayRow {
    /// The listeners that an object, the Gateway or a ListenerSet, brings.
    pub fn listeners_of<'r>(
        &'r self,
        owner: &'r ObjectRef,
    ) -> impl Iterator<Item = &'r ListenerRow> + 'r {
        self.listeners.iter().filter(move |one| one.owner == *owner)
    }

    /// What is wrong with it whatever its listeners are.
    pub fn defect(&self) -> Option<&Defect> {
        let own = [&self.class_defect, &self.address_defect];
        let defects = own.into_iter().chain([&self.parameters_defect]);
        defects.flatten().next()
    }
}

/// A ListenerSet that names a Gateway of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSetRow {
    /// The ListenerSet.
    pub key: ObjectKey,
    /// Why its listeners are not added: the class takes none, or the Gateway does not let the
    /// namespace add any. Reason `NotAllowed`.
    pub refused: Option<Defect>,
}

/// Protocol of a listener, in the case in which the API writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerProtocol {
    /// `HTTP`.
    Http,
    /// `HTTPS`.
    Https,
    /// `TLS`.
    Tls,
    /// `TCP`.
    Tcp,
    /// `HBONE`.
    Hbone,
    /// Any other word; nothing is served for it.
    Other(Str),
}

// === impl ListenerProtocol ===

impl ListenerProtocol {
    /// The protocol that a word stands for.
    pub fn of(word: &Str) -> Self {
        match word.as_str() {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "TCP" => Self::Tcp,
            "HBONE" => Self::Hbone,
            _ => Self::Other(word.clone()),
        }
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Hbone => "HBONE",
            Self::Other(word) => word,
        }
    }

    /// Whether connections begin with TLS that `tls` of the listener rules.
    pub fn has_tls(&self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

impl fmt::Display for ListenerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A listener of a Gateway, its own or that of a ListenerSet, judged.
///
/// Who serves looks at [`Self::is_served`], who attaches routes at [`Self::is_built`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRow {
    /// The object whose spec has it: a Gateway or a ListenerSet.
    pub owner: ObjectRef,
    /// Place in `spec.listeners` of that object.
    pub index: usize,
    /// Name; distinct among those of its owner, not of the Gateway.
    pub name: Str,
    /// Port of the Service; where a ListenerSet leaves it open, that of the protocol (else 0).
    pub port: u16,
    /// Protocol.
    pub protocol: ListenerProtocol,
    /// Host, `None` for every one.
    pub hostname: Option<Str>,
    /// Kinds of routes that it takes, in the order in which the status lists them.
    pub kinds: Vec<Kind>,
    /// Namespaces whose routes it takes; `Same` is that of [`Self::owner`].
    pub allowed: AllowedNamespaces,
    /// How it speaks TLS; `None` where it does not, or where it cannot for its defects.
    pub tls: Option<TlsRow>,
    /// What is wrong with it, by condition.
    pub defects: Defects,
    /// Which other listener is in its way: reason `HostnameConflict` or `ProtocolConflict`.
    /// Nothing else is looked at then.
    pub conflict: Option<Defect>,
    /// It asks for its port, and routes can be attached to it: no conflict, and `tls` where the
    /// protocol wants it. Defects do not matter.
    pub is_built: bool,
    /// It counts as valid for its owner's `Accepted`. The shape that a waypoint or a gateway
    /// between networks wants does not matter.
    pub is_valid: bool,
    /// It is to be served: built and valid, and of the shape that the controller serves.
    pub is_served: bool,
}

/// Defects of a listener, each for the condition that tells of it.
/// Source: spec/gateway-api.md §3.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// Why `Accepted` is false.
    pub accepted: Option<Defect>,
    /// Why `Programmed` is false.
    pub programmed: Option<Defect>,
    /// Why `ResolvedRefs` is false.
    pub resolved_refs: Option<Defect>,
}

/// What a listener does with TLS. Source: spec/envoy-config.md §6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Nothing: routes choose by SNI.
    Passthrough,
    /// Nothing: the SNI names the service.
    AutoPassthrough,
    /// Ends it with certificates from Secrets.
    Simple,
    /// The same, and clients must show a certificate.
    Mutual,
    /// The same, and clients may show one.
    OptionalMutual,
    /// Ends it with the certificate of the proxy itself.
    IstioSimple,
    /// The same, and clients must be workloads of the mesh.
    IstioMutual,
}

impl TlsMode {
    /// Whether the listener ends TLS.
    pub fn terminates(self) -> bool {
        !matches!(self, Self::Passthrough | Self::AutoPassthrough)
    }
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRow {
    /// What it does.
    pub mode: TlsMode,
    /// Names of the resources with its certificates (`kubernetes-gateway://ns/name`), at most two.
    pub credentials: Vec<Str>,
    /// Name of the resource with the authorities of clients
    /// (`kubernetes-gateway://ns/name-cacert` or `configmap://ns/name`).
    pub authority: Option<Str>,
    /// Clients whose certificate no authority vouches for are let in all the same.
    pub accepts_untrusted: bool,
    /// Ciphers it offers; empty for the usual ones.
    pub cipher_suites: Vec<Str>,
}

/// What became of the parents of a route that are Gateways or ListenerSets of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParents {
    /// Kind and key of the route.
    pub route: (Kind, ObjectKey),
    /// Parents that there is something to say of, in the order of `spec.parentRefs`.
    pub parents: Vec<ParentRow>,
}

/// What became of one parent of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRow {
    /// Place in `spec.parentRefs`.
    pub index: usize,
    /// The Gateway, also where the parent is a ListenerSet.
    pub gateway: ObjectKey,
    /// Why no listener takes the route; `None` where one does.
    pub refused: Option<Defect>,
    /// Listeners that take the route.
    pub taken: Vec<Taken>,
}

/// A listener that takes a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The Gateway or ListenerSet that the listener is of.
    pub owner: ObjectRef,
    /// Name of the listener.
    pub listener: Str,
    /// Hosts that both the listener and the route are for, in the order of the route's; `*` where
    /// neither names any.
    pub hostnames: Vec<Str>,
}
