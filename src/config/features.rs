//! Switches that alter what is computed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Args, ValueEnum};

use super::values::Switch;

/// Switches that alter what is computed, under the names that istiod gives them.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Switches")]
pub struct FeatureArgs {
    /// Send policies marked `istio.io/dry-run` to ztunnel, which logs what they would do.
    #[arg(
        long,
        env = "AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub dry_run_policies: Switch,
    /// Make policies that allow every waypoint, and nobody else by themselves, to reach what is
    /// bound to it.
    #[arg(
        long,
        env = "PILOT_AUTO_ALLOW_WAYPOINT_POLICY",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub allow_waypoint_policies: Switch,
    /// Give addresses to hosts of ServiceEntries that have none.
    #[arg(
        long,
        env = "PILOT_ENABLE_IP_AUTOALLOCATE",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub ip_autoallocate: Switch,
    /// IPv4 range of those addresses.
    #[arg(
        long,
        env = "PILOT_IP_AUTOALLOCATE_IPV4_PREFIX",
        value_name = "CIDR",
        default_value = "240.240.0.0/16",
        value_parser = prefix::<Ipv4Addr>
    )]
    pub ip_autoallocate_v4: (Ipv4Addr, u8),
    /// IPv6 range of those addresses.
    #[arg(
        long,
        env = "PILOT_IP_AUTOALLOCATE_IPV6_PREFIX",
        value_name = "CIDR",
        default_value = "2001:2::/48",
        value_parser = prefix::<Ipv6Addr>
    )]
    pub ip_autoallocate_v6: (Ipv6Addr, u8),
    /// Selectors of ServiceEntries select Pods.
    #[arg(
        long,
        env = "PILOT_ENABLE_SERVICEENTRY_SELECT_PODS",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub entries_select_pods: Switch,
    /// Selectors of Services select WorkloadEntries.
    #[arg(
        long,
        env = "PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub services_select_entries: Switch,
    /// Let VirtualServices and DestinationRules claim hosts of other namespaces where their
    /// lookup rules allow it; either way it is reported.
    #[arg(long, value_name = "BOOL", default_value = "true")]
    pub allow_foreign_hosts: Switch,
    /// Let several CUSTOM providers guard one workload.
    #[arg(
        long,
        env = "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub many_authorizers: Switch,
    /// What becomes of traffic whose waypoint cannot be used; label
    /// `ambientd.io/waypoint-missing` of a Namespace says otherwise for what it holds.
    #[arg(long, value_name = "MODE", default_value = "bypass")]
    pub waypoint_missing: WaypointMissing,
    /// Run gateways between networks (GatewayClass `istio-east-west`), and take what comes by them.
    #[arg(
        long,
        env = "AMBIENT_ENABLE_MULTI_NETWORK",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub multi_network: Switch,
    /// Leave Gateways whose addresses name Services to their users; otherwise every Gateway is
    /// deployed.
    #[arg(
        long,
        env = "ENABLE_GATEWAY_API_MANUAL_DEPLOYMENT",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub manual_gateways: Switch,
}

/// What becomes of traffic whose waypoint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaypointMissing {
    /// It goes directly to the pods, as with istiod.
    Bypass,
    /// It is refused.
    FailClosed,
}

// === impl FeatureArgs ===

impl FeatureArgs {
    /// The switches as stages read them.
    pub fn features(&self) -> model::derived::Features {
        model::derived::Features {
            dry_run_policies: self.dry_run_policies.is_on(),
            allow_waypoint_policies: self.allow_waypoint_policies.is_on(),
            ip_autoallocate: self.ip_autoallocate.is_on(),
            allocation_v4: self.ip_autoallocate_v4,
            allocation_v6: self.ip_autoallocate_v6,
            entries_select_pods: self.entries_select_pods.is_on(),
            services_select_entries: self.services_select_entries.is_on(),
            foreign_hosts: self.allow_foreign_hosts.is_on(),
            many_authorizers: self.many_authorizers.is_on(),
            waypoint_missing_denies: self.waypoint_missing == WaypointMissing::FailClosed,
            multi_network: self.multi_network.is_on(),
            manual_gateways: self.manual_gateways.is_on(),
        }
    }
}

/// An address family that ranges are made of.
pub(super) trait Family: Into<IpAddr> + std::str::FromStr {
    /// The network of the address, or `None` when the prefix is longer than an address.
    fn network(self, prefix: u8) -> Option<Self>;
}

impl Family for Ipv4Addr {
    fn network(self, prefix: u8) -> Option<Self> {
        let host_bits = 32_u32.checked_sub(prefix.into())?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self::from_bits(self.to_bits() & mask))
    }
}

impl Family for Ipv6Addr {
    fn network(self, prefix: u8) -> Option<Self> {
        let host_bits = 128_u32.checked_sub(prefix.into())?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self::from_bits(self.to_bits() & mask))
    }
}

/// Reads a range such as `240.240.0.0/16`; bits beyond the prefix are dropped.
pub(super) fn prefix<A: Family>(text: &str) -> Result<(A, u8), String> {
    let parsed = text.split_once('/').and_then(|(base, length)| {
        let length: u8 = length.parse().ok()?;
        let base: A = base.parse().ok()?;
        Some((base.network(length)?, length))
    });
    parsed.ok_or_else(|| format!("{text:?} is not a range of this address family"))
}
