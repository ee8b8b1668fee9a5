//! Flags of `serve`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use model::{Finding, GatewayController};

use super::MeshArgs;
use super::values::{
    OptionalAddr, OptionalCidr, Switch, cidr_or_nothing, duration, listen, listen_or_nothing,
    millis,
};

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Directory of Kubernetes YAML, read recursively and watched, instead of a cluster.
    #[arg(long)]
    pub config_dir: Option<PathBuf>,
    /// Kubeconfig of the cluster; without one, and without a file named by KUBECONFIG, the
    /// service account of the pod counts.
    #[arg(long, conflicts_with = "config_dir")]
    pub kubeconfig: Option<PathBuf>,
    /// A kubeconfig that counts if the file exists.
    #[arg(long, env = "KUBECONFIG", hide = true)]
    pub kubeconfig_if_exists: Option<PathBuf>,
    /// Context of the kubeconfig; by default its current one.
    #[arg(long, conflicts_with = "config_dir")]
    pub context: Option<String>,
    /// File with mesh config, which counts instead of the ConfigMap if it exists at the start.
    #[arg(
        long,
        alias = "meshConfig",
        default_value = "/etc/istio/config/mesh",
        conflicts_with = "config_dir"
    )]
    pub mesh_config: PathBuf,
    /// Another ConfigMap of the namespace with mesh config, which the usual one is applied over.
    #[arg(long, hide = true, env = "SHARED_MESH_CONFIG")]
    pub shared_mesh_config: Option<String>,
    /// Directory for the CA, the key of tokens and issued certificates; created with mode 0700.
    /// Only with --config-dir: in a cluster nothing is written to disk.
    #[arg(long, env = "AMBIENTD_STATE_DIR", default_value = ".ambientd")]
    pub state_dir: PathBuf,
    /// Address of ADS and the CA over TLS; clients show a certificate or a token.
    #[arg(
        long,
        alias = "secureGRPCAddr",
        default_value = ":15012",
        value_parser = listen
    )]
    pub xds_addr: SocketAddr,
    /// Also serve ADS in plain text here; loopback addresses only.
    #[arg(long)]
    pub xds_plaintext_addr: Option<SocketAddr>,
    /// As istiod has it: plain text is served on loopback, whatever the address says.
    #[arg(long = "grpcAddr", hide = true, value_parser = listen_or_nothing)]
    pub grpc_addr: Option<OptionalAddr>,
    /// Lowest version of TLS that is offered: 1.2 or 1.3.
    #[arg(long)]
    pub tls_min_version: Option<String>,
    /// Cipher suites of TLS 1.2 that are offered (comma-separated); by default all that are safe.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// Address of the debug endpoints and metrics; by default port 15014, with --config-dir on
    /// loopback, else everywhere.
    #[arg(long, alias = "monitoringAddr", value_parser = listen)]
    pub debug_addr: Option<SocketAddr>,
    /// Address of the readiness probe, and in a cluster of the debug endpoints.
    #[arg(long, alias = "httpAddr", default_value = ":8080", value_parser = listen)]
    pub ready_addr: SocketAddr,
    /// Address of the webhook that validates objects, in a cluster; empty for none.
    #[arg(
        long,
        alias = "httpsAddr",
        default_value = ":15017",
        value_parser = listen_or_nothing
    )]
    pub webhook_addr: OptionalAddr,
    /// Time in which the process ends once asked to: clients are sent away spread over it. By
    /// default 10 s, with --config-dir at once.
    #[arg(long, alias = "shutdownDuration", value_parser = duration)]
    pub shutdown_duration: Option<Duration>,
    /// Name of this replica where replicas choose a leader; by default the host's.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// How long other replicas wait for one that is to write and is not heard of.
    #[arg(
        long,
        hide = true,
        env = "AMBIENTD_LEASE_DURATION",
        default_value = "30s",
        value_parser = duration
    )]
    pub lease_duration: Duration,
    /// How long the beginning of an answer of the API server may take.
    #[arg(
        long,
        hide = true,
        env = "AMBIENTD_API_REQUEST_TIMEOUT",
        default_value = "30s",
        value_parser = duration
    )]
    pub api_request_timeout: Duration,
    /// How long an answer of the API server that has begun may pause; watches hear of it every
    /// minute.
    #[arg(
        long,
        hide = true,
        env = "AMBIENTD_API_IDLE_TIMEOUT",
        default_value = "90s",
        value_parser = duration
    )]
    pub api_idle_timeout: Duration,
    /// Other names of this cluster: ALIAS=CLUSTER (comma-separated).
    #[arg(long, alias = "clusterAliases", value_delimiter = ',')]
    pub cluster_aliases: Vec<String>,
    /// Write conditions to the status of objects.
    #[arg(
        long,
        env = "AMBIENT_ENABLE_STATUS",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub write_status: Switch,
    /// Write what the Gateway API has in the status of Gateways, their classes, routes and
    /// policies.
    #[arg(
        long,
        env = "PILOT_ENABLE_GATEWAY_API_STATUS",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub write_gateway_api_status: Switch,
    /// Create GatewayClasses of ours that are missing.
    #[arg(
        long,
        env = "PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub create_gateway_classes: Switch,
    /// One of them is that of gateways which are run elsewhere (`istio-remote`).
    #[arg(
        long,
        env = "PILOT_MULTI_NETWORK_DISCOVER_GATEWAY_API",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub create_remote_gateway_class: Switch,
    /// ConfigMap of every namespace that holds the roots of trust.
    #[arg(
        long,
        env = "PILOT_CA_CERT_CONFIGMAP",
        default_value = "istio-ca-root-cert"
    )]
    pub root_config_map: String,
    /// ConfigMap of every namespace that holds the revocation lists.
    #[arg(long, env = "PILOT_CRL_CONFIGMAP", default_value = "istio-ca-crl")]
    pub crl_config_map: String,
    /// Answer `/metrics` to this host only.
    #[arg(
        long,
        env = "METRICS_LOCALHOST_ACCESS_ONLY",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub local_metrics: Switch,
    /// Further DNS names or addresses for the serving certificate (comma-separated).
    #[arg(long, env = "ISTIOD_CUSTOM_HOST", value_delimiter = ',')]
    pub serving_name: Vec<String>,
    /// Directory of a plugged-in CA; without one the root under --state-dir signs.
    #[arg(long, env = "ROOT_CA_DIR", default_value = "/etc/cacerts")]
    pub root_ca_dir: PathBuf,
    /// Read and hand out the plugged-in CA's revocation lists.
    #[arg(
        long,
        env = "PILOT_ENABLE_CA_CRL",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub enable_ca_crl: Switch,
    /// Let the plugged-in CA change its roots if old and new ones overlap.
    #[arg(
        long,
        env = "ISTIO_MULTIROOT_MESH",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub multiroot_mesh: Switch,
    /// Life of workload certificates that ask for none.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub default_workload_cert_ttl: Duration,
    /// Longest life of workload certificates.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration)]
    pub max_workload_cert_ttl: Duration,
    /// What tokens must be made for (comma-separated).
    #[arg(
        long,
        env = "TOKEN_AUDIENCES",
        value_delimiter = ',',
        default_value = authn::DEFAULT_AUDIENCE
    )]
    pub token_audiences: Vec<String>,
    /// Streams that may open per second; 0 counts the processors.
    #[arg(long, env = "PILOT_MAX_REQUESTS_PER_SECOND", default_value_t = 0)]
    pub max_requests_per_second: u32,
    /// Age at which a connection is asked to come anew, give or take a tenth.
    #[arg(
        long = "keepaliveMaxServerConnectionAge",
        alias = "keepalive-max-server-connection-age",
        default_value = "30m",
        value_parser = duration
    )]
    pub connection_age_max: Duration,
    /// Connections of one address, this host's excepted.
    #[arg(long, default_value_t = 1_000)]
    pub connections_per_address_max: usize,
    /// Namespaces besides the root namespace whose accounts may use all debug endpoints
    /// (comma-separated).
    #[arg(
        long,
        env = "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES",
        value_delimiter = ','
    )]
    pub debug_namespace: Vec<String>,
    /// `namespace/account` of node proxies: they may subscribe as ztunnel, and ask for the
    /// certificates of what runs on their node (comma-separated).
    #[arg(
        long,
        env = "CA_TRUSTED_NODE_ACCOUNTS",
        value_delimiter = ',',
        default_value = "istio-system/ztunnel"
    )]
    pub trusted_node_account: Vec<String>,
    /// Quiet time after a change before later changes are applied, in milliseconds.
    #[arg(long, env = "PILOT_DEBOUNCE_AFTER", default_value = "25ms", value_parser = millis)]
    pub debounce_after: u64,
    /// Longest time that changes are collected, in milliseconds.
    #[arg(long, env = "PILOT_DEBOUNCE_MAX", default_value = "250ms", value_parser = millis)]
    pub debounce_max: u64,
    /// Ranges that no key set of a token issuer is fetched from, besides loopback, link-local and
    /// metadata addresses (comma-separated).
    #[arg(
        long,
        env = "BLOCKED_CIDRS_IN_JWKS_URIS",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = cidr_or_nothing
    )]
    pub jwks_blocked_cidrs: Vec<OptionalCidr>,
    /// A range that key sets are fetched from although it is otherwise refused (repeatable).
    #[arg(long, value_name = "CIDR")]
    pub jwks_allow: Vec<ipnet::IpNet>,
    /// Time after which a key set is fetched again.
    #[arg(
        long,
        env = "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL",
        default_value = "20m",
        value_parser = duration
    )]
    pub jwks_refresh: Duration,
    /// Further roots (PEM) that issuers' servers are trusted by, if the file exists.
    #[arg(long, default_value = "/cacerts/extra.pem")]
    pub jwks_extra_roots: PathBuf,
    /// The API server, which no key set is fetched from.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub kubernetes_service_host: Option<String>,
    /// Mesh settings.
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// What of the command line and the environment has no effect, for who reads findings.
    #[arg(skip)]
    pub findings: Vec<Finding>,
}

