//! What stages ask of all workloads together.

use crate::Str;
use crate::names::{NamespacedHostname, ObjectKey};
use crate::object::Labels;

/// A fact about at least one workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CensusKey {
    /// One runs under this service account (namespace and name).
    Account(ObjectKey),
    /// One is served by ztunnel.
    Served(Served),
    /// One is captured by ztunnel (`true`), or is not. Instances of a gateway are neither,
    /// although they take tunnels.
    Captured(bool),
}

/// Workloads that ztunnel serves and that policies cannot tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Served {
    /// Namespace.
    pub ns: Str,
    /// Labels.
    pub labels: Labels,
    /// Waypoints of the workload and of its services, sorted and distinct, with the service that
    /// leads there (`None` for the workload's own addresses).
    pub waypoints: Vec<(ObjectKey, Option<NamespacedHostname>)>,
}
