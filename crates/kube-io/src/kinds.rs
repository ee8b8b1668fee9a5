//! Which kinds are watched, and what each one is for.
//!
//! The parser knows groups and versions ([`model::parse::versions`]); here stands what only
//! matters to who watches.

use model::Kind;

/// What it means that a kind cannot be read because the API server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Serving without it would let through what should be refused, or lead traffic past its
    /// waypoint: no list is delivered, so this replica does not become ready.
    Required,
    /// What is refused counts as an empty list; the rest works.
    Optional,
}

/// Kinds read from the API server by their own name. Mesh config is a ConfigMap of its own watch.
pub fn watched() -> impl Iterator<Item = Kind> {
    Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::MeshConfig)
}

/// Kinds that are watched only to say that they are not applied, each with its API group.
///
/// Left out is what no cluster holds: `IstioOperator` is read by a tool from files.
pub fn watched_unsupported() -> impl Iterator<Item = (&'static str, &'static str)> {
    model::parse::not_supported().filter(|(group, _)| *group != "install.istio.io")
}

/// API groups that a CustomResourceDefinition brings: these may be absent, and may appear later.
pub const DISCOVERED_GROUPS: [&str; 5] = [
    "extensions.istio.io",
    "gateway.networking.k8s.io",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
];

/// Whether every API server serves the kinds of a group, in version v1.
pub(crate) fn is_built_in(group: &str) -> bool {
    matches!(
        group,
        "" | "discovery.k8s.io" | "admissionregistration.k8s.io"
    )
}

/// The name of the resource in paths and in rules of roles.
pub fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.strip_suffix('y') {
        Some(stem) if !lower.ends_with("ay") => format!("{stem}ies"),
        _ if lower.ends_with('s') || lower.ends_with('x') => format!("{lower}es"),
        _ => format!("{lower}s"),
    }
}

/// A release of the Gateway API: major, minor and patch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32, pub u32);

/// The release from which on the definition of a kind is read; a kind whose definition is older,
/// or says none, counts as absent. Source: spec/gateway-api.md §0.
pub const fn first_release(kind: Kind) -> Option<Release> {
    match kind {
        Kind::GrpcRoute => Some(Release(1, 1, 0)),
        Kind::BackendTlsPolicy => Some(Release(1, 4, 0)),
        Kind::TlsRoute => Some(Release(1, 5, 0)),
        Kind::TcpRoute => Some(Release(1, 6, 0)),
        _ => None,
    }
}

// === impl Release ===

impl Release {
    /// Reads `v1.2.3`, also with less or with what follows `-` or `+`, which does not count.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
        let major = parts.next()??;
        let mut or_zero = || parts.next().unwrap_or(Some(0));
        let (minor, patch) = (or_zero()?, or_zero()?);
        parts.next().is_none().then_some(Self(major, minor, patch))
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "v{major}.{minor}.{patch}")
    }
}

/// What of a kind is never listed. Source: spec/workload-discovery.md §0.1 for pods.
pub(crate) const fn field_selector(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Pod => Some("status.phase!=Failed"),
        // Neither holds a key or certificate of a proxy, and both are many and large.
        Kind::Secret => Some("type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"),
        _ => None,
    }
}

/// What of a kind is ever listed, by label: of webhook configurations, those that say which revision
/// a tag is.
pub(crate) const fn label_selector(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::MutatingWebhookConfiguration | Kind::ValidatingWebhookConfiguration => {
            Some(model::labels::LABEL_REVISION)
        }
        _ => None,
    }
}

/// Whether nothing but metadata of a kind is read.
pub(crate) const fn is_metadata_only(kind: Kind) -> bool {
    label_selector(kind).is_some()
}

/// Whether serving needs the kind.
///
/// Required is what decides who may talk to whom: the policies; what workloads, services and
/// waypoints there are, since a policy of a waypoint is enforced by nobody when the waypoint is
/// not known; routes and VirtualServices, since one of them closes every path of its host that it
/// does not match; DestinationRule and BackendTLSPolicy, which say which connections are encrypted; and mesh
/// config, which holds the trust domain. Without the others less is reachable.
pub const fn need(kind: Kind) -> Need {
    match kind {
        Kind::Namespace
        | Kind::Pod
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Gateway
        | Kind::GatewayClass
        | Kind::BackendTlsPolicy
        | Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::DestinationRule
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::VirtualService
        | Kind::MeshConfig => Need::Required,
        Kind::Node
        | Kind::ListenerSet
        | Kind::ReferenceGrant
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::MutatingWebhookConfiguration
        | Kind::ValidatingWebhookConfiguration => Need::Optional,
    }
}

/// Whether the leader writes statuses of the kind, so that what they are is noted.
pub const fn has_status(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::ReferenceGrant
            | Kind::Secret
            | Kind::ConfigMap
            | Kind::MutatingWebhookConfiguration
            | Kind::ValidatingWebhookConfiguration
            | Kind::MeshConfig
    )
}

/// Whether statuses of a kind that is not applied are noted. `Gateway` of `networking.istio.io`
/// shares its name with the one that is.
pub(crate) fn has_status_unsupported(group: &str, kind: &str) -> bool {
    group.ends_with(".istio.io") && kind != "Gateway"
}

/// Whether events of a kind count as `pilot_k8s_reg_events` rather than `pilot_k8s_cfg_events`.
pub(crate) fn is_registry(kind: &str) -> bool {
    matches!(
        kind,
        "Namespace" | "Node" | "Pod" | "Service" | "EndpointSlice" | "Secret" | "ConfigMap"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_the_api() {
        let of = |kind: &str| plural(kind);
        assert_eq!(of("AuthorizationPolicy"), "authorizationpolicies");
        assert_eq!(of("ServiceEntry"), "serviceentries");
        assert_eq!(of("Gateway"), "gateways");
        assert_eq!(of("GatewayClass"), "gatewayclasses");
        assert_eq!(of("HTTPRoute"), "httproutes");
        assert_eq!(of("EndpointSlice"), "endpointslices");
        assert_eq!(of("Telemetry"), "telemetries");
        assert_eq!(of("BackendTLSPolicy"), "backendtlspolicies");
    }

    #[test]
    fn releases_are_numbers_in_order() {
        let of = Release::parse;
        assert_eq!(of("v1.6.0-rc.1"), Some(Release(1, 6, 0)));
        assert_eq!(of("1.10"), Some(Release(1, 10, 0)));
        assert!(of("v1.10.0") > of("v1.9.9"));
        for bad in ["", "v", "main", "v1.x.0", "v1.2.3.4", "v-1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(Release(1, 6, 0).to_string(), "v1.6.0");
    }

    #[test]
    fn what_closes_something_is_required() {
        let optional = Kind::ALL.into_iter();
        let optional = optional.filter(|kind| need(*kind) == Need::Optional);
        let expected = [
            Kind::Node,
            Kind::ListenerSet,
            Kind::ReferenceGrant,
            Kind::Secret,
            Kind::ConfigMap,
            Kind::MutatingWebhookConfiguration,
            Kind::ValidatingWebhookConfiguration,
        ];
        assert!(optional.eq(Kind::ALL.into_iter().filter(|kind| expected.contains(kind))));
    }

    #[test]
    fn every_group_that_may_be_absent_is_discovered() {
        let inputs = watched().map(Kind::group);
        let others = watched_unsupported().map(|(group, _)| group);
        for group in inputs.chain(others) {
            let is_built_in = is_built_in(group);
            assert!(is_built_in || DISCOVERED_GROUPS.contains(&group), "{group}");
        }
    }
}
