//! Flags and environment: the only place that reads either.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::agent::AgentTarget;
use crate::target::Target;

mod features;

pub use features::{FeatureArgs, WaypointMissing};

/// An istiod-compatible control plane for Istio ambient mesh.
#[derive(Debug, Parser)]
#[command(name = "ambientd", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log filter, such as `info` or `info,ambientd_xds=debug`.
    #[arg(long, global = true, env = "AMBIENTD_LOG", default_value = "info")]
    pub log: String,
    /// Log as JSON, one object a line.
    #[arg(long, global = true, env = "AMBIENTD_LOG_JSON")]
    pub log_as_json: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve xDS, workload discovery and the debug endpoints.
    Serve(ServeArgs),
    /// Print what a proxy would receive, all findings, or the status of objects, as JSON or YAML.
    Render(RenderArgs),
    /// Print what of the configuration does not do what it says.
    Analyze(AnalyzeArgs),
    /// Print an Envoy bootstrap with which stock Envoy joins as a waypoint.
    Bootstrap(BootstrapArgs),
    /// Run stock Envoy as a waypoint: certificate, bootstrap, readiness, drain.
    Agent(AgentArgs),
    /// What `agent` starts Envoy with.
    #[command(hide = true)]
    AgentEnvoy(AgentEnvoyArgs),
    /// Print a token with which a proxy or a tool names itself to the control plane.
    Token(TokenArgs),
    /// Change the root of trust under --state-dir.
    Ca(CaArgs),
    /// Print the version.
    Version,
}

/// Settings of the mesh that no object gives.
#[derive(Clone, Debug, Args)]
pub struct MeshArgs {
    /// Cluster id, part of every workload's resource name.
    #[arg(long = "cluster-id", env = "CLUSTER_ID", default_value = model::defaults::CLUSTER_ID)]
    pub cluster_id: String,
    /// DNS suffix of Kubernetes services.
    #[arg(long, default_value = model::defaults::CLUSTER_DOMAIN)]
    pub domain: String,
    /// Namespace of the control plane.
    #[arg(long, env = "POD_NAMESPACE", default_value = model::defaults::ROOT_NAMESPACE)]
    pub system_namespace: String,
    /// Revision of this control plane: Istio objects of another `istio.io/rev` are not taken;
    /// empty takes all.
    #[arg(long, env = "REVISION", default_value = "")]
    pub revision: String,
    /// Switches.
    #[command(flatten)]
    pub features: FeatureArgs,
}

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Directory of Kubernetes YAML, read recursively and watched.
    #[arg(long)]
    pub config_dir: PathBuf,
    /// Directory for the CA, the key of tokens and issued certificates; created with mode 0700.
    #[arg(long, env = "AMBIENTD_STATE_DIR", default_value = ".ambientd")]
    pub state_dir: PathBuf,
    /// Address of ADS and the CA over TLS; clients show a certificate or a token.
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15012))]
    pub xds_addr: SocketAddr,
    /// Also serve ADS in plain text here; loopback addresses only.
    #[arg(long)]
    pub xds_plaintext_addr: Option<SocketAddr>,
    /// Address of the debug endpoints and metrics.
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15014))]
    pub debug_addr: SocketAddr,
    /// Address of the readiness probe.
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080))]
    pub ready_addr: SocketAddr,
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
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub enable_ca_crl: bool,
    /// Let the plugged-in CA change its roots if old and new ones overlap.
    #[arg(long, env = "ISTIO_MULTIROOT_MESH")]
    pub multiroot_mesh: bool,
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
}

/// A range; an empty text is none.
pub type OptionalCidr = Option<ipnet::IpNet>;

/// Output form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Flags of `render`.
#[derive(Clone, Debug, Args)]
pub struct RenderArgs {
    /// Directory of Kubernetes YAML, read recursively.
    #[arg(long)]
    pub config_dir: PathBuf,
    /// `ztunnel`, `waypoint/NAMESPACE/NAME`, `findings` or `status`.
    #[arg(long = "for", value_name = "TARGET")]
    pub target: Target,
    /// Only resources of these types (`ADDRESS`, `AUTHORIZATION`, `LDS`, `RDS`, `CDS`, `EDS`).
    #[arg(
        long = "type",
        value_name = "TYPE",
        value_delimiter = ',',
        ignore_case = true
    )]
    pub types: Vec<RenderType>,
    /// Output form.
    #[arg(short, long, default_value = "json")]
    pub output: Format,
    /// Mesh settings.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// A resource type on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum RenderType {
    /// Workloads and services.
    Address,
    /// L4 policies.
    Authorization,
    /// Listeners.
    Lds,
    /// Route configurations.
    Rds,
    /// Clusters.
    Cds,
    /// Endpoints.
    Eds,
}

