//! Flags of `agent`, and the environment that it reads besides.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::agent::AgentTarget;

/// Flags of `agent`. The environment is that of Istio's proxy image.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// `waypoint/NAMESPACE/NAME`, `router/NAMESPACE/NAME` or `east-west/NAMESPACE/NAME` of the
    /// Gateway; by default that of the pod, by its labels.
    #[arg(long)]
    pub gateway: Option<AgentTarget>,
    /// Namespace of the pod, where --gateway does not say it.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// Directory with the files `labels` and `annotations` of the pod, as the downward API has
    /// them; what is not there is not said.
    #[arg(long, default_value = "/etc/istio/pod")]
    pub pod_info: PathBuf,
    /// Service cluster of the node; by default the name and namespace of the Gateway.
    #[arg(long)]
    pub service_cluster: Option<String>,
    /// Where the control plane serves ADS: HOST:PORT.
    #[arg(long, default_value = "istiod.istio-system.svc:15012")]
    pub xds_addr: String,
    /// Name in the control plane's certificate; by default the host of --xds-addr, or
    /// istiod.istio-system.svc when that is an address or localhost.
    #[arg(long, env = "ISTIOD_SAN")]
    pub xds_name: Option<String>,
    /// Where certificates are signed: HOST:PORT; by default --xds-addr.
    #[arg(long, env = "CA_ADDR")]
    pub ca_addr: Option<String>,
    /// Roots of the control plane, PEM; looked at every second.
    #[arg(long, default_value = "/var/run/secrets/istio/root-cert.pem")]
    pub root: PathBuf,
    /// File with the bearer token; read for every certificate.
    #[arg(long, default_value = "/var/run/secrets/tokens/istio-token")]
    pub token: PathBuf,
    /// Service account of the identity.
    #[arg(long, env = "SERVICE_ACCOUNT")]
    pub service_account: String,
    /// Trust domain of the identity.
    #[arg(long, env = "TRUST_DOMAIN", default_value = model::defaults::TRUST_DOMAIN)]
    pub trust_domain: String,
    /// Name of the pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Address of the pod.
    #[arg(long, env = "INSTANCE_IP")]
    pub ip: IpAddr,
    /// Directory of the bootstrap and of the socket for secrets; created with mode 0700.
    #[arg(long, default_value = "/etc/istio/proxy")]
    pub run_dir: PathBuf,
    /// Port of Envoy's admin interface on loopback; 0 for any.
    #[arg(long, default_value_t = 15000)]
    pub admin_port: u16,
    /// Port of readiness, metrics and /quitquitquit.
    #[arg(long, default_value_t = 15020)]
    pub status_port: u16,
    /// Port of readiness for probes.
    #[arg(long, default_value_t = 15021)]
    pub health_port: u16,
    /// Port of Envoy's own listener for /stats/prometheus; 0 for none.
    #[arg(long, default_value_t = 15090)]
    pub stats_port: u16,
    /// Listen on --ip only instead of on every address (several proxies on one host).
    #[arg(long)]
    pub bind_ip: bool,
    /// Use state-of-the-world ADS instead of delta.
    #[arg(long)]
    pub sotw: bool,
    /// Life of certificates asked for; they are renewed at half of what they get.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = duration)]
    pub certificate_ttl: Duration,
    /// How long Envoy asks its peers to leave, once asked to end.
    #[arg(long, default_value = "45s", value_parser = duration)]
    pub drain_duration: Duration,
    /// Time between that and the end of Envoy.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub termination_drain: Duration,
    /// After --termination-drain wait until no connection is left, --drain-duration at most.
    #[arg(long, env = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS")]
    pub exit_on_zero_connections: bool,
    /// Cluster id.
    #[arg(long, env = "ISTIO_META_CLUSTER_ID", default_value = model::defaults::CLUSTER_ID)]
    pub cluster_id: String,
    /// Network; empty for the default one.
    #[arg(long, env = "ISTIO_META_NETWORK", default_value = "")]
    pub network: String,
    /// Kubernetes node that the pod runs on.
    #[arg(long, env = "ISTIO_META_NODE_NAME", default_value = "")]
    pub node_name: String,
    /// DNS suffix of Kubernetes services.
    #[arg(long, default_value = model::defaults::CLUSTER_DOMAIN)]
    pub domain: String,
    /// Envoy and its arguments; the agent adds `-c` and what it needs besides.
    #[arg(last = true, required = true, value_name = "ENVOY")]
    pub command: Vec<OsString>,
}

/// Flags of `agent-install`.
#[derive(Clone, Debug, Args)]
pub struct AgentInstallArgs {
    /// Directory to copy this program into.
    pub dir: PathBuf,
}

/// Flags of `agent-envoy`.
#[derive(Clone, Debug, Args)]
pub struct AgentEnvoyArgs {
    /// Process that Envoy must not outlive.
    #[arg(long)]
    pub parent: u32,
    /// The command to become.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// What the environment says besides flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentEnv {
    /// `ISTIO_META_*`, without that prefix.
    pub metadata: BTreeMap<String, String>,
    /// `PROXY_CONFIG`.
    pub proxy_config: Option<String>,
}

impl AgentEnv {
    /// Reads the environment.
    pub fn read() -> Self {
        let meta = |(key, value): (OsString, OsString)| {
            let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
            let key = key.strip_prefix("ISTIO_META_")?;
            (!key.is_empty()).then(|| (key.to_owned(), value))
        };
        Self {
            metadata: std::env::vars_os().filter_map(meta).collect(),
            proxy_config: std::env::var("PROXY_CONFIG").ok(),
        }
    }
}
