//! Constants of the mesh that users do not set per object.

/// The HBONE port of every waypoint and ztunnel.
pub const HBONE_PORT: u16 = 15008;
/// Trust domain when mesh config names none.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// DNS suffix of Kubernetes services.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Root namespace when mesh config names none.
pub const ROOT_NAMESPACE: &str = "istio-system";
/// Cluster id when none is configured.
pub const CLUSTER_ID: &str = "Kubernetes";