/// Form of `analyze`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnalyzeFormat {
    /// Aligned text.
    Text,
    /// JSON.
    Json,
}

/// Flags of `analyze`.
#[derive(Clone, Debug, Args)]
pub struct AnalyzeArgs {
    /// Directory of Kubernetes YAML, read recursively.
    #[arg(long)]
    pub config_dir: PathBuf,
    /// Output form; text on a terminal, JSON otherwise.
    #[arg(short, long)]
    pub output: Option<AnalyzeFormat>,
    /// Mesh settings.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Flags of `bootstrap`.
#[derive(Clone, Debug, Args)]
pub struct BootstrapArgs {
    /// `waypoint/NAMESPACE/NAME`.
    #[arg(long = "for", value_name = "TARGET")]
    pub target: Target,
    /// Directory of Kubernetes YAML: gives the waypoint's service account and address.
    #[arg(long)]
    pub config_dir: Option<PathBuf>,
    /// Directory of the development CA that signs the waypoint's certificate.
    #[arg(long, env = "AMBIENTD_STATE_DIR", default_value = ".ambientd")]
    pub state_dir: PathBuf,
    /// Where the control plane serves ADS: HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:15012")]
    pub xds_addr: String,
    /// Name in the control plane's certificate.
    #[arg(long, default_value = "istiod.istio-system.svc")]
    pub xds_name: String,
    /// Address of the waypoint; by default that of its pod in --config-dir.
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// Service account; by default that of its pod in --config-dir, else the Gateway's name.
    #[arg(long)]
    pub service_account: Option<String>,
    /// Listen on --ip only instead of on every address (several waypoints on one host).
    #[arg(long)]
    pub bind_ip: bool,
    /// Port of Envoy's admin interface on loopback.
    #[arg(long, default_value_t = 15000)]
    pub admin_port: u16,
    /// Use state-of-the-world ADS instead of delta.
    #[arg(long)]
    pub sotw: bool,
    /// Output form.
    #[arg(short, long, default_value = "yaml")]
    pub output: Format,
    /// Mesh settings.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Flags of `agent`. The environment is that of Istio's proxy image.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// `waypoint/NAMESPACE/NAME` or `router/NAMESPACE/NAME` of the Gateway.
    #[arg(long)]
    pub gateway: AgentTarget,
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
    /// Whether `PROXY_CONFIG` is set.
    pub has_proxy_config: bool,
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
            has_proxy_config: std::env::var_os("PROXY_CONFIG").is_some(),
        }
    }
}

/// Flags of `token`.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    /// Directory of the key that signs; the one of `serve`.
    #[arg(long, env = "AMBIENTD_STATE_DIR", default_value = ".ambientd")]
    pub state_dir: PathBuf,
    /// Namespace of the account.
    #[arg(long)]
    pub namespace: String,
    /// Service account.
    #[arg(long)]
    pub service_account: String,
    /// Bind the token to this pod; node proxies need that to ask for certificates.
    #[arg(long)]
    pub pod: Option<String>,
    /// Uid of the pod.
    #[arg(long, requires = "pod", conflicts_with = "config_dir")]
    pub pod_uid: Option<String>,
    /// Directory of Kubernetes YAML that has the pod.
    #[arg(long, requires = "pod")]
    pub config_dir: Option<PathBuf>,
    /// Whom the token is for.
    #[arg(long, default_value = authn::DEFAULT_AUDIENCE)]
    pub audience: String,
    /// How long it lives.
    #[arg(long, default_value = "12h", value_parser = duration)]
    pub ttl: Duration,
}

/// Flags of `ca`.
#[derive(Clone, Debug, Args)]
pub struct CaArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CaCommand,
}

/// The subcommands of `ca`.
#[derive(Clone, Debug, Subcommand)]
pub enum CaCommand {
    /// Replace the root, in three steps with time between them.
    Rotate(RotateArgs),
}

/// Flags of `ca rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// Directory of the root; the one of `serve`.
    #[arg(long, env = "AMBIENTD_STATE_DIR", default_value = ".ambientd")]
    pub state_dir: PathBuf,
    /// Which step.
    #[arg(long)]
    pub step: RotateStep,
    /// Trust domain that the new root names.
    #[arg(long, default_value = model::defaults::TRUST_DOMAIN)]
    pub trust_domain: String,
}

