//! Label and annotation keys that only this crate reads.

/// Whether a ServiceEntry may get addresses by itself.
pub(crate) const LABEL_AUTOALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";
/// Name of the workload that a pod belongs to.
pub(crate) const LABEL_WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Group that a WorkloadEntry was registered by.
pub(crate) const ANNOTATION_AUTOREGISTRATION: &str = "istio.io/autoRegistrationGroup";
/// Binding of the inbound side of a waypoint.
pub(crate) const ANNOTATION_INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
/// Annotation of a waypoint Gateway: applications are told who the client is.
pub(crate) const ANNOTATION_FORWARD_IDENTITY: &str =
    "ambient.istio.io/xfcc-include-client-identity";
/// Keys of the canonical name, the first present wins.
pub(crate) const CANONICAL_NAME: [&str; 3] = [
    "service.istio.io/canonical-name",
    "app.kubernetes.io/name",
    "app",
];
/// Keys of the canonical revision, the first present wins.
pub(crate) const CANONICAL_REVISION: [&str; 3] = [
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];
/// Listener protocol of HBONE.
pub(crate) const PROTOCOL_HBONE: &str = "HBONE";
/// Listener protocol of PROXY bindings.
pub(crate) const PROTOCOL_PROXY: &str = "istio.io/PROXY";
/// Second waypoint of a service.
pub(crate) const LABEL_USE_WAYPOINT_CANARY: &str = "istio.io/use-waypoint-canary";
/// Namespace of the waypoint named by [`LABEL_USE_WAYPOINT_CANARY`].
pub(crate) const LABEL_USE_WAYPOINT_CANARY_NAMESPACE: &str =
    "istio.io/use-waypoint-canary-namespace";
/// Share of the second waypoint, in percent.
pub(crate) const ANNOTATION_CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
/// On a Namespace: what becomes of traffic whose waypoint cannot be used.
pub(crate) const LABEL_WAYPOINT_MISSING: &str = "ambientd.io/waypoint-missing";
