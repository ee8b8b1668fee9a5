//! Which kinds exist, and what becomes of them.

use crate::Str;
use crate::finding::Severity;
use crate::names::Kind;

use super::suggest::nearest;

/// What becomes of a kind.
pub(super) enum Class {
    /// Read; with the versions that are understood, the preferred one first.
    Input(Kind, &'static [&'static str]),
    /// Known, but not applied by this version; with what that means.
    NotSupported(Severity, &'static str),
    /// Known not to concern the mesh.
    NotAnInput,
    /// Not known; `ours` when its group is one that ambientd reads.
    Unknown {
        /// The group is one that ambientd reads.
        ours: bool,
    },
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

const V1: &[&str] = &["v1"];
const GATEWAY_VERSIONS: &[&str] = &["v1", "v1beta1"];
/// TCPRoute and TLSRoute were alpha for long; the shape is the same.
const L4_VERSIONS: &[&str] = &["v1", "v1alpha3", "v1alpha2"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// The versions of a kind's API group that are understood, the preferred one first.
pub fn versions(kind: Kind) -> &'static [&'static str] {
    if matches!(kind, Kind::TcpRoute | Kind::TlsRoute) {
        return L4_VERSIONS;
    }
    if matches!(kind, Kind::ListenerSet | Kind::BackendTlsPolicy) {
        return V1;
    }
    match kind.group() {
        GATEWAY => GATEWAY_VERSIONS,
        SECURITY => SECURITY_VERSIONS,
        NETWORKING => NETWORKING_VERSIONS,
        _ => V1,
    }
}

/// Kinds of groups that ambientd reads, which it knows but does not apply.
const NOT_SUPPORTED: &[(&str, &str, Severity, &str)] = &[
    (
        GATEWAY,
        "UDPRoute",
        Severity::Warning,
        "datagrams are not routed",
    ),
    (
        NETWORKING,
        "EnvoyFilter",
        Severity::Warning,
        "generated configuration is not patched",
    ),
    (
        NETWORKING,
        "Gateway",
        Severity::Warning,
        "no listener is opened",
    ),
    (
        NETWORKING,
        "ProxyConfig",
        Severity::Warning,
        "proxies run with their defaults",
    ),
    (
        NETWORKING,
        "Sidecar",
        Severity::Warning,
        "ambient has no sidecars",
    ),
    (
        NETWORKING,
        "WorkloadGroup",
        Severity::Warning,
        "no workload registers through it",
    ),
    (
        "telemetry.istio.io",
        "Telemetry",
        Severity::Warning,
        "metrics, logs and traces are the defaults",
    ),
    (
        "extensions.istio.io",
        "WasmPlugin",
        Severity::Warning,
        "the extension does not run",
    ),
    (
        "extensions.istio.io",
        "TrafficExtension",
        Severity::Warning,
        "the extension does not run",
    ),
    (
        "install.istio.io",
        "IstioOperator",
        Severity::Warning,
        "nothing is installed",
    ),
];

/// Core kinds that are no input.
const CORE_OTHERS: &[&str] = &[
    "Binding",
    "ComponentStatus",
    "Endpoints",
    "Event",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "ServiceAccount",
];

/// Built-in groups that are no input.
const OTHER_GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "metrics.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Kinds that are known but not applied, each with its API group: every object of them is a finding.
pub fn not_supported() -> impl Iterator<Item = (&'static str, &'static str)> {
    NOT_SUPPORTED
        .iter()
        .map(|(group, kind, ..)| (*group, *kind))
}

/// Kinds that have an API group; the mesh config has none.
fn inputs() -> impl Iterator<Item = Kind> {
    Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::MeshConfig)
}

pub(super) fn classify(group: &str, kind: &str) -> Class {
    if let Some(kind) = inputs().find(|known| known.group() == group && known.as_str() == kind) {
        return Class::Input(kind, versions(kind));
    }
    if let Some((_, _, severity, effect)) = NOT_SUPPORTED
        .iter()
        .find(|(known, name, ..)| *known == group && *name == kind)
    {
        return Class::NotSupported(*severity, effect);
    }
    if group == "gateway.networking.x-k8s.io" {
        return Class::NotSupported(Severity::Warning, "it is experimental");
    }
    if (group.is_empty() && CORE_OTHERS.contains(&kind)) || OTHER_GROUPS.contains(&group) {
        return Class::NotAnInput;
    }
    let ours = matches!(group, "" | "discovery.k8s.io" | GATEWAY) || group.ends_with(".istio.io");
    Class::Unknown { ours }
}

/// What was probably meant: the same kind of another group, else the nearest kind of this one.
pub(super) fn suggest(group: &str, kind: &str) -> Option<Str> {
    let known = || {
        inputs().map(|kind| (kind.group(), kind.as_str())).chain(
            NOT_SUPPORTED
                .iter()
                .map(|(group, kind, ..)| (*group, *kind)),
        )
    };
    let here = || known().filter(|(at, _)| *at == group).map(|(_, kind)| kind);
    let core = if group.is_empty() { CORE_OTHERS } else { &[] };
    if let Some((group, kind)) = known().find(|(_, name)| *name == kind) {
        return Some(arcstr::format!(
            "{kind} of {}",
            if group.is_empty() {
                "the core group"
            } else {
                group
            }
        ));
    }
    nearest(kind, here().chain(core.iter().copied()))
        .map(Str::from)
        .or_else(|| {
            let (group, kind) = known().find(|(_, name)| nearest(kind, [*name]).is_some())?;
            Some(arcstr::format!(
                "{kind} of {}",
                if group.is_empty() {
                    "the core group"
                } else {
                    group
                }
            ))
        })
}
