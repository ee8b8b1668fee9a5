//! The kinds of resource that a client can subscribe to.

use proto::type_url;

/// A kind of resource. The order is the order in which kinds are listed, not the
/// order in which they are pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// SDS.
    Secret,
    /// ECDS.
    ExtensionConfig,
    /// Workloads and services, for ztunnel.
    Address,
    /// Workloads alone.
    Workload,
    /// L4 policy, for ztunnel.
    Authorization,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::Secret,
        Self::ExtensionConfig,
        Self::Address,
        Self::Workload,
        Self::Authorization,
    ];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoint => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
            Self::Secret => type_url::SECRET,
            Self::ExtensionConfig => type_url::EXTENSION_CONFIG,
            Self::Address => type_url::ADDRESS,
            Self::Workload => type_url::WORKLOAD,
            Self::Authorization => type_url::AUTHORIZATION,
        }
    }

    /// The kind with this type URL, if we serve it.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.type_url() == type_url)
    }

    /// The name in metrics and debug pages. Source: spec/control-plane.md §2.1.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::Secret => "sds",
            Self::ExtensionConfig => "ecds",
            Self::Address | Self::Workload => "wds",
            Self::Authorization => "wads",
        }
    }

    /// Whether a first request that names nothing asks for everything. The other
    /// kinds are only ever asked for by name.
    pub const fn is_wildcard_class(self) -> bool {
        match self {
            Self::Cluster
            | Self::Listener
            | Self::Address
            | Self::Workload
            | Self::Authorization => true,
            Self::Endpoint | Self::Route | Self::Secret | Self::ExtensionConfig => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_url_names_one_kind() {
        let kinds = ResourceType::ALL.map(|ty| ResourceType::from_type_url(ty.type_url()));
        assert_eq!(kinds, ResourceType::ALL.map(Some));
        assert_eq!(
            ResourceType::from_type_url("type.googleapis.com/nobody.Knows"),
            None
        );
    }
}
