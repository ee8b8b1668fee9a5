//! Label and annotation keys, named after their words.

/// Waypoint of this object, or `none`.
pub const LABEL_USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Namespace of the waypoint named by [`LABEL_USE_WAYPOINT`].
pub const LABEL_USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// Traffic types a waypoint serves: `service`, `workload`, `all`, `none`.
pub const LABEL_WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Whether ingress gateways send through the waypoint.
pub const LABEL_INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
/// Enrolment in the ambient mesh (read by the node agent, not by us).
pub const LABEL_DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Gateway whose instance a pod is.
pub const LABEL_GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Controller that manages a generated Service or Pod.
pub const LABEL_GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
/// Value of [`LABEL_GATEWAY_MANAGED`] on waypoints.
pub const MANAGED_WAYPOINT: &str = "istio.io-mesh-controller";
/// Value of [`LABEL_GATEWAY_MANAGED`] on east-west gateways.
pub const MANAGED_EAST_WEST: &str = "istio.io-eastwest-controller";
/// Set to `enabled` by the node agent once a pod is captured.
pub const ANNOTATION_REDIRECTION: &str = "ambient.istio.io/redirection";
/// Tunnels a workload speaks itself (`http` = HBONE).
pub const LABEL_TUNNEL: &str = "networking.istio.io/tunnel";
/// Network of a namespace or gateway.
pub const LABEL_NETWORK: &str = "topology.istio.io/network";
/// Region of a node.
pub const LABEL_REGION: &str = "topology.kubernetes.io/region";
/// Zone of a node.
pub const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
/// Subzone of a node.
pub const LABEL_SUBZONE: &str = "topology.istio.io/subzone";
/// Sessions of a service stick to their endpoints, until those are gone.
pub const LABEL_PERSISTENT_SESSION: &str = "istio.io/persistent-session";
/// Service of an EndpointSlice.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Revision that an Istio object belongs to.
pub const LABEL_REVISION: &str = "istio.io/rev";
/// Other name of the revision that the same object's [`LABEL_REVISION`] gives.
pub const LABEL_TAG: &str = "istio.io/tag";
/// Evaluate a policy without enforcing it.
pub const ANNOTATION_DRY_RUN: &str = "istio.io/dry-run";
/// Namespaces that a Service is meant to be visible in; ambient clients see every one.
pub const ANNOTATION_EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Traffic distribution of a Service or Namespace.
pub const ANNOTATION_TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// How connections to the addresses of a resolved host are opened.
pub const ANNOTATION_CONNECT_STRATEGY: &str = "istio.io/connect-strategy";
/// Value of [`ANNOTATION_CONNECT_STRATEGY`] (in any case) that takes the first that connects.
pub const CONNECT_STRATEGY_RACE: &str = "RACE_FIRST_TCP_CONNECT";