// === impl ServeArgs ===

impl ServeArgs {
    /// Where debug endpoints and metrics are served.
    pub fn debug_addr(&self) -> SocketAddr {
        let host: IpAddr = match self.config_dir {
            Some(_) => Ipv4Addr::LOCALHOST.into(),
            None => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.debug_addr.unwrap_or(SocketAddr::new(host, 15014))
    }

    /// Where plain text is served, if anywhere.
    pub fn plaintext_addr(&self) -> Option<SocketAddr> {
        let loopback = |addr: SocketAddr| match addr.ip() {
            ip if ip.is_loopback() => addr,
            _ => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        };
        let grpc = self.grpc_addr.flatten().map(loopback);
        self.xds_plaintext_addr.or(grpc)
    }

    /// How long the end may take.
    pub fn shutdown_duration(&self) -> Duration {
        let usual = match self.config_dir {
            Some(_) => Duration::ZERO,
            None => Duration::from_secs(10),
        };
        self.shutdown_duration.unwrap_or(usual)
    }

    /// Controllers whose GatewayClasses are created. Source: spec/gateway-api.md §0, §1.1.
    pub fn gateway_classes(&self) -> Vec<GatewayController> {
        let is_on = |controller: &GatewayController| match controller {
            GatewayController::Ingress | GatewayController::Waypoint => true,
            GatewayController::EastWest => self.mesh.features.multi_network.is_on(),
            GatewayController::Remote => self.create_remote_gateway_class.is_on(),
        };
        let all = GatewayController::ALL.into_iter();
        all.filter(|_| self.create_gateway_classes.is_on())
            .filter(is_on)
            .collect()
    }

    /// Names of this cluster: its own first, then its aliases.
    pub fn cluster_ids(&self) -> Vec<String> {
        let own = &self.mesh.cluster_id;
        let pairs = self.cluster_aliases.iter();
        let aliases = pairs.filter_map(|pair| match pair.trim().split_once('=') {
            Some((alias, id)) if id == own && !alias.is_empty() => Some(alias.to_owned()),
            _ => None,
        });
        std::iter::once(own.clone()).chain(aliases).collect()
    }
}
