//! Flags and environment: the only place that reads either.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::target::Target;

mod agent;
mod features;
mod gateways;
mod istiod;
mod proxy;
mod serve;
mod tls;
mod values;

pub use agent::{AgentArgs, AgentEnv, AgentEnvoyArgs, AgentInstallArgs};
pub use features::{FeatureArgs, WaypointMissing};
pub use gateways::GatewayArgs;
pub use istiod::{log_filter, read};
pub use proxy::{ProxyArgs, ProxyKind};
pub use serve::ServeArgs;
pub use tls::TlsLimits;
pub use values::{OptionalAddr, OptionalCidr, Switch};

pub(crate) use values::duration;

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
    #[arg(
        long,
        alias = "log_as_json",
        global = true,
        env = "AMBIENTD_LOG_JSON",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub log_as_json: Switch,
    /// Log levels as istiod has them, such as `default:info,ca:debug`; wins over --log.
    #[arg(long = "log_output_level", global = true, hide = true)]
    pub log_output_level: Option<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve xDS, workload discovery and the debug endpoints: of a cluster, or of a directory.
    #[command(alias = "discovery", args_override_self = true)]
    Serve(Box<ServeArgs>),
    /// Print what a proxy would receive, all findings, or the status of objects, as JSON or YAML.
    Render(RenderArgs),
    /// Print what of the configuration does not do what it says.
    Analyze(AnalyzeArgs),
    /// Print an Envoy bootstrap with which stock Envoy joins as a waypoint or gateway.
    Bootstrap(BootstrapArgs),
    /// Run stock Envoy as a waypoint or gateway: certificate, bootstrap, readiness, drain.
    Agent(AgentArgs),
    /// The same with the command line and the environment of Istio's proxy image.
    Proxy(ProxyArgs),
    /// Copy this program into a directory, for a container that runs it beside Envoy.
    AgentInstall(AgentInstallArgs),
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
    #[arg(long = "cluster-id", alias = "clusterID", env = "CLUSTER_ID", default_value = model::defaults::CLUSTER_ID)]
    pub cluster_id: String,
    /// DNS suffix of Kubernetes services.
    #[arg(long, default_value = model::defaults::CLUSTER_DOMAIN)]
    pub domain: String,
    /// Namespace of the control plane.
    #[arg(short = 'n', long, alias = "namespace", env = "POD_NAMESPACE", default_value = model::defaults::ROOT_NAMESPACE)]
    pub system_namespace: String,
    /// Revision of this control plane: Istio objects of another `istio.io/rev` are not taken;
    /// empty takes all. Status of the Gateway API is written to what names the revision or a tag of
    /// it, and, where it is the default one, to what names none; empty is `default`.
    #[arg(long, env = "REVISION", default_value = "")]
    pub revision: String,
    /// Switches.
    #[command(flatten)]
    pub features: FeatureArgs,
    /// What is deployed for Gateways.
    #[command(flatten)]
    pub gateways: GatewayArgs,
}

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
    /// `ztunnel`, `waypoint/NAMESPACE/NAME`, `gateway/NAMESPACE/NAME`, `east-west/NAMESPACE/NAME`,
    /// `deployment/NAMESPACE/NAME`, `findings` or `status`.
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
    /// `waypoint/NAMESPACE/NAME`, `gateway/NAMESPACE/NAME` of an ingress gateway, or
    /// `east-west/NAMESPACE/NAME` of a gateway between networks; with --config-dir, which has its
    /// class, `gateway/NAMESPACE/NAME` is either.
    #[arg(long = "for", value_name = "TARGET")]
    pub target: Target,
    /// Directory of Kubernetes YAML: gives the proxy's service account and address.
    #[arg(long)]
    pub config_dir: Option<PathBuf>,
    /// Directory of the development CA that signs the proxy's certificate.
    #[arg(long, env = "AMBIENTD_STATE_DIR", default_value = ".ambientd")]
    pub state_dir: PathBuf,
    /// Where the control plane serves ADS: HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:15012")]
    pub xds_addr: String,
    /// Name in the control plane's certificate.
    #[arg(long, default_value = "istiod.istio-system.svc")]
    pub xds_name: String,
    /// Address of the proxy; by default that of its pod in --config-dir.
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// Service account; by default that of its pod in --config-dir, else that with which its
    /// Gateway is deployed: NAME of a waypoint or a gateway between networks, NAME-CLASS of an
    /// ingress gateway (NAME-istio without --config-dir).
    #[arg(long)]
    pub service_account: Option<String>,
    /// Listen on --ip only instead of on every address (several proxies on one host).
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
    /// Trust domain that the new root names: that of the present one, so that it is needed only
    /// where that one names none.
    #[arg(long)]
    pub trust_domain: Option<String>,
    /// The root is in the Secret istio-ca-secret of the cluster where this runs, or of that of
    /// `$KUBECONFIG`, instead of a directory.
    #[arg(long)]
    pub in_cluster: bool,
    /// The root is in that Secret of the cluster of this kubeconfig.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; by default its current one.
    #[arg(long, requires = "kubeconfig")]
    pub context: Option<String>,
    /// Namespace of the Secret; that of the control plane.
    #[arg(long, short, env = "POD_NAMESPACE", default_value = model::defaults::ROOT_NAMESPACE)]
    pub namespace: String,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, Ipv6Addr};

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
                .map(|args| args.mesh.features.dry_run_policies.is_on())
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
}
