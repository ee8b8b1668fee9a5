//! How a cluster tells its endpoints apart by where they are.
//! Source: spec/policy-and-traffic.md §7.4.

use model::Str;
use model::derived::Distribution;
use model::input::{LoadBalancer, LocalityLb};
use model::labels::{LABEL_NETWORK, LABEL_REGION, LABEL_SUBZONE, LABEL_ZONE};

use super::Seen;
use crate::ir::LocalityPolicy;

/// Label by which Kubernetes knows nodes.
const LABEL_NODE: &str = "kubernetes.io/hostname";

/// The policy, and whether localities have weights. What a rule says comes before what the
/// service says, and that before the mesh. Failover needs outlier detection, save where a
/// service asks for what is near.
pub(super) fn of(
    balancer: &LoadBalancer,
    seen: &Seen<'_>,
    detects_outliers: bool,
) -> (LocalityPolicy, bool) {
    if balancer.zone_aware {
        // Waypoints cannot do that; what is near is the next best.
        return (LocalityPolicy::Failover(Vec::new()), false);
    }
    if let Some(setting) = &balancer.locality {
        return by_setting(setting, detects_outliers);
    }
    let keys: &[&str] = match seen.service.distribution {
        Distribution::Zone => &[LABEL_NETWORK, LABEL_REGION, LABEL_ZONE],
        Distribution::Node => &[
            LABEL_NETWORK,
            LABEL_REGION,
            LABEL_ZONE,
            LABEL_SUBZONE,
            LABEL_NODE,
        ],
        Distribution::Any | Distribution::NodeStrict | Distribution::Passthrough => &[],
    };
    if !keys.is_empty() {
        let keys = keys.iter().map(|key| Str::from(*key));
        return (LocalityPolicy::Labels(keys.collect()), false);
    }
    match &seen.mesh.traffic.locality_lb {
        Some(setting) => by_setting(setting, detects_outliers),
        None => by_setting(&LocalityLb::default(), detects_outliers),
    }
}

fn by_setting(setting: &LocalityLb, detects_outliers: bool) -> (LocalityPolicy, bool) {
    if setting.enabled == Some(false) {
        return (LocalityPolicy::None, false);
    }
    if !setting.distribute.is_empty() {
        let shares = setting.distribute.clone();
        return (LocalityPolicy::Distribute(shares), true);
    }
    if !detects_outliers {
        return (LocalityPolicy::None, false);
    }
    if !setting.failover_priority.is_empty() {
        let keys = setting.failover_priority.clone();
        return (LocalityPolicy::Labels(keys), true);
    }
    let weighted = !setting.failover.is_empty();
    (LocalityPolicy::Failover(setting.failover.clone()), weighted)
}