/// A step of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotateStep {
    /// Trust a second root.
    Prepare,
    /// Sign with it.
    Switch,
    /// Forget the first one.
    Finish,
}

/// Reads `90s`, `30m`, `24h`, `7d` or parts of them in a row, such as `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 90s, 30m, 24h or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|digits| *digits > 0)
            .ok_or_else(bad)?;
        let (number, more) = rest.split_at(digits);
        let unit = more.chars().next().ok_or_else(bad)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let part = number.checked_mul(seconds).ok_or_else(bad)?;
        total = total
            .checked_add(Duration::from_secs(part))
            .ok_or_else(bad)?;
        rest = more.get(unit.len_utf8()..).unwrap_or_default();
    }
    if total.is_zero() || total > Duration::from_secs(100 * 365 * 24 * 3600) {
        return Err(bad());
    }
    Ok(total)
}

/// Reads a range, or nothing: an empty variable blocks nothing.
fn cidr_or_nothing(text: &str) -> Result<OptionalCidr, String> {
    match text.trim() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is not a range such as 10.0.0.0/8")),
    }
}

/// Reads `250`, `250ms` or `1.5s` as milliseconds.
fn millis(text: &str) -> Result<u64, String> {
    let (number, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1000.0),
        (None, None) => (text, 1.0),
    };
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is not a duration"))?;
    if value.is_finite() && (0.0..=600_000.0).contains(&(value * scale)) {
        #[allow(
            clippy::cast_sign_loss,
            reason = "checked to be within 0..=600000 above"
        )]
        Ok((value * scale) as u64)
    } else {
        Err(format!("{text:?} must lie between 0 and 10 minutes"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv6Addr;

    use super::features::prefix;
    use super::*;

    #[derive(Parser)]
    struct Mesh {
        #[command(flatten)]
        mesh: MeshArgs,
    }

    #[test]
    fn switches_default_to_what_the_pipeline_defaults_to() {
        let mesh = Mesh::try_parse_from(["x"]).unwrap().mesh;
        assert_eq!(mesh.revision, "");
        assert_eq!(
            mesh.features.features(),
            model::derived::Features::default()
        );
    }

    #[test]
    fn switches_are_read_as_go_reads_them() {
        let read = |word: &str| {
            Mesh::try_parse_from(["x", "--dry-run-policies", word])
                .map(|args| args.mesh.features.dry_run_policies)
                .ok()
        };
        assert_eq!(["1", "T", "True"].map(read), [Some(true); 3]);
        assert_eq!(["0", "FALSE", "f"].map(read), [Some(false); 3]);
        assert_eq!(["yes", "", "tRUE"].map(read), [None; 3]);
    }

    #[test]
    fn missing_waypoints_fail_closed_only_when_told() {
        let read = |args: &[&str]| {
            Mesh::try_parse_from([&["x"], args].concat())
                .map(|args| args.mesh.features.features().waypoint_missing_denies)
                .ok()
        };
        assert_eq!(read(&[]), Some(false));
        assert_eq!(read(&["--waypoint-missing=bypass"]), Some(false));
        assert_eq!(read(&["--waypoint-missing=fail-closed"]), Some(true));
        assert_eq!(read(&["--waypoint-missing=closed"]), None);
    }

    #[test]
    fn ranges_are_of_their_family_and_lose_their_host_bits() {
        let v4 = (Ipv4Addr::new(10, 1, 0, 0), 16);
        assert_eq!(prefix::<Ipv4Addr>("10.1.2.3/16"), Ok(v4));
        assert!(prefix::<Ipv4Addr>("10.1.2.3/33").is_err());
        assert!(prefix::<Ipv4Addr>("2001:2::/48").is_err());
        assert!(prefix::<Ipv6Addr>("2001:2::").is_err());
        assert!(prefix::<Ipv6Addr>("2001:2::/48").is_ok());
    }

    #[test]
    fn lives_are_read_as_istiod_writes_them() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("2160h"), Ok(7_776_000));
        assert_eq!(seconds("1h30m5s"), Ok(5405));
        assert_eq!(seconds("24h0m0s"), Ok(86_400));
        for bad in [
            "",
            "5",
            "h",
            "1x",
            "-1h",
            "0s",
            "99999999999999999999h",
            "1h ",
            "999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_as_istiod_writes_them() {
        assert_eq!(millis("100ms"), Ok(100));
        assert_eq!(millis("1.5s"), Ok(1500));
        assert_eq!(millis("25"), Ok(25));
        assert!(millis("-1s").is_err());
        assert!(millis("soon").is_err());
        assert!(millis("1e300s").is_err());
    }
}
