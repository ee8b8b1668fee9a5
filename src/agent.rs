//! `ambientd agent`: flags and environment of the agent beside Envoy.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;

use ::agent::{CaOptions, DrainOptions, EnvoyCommand, Options};
use anyhow::{Context as _, bail};
use envoy::bootstrap::{BootstrapOptions, BootstrapRole, BootstrapSecrets, PodInfo};
use model::labels::{
    LABEL_GATEWAY_MANAGED, LABEL_GATEWAY_NAME, MANAGED_EAST_WEST, MANAGED_WAYPOINT,
};
use model::{ObjectKey, SpiffeId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::commands::host_port;
use crate::config::{AgentArgs, AgentEnv, AgentEnvoyArgs};
use crate::pod_info::PodFiles;

/// The name of the control plane when its address gives none.
/// Source: spec/control-plane.md §2.10.
const DEFAULT_NAME: &str = "istiod.istio-system.svc";
/// This very program, even when its file was replaced.
const SELF: &str = "/proc/self/exe";

/// A Gateway and what serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTarget {
    /// Waypoint or gateway.
    pub role: BootstrapRole,
    /// The Gateway.
    pub key: ObjectKey,
}

impl FromStr for AgentTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (role, key) = match text.split_once('/') {
            Some(("waypoint", key)) => (BootstrapRole::Waypoint, key),
            Some(("gateway" | "router", key)) => (BootstrapRole::Router, key),
            Some(("east-west", key)) => (BootstrapRole::EastWest, key),
            _ => (BootstrapRole::Waypoint, ""),
        };
        match key.parse::<ObjectKey>() {
            Ok(key) if !key.ns.is_empty() && !key.name.is_empty() => Ok(Self { role, key }),
            _ => Err(format!(
                "{text:?} is not `waypoint/NAMESPACE/NAME`, `gateway/NAMESPACE/NAME` or `east-west/NAMESPACE/NAME`"
            )),
        }
    }
}

impl fmt::Display for AgentTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            BootstrapRole::Waypoint => "waypoint",
            BootstrapRole::Router => "router",
            BootstrapRole::EastWest => "east-west",
        };
        write!(f, "{role}/{}", self.key)
    }
}

// === impl AgentTarget ===

impl AgentTarget {
    /// What a pod serves, by the labels that its Deployment gives it.
    ///
    /// # Errors
    /// When they name no Gateway, or the namespace is not known.
    pub fn of_pod(labels: &BTreeMap<String, String>, ns: Option<&str>) -> anyhow::Result<Self> {
        let label = |key: &str| labels.get(key).map(String::as_str);
        let name = label(LABEL_GATEWAY_NAME).filter(|name| !name.is_empty());
        let name = name.with_context(|| {
            format!("the pod has no label {LABEL_GATEWAY_NAME}: give it one, or give --gateway")
        })?;
        let ns = ns.filter(|ns| !ns.is_empty());
        let ns = ns.context("the namespace of the pod is not known: set POD_NAMESPACE")?;
        let role = match label(LABEL_GATEWAY_MANAGED) {
            Some(MANAGED_WAYPOINT) => BootstrapRole::Waypoint,
            Some(MANAGED_EAST_WEST) => BootstrapRole::EastWest,
            _ => BootstrapRole::Router,
        };
        let key = ObjectKey::new(ns, name);
        Ok(Self { role, key })
    }
}

/// Runs the agent; its exit code is Envoy's.
///
/// # Errors
/// Flags that make no sense together, and what [`::agent::run`] reports.
pub fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    let env = AgentEnv::read();
    if env.proxy_config.is_some() {
        tracing::warn!(
            "of PROXY_CONFIG only gatewayTopology counts: use the flags of `ambientd agent`, or \
             `ambientd proxy`"
        );
    }
    let pod = PodFiles::read(&args.pod_info);
    let target = match args.gateway.clone() {
        Some(target) => target,
        None => AgentTarget::of_pod(&pod.labels, args.pod_namespace.as_deref())?,
    };
    start(args, target, pod, env)
}

/// The same for who knows what the pod serves.
///
/// # Errors
/// As [`run`].
pub fn start(
    args: AgentArgs,
    target: AgentTarget,
    pod: PodFiles,
    mut env: AgentEnv,
) -> anyhow::Result<ExitCode> {
    if let Some(config) = env.proxy_config
        && target.role == BootstrapRole::Router
    {
        env.metadata.insert("PROXY_CONFIG".to_owned(), config);
    }
    let options = options(args, target, pod, env.metadata)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let code = runtime.block_on(async {
        let signals = count_signals()?;
        anyhow::Ok(::agent::run(options, signals).await?)
    })?;
    Ok(ExitCode::from(code))
}

/// Becomes Envoy, as a child that its agent takes along when it dies.
pub fn become_envoy(args: &AgentEnvoyArgs) -> anyhow::Error {
    let error = ::agent::exec_as_child_of(args.parent, &args.command);
    let program = args.command.first().cloned().unwrap_or_default();
    anyhow::Error::new(error).context(format!("cannot start {}", program.display()))
}

/// Counts SIGTERM and SIGINT, from now on.
fn count_signals() -> anyhow::Result<watch::Receiver<u32>> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(counted)
}

fn options(
    args: AgentArgs,
    target: AgentTarget,
    pod: PodFiles,
    mut metadata: BTreeMap<String, String>,
) -> anyhow::Result<Options> {
    let (xds_host, xds_port) = host_port(&args.xds_addr, "--xds-addr")?;
    let (ca_host, ca_port) = match &args.ca_addr {
        Some(addr) => host_port(addr, "--ca-addr")?,
        None => (xds_host.clone(), xds_port),
    };
    let ca_name = match &args.xds_name {
        Some(name) if ca_host == xds_host => name.clone(),
        _ => server_name(&ca_host),
    };
    let xds_name = args.xds_name.unwrap_or_else(|| server_name(&xds_host));
    if args.stats_port != 0 && args.admin_port == 0 {
        bail!(
            "--stats-port {}: needs a fixed --admin-port",
            args.stats_port
        );
    }
    if !args.node_name.is_empty() {
        metadata.insert("NODE_NAME".to_owned(), args.node_name);
    }
    let mut command = args.command.into_iter();
    let program = command.next().context("no Envoy after `--`")?;
    let AgentTarget { role, key } = target;
    let host = match args.ip {
        ip if args.bind_ip => ip,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let parent = std::process::id().to_string();
    Ok(Options {
        identity: SpiffeId::new(
            args.trust_domain.as_str(),
            key.ns.clone(),
            args.service_account.as_str(),
        ),
        ca: CaOptions {
            host: ca_host,
            port: ca_port,
            server_name: ca_name,
            cluster_id: args.cluster_id.clone(),
            root_file: args.root,
            token_file: args.token,
            ttl: args.certificate_ttl,
        },
        bootstrap: BootstrapOptions {
            role,
            gateway: key,
            pod_name: args.pod_name,
            service_account: args.service_account,
            cluster_id: args.cluster_id,
            network: args.network,
            domain: args.domain,
            ip: args.ip,
            bind_ip: args.bind_ip,
            admin_port: args.admin_port,
            xds_host,
            xds_port,
            xds_name,
            sotw: args.sotw,
            secrets: BootstrapSecrets::Agent {
                socket: String::new(),
            },
            stats_port: (args.stats_port != 0).then_some(args.stats_port),
            metadata,
            pod: PodInfo {
                labels: pod.labels,
                annotations: pod.annotations,
                cluster: args.service_cluster,
            },
        },
        run_dir: args.run_dir,
        status_addr: SocketAddr::new(host, args.status_port),
        health_addr: SocketAddr::new(host, args.health_port),
        drain: DrainOptions {
            duration: args.drain_duration,
            termination: args.termination_drain,
            until_idle: args.exit_on_zero_connections,
        },
        envoy: EnvoyCommand {
            launcher: [SELF, "agent-envoy", "--parent", &parent, "--"]
                .map(Into::into)
                .to_vec(),
            program,
            args: command.collect(),
        },
    })
}

/// The name that the server at a host must prove.
fn server_name(host: &str) -> String {
    if host == "localhost" || host.parse::<IpAddr>().is_ok() {
        DEFAULT_NAME.to_owned()
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser as _;

    use super::*;
    use crate::config::{Cli, Command};

    fn parsed(flags: &[&str]) -> anyhow::Result<Options> {
        let fixed = [
            "ambientd",
            "agent",
            "--gateway",
            "waypoint/app/wp",
            "--pod-name",
            "wp-0",
            "--service-account",
            "wp",
            "--ip",
            "10.1.2.3",
        ];
        let words = fixed
            .iter()
            .chain(flags)
            .chain(&["--", "envoy", "-l", "info"]);
        let Command::Agent(args) = Cli::try_parse_from(words)?.command else {
            bail!("another command");
        };
        let target = args.gateway.clone().context("no target")?;
        options(args, target, PodFiles::default(), BTreeMap::new())
    }

    #[test]
    fn the_defaults_are_those_of_a_pod() {
        let options = parsed(&[]).unwrap();
        assert_eq!(
            options.identity.to_string(),
            "spiffe://cluster.local/ns/app/sa/wp"
        );
        assert_eq!(options.health_addr.to_string(), "0.0.0.0:15021");
        assert_eq!(options.status_addr.to_string(), "0.0.0.0:15020");
        assert_eq!(options.ca.host, "istiod.istio-system.svc");
        assert_eq!(options.ca.server_name, options.bootstrap.xds_name);
        assert_eq!(options.ca.ttl.as_secs(), 86_400);
        assert_eq!(options.bootstrap.stats_port, Some(15090));
        assert_eq!(options.envoy.args, ["-l", "info"]);
    }

    #[test]
    fn servers_prove_the_name_they_are_called_by() {
        let cases: [(&[&str], (&str, &str)); 4] = [
            (&["--xds-addr", "127.0.0.1:1"], (DEFAULT_NAME, DEFAULT_NAME)),
            (
                &["--xds-addr", "cp.example:1"],
                ("cp.example", "cp.example"),
            ),
            (
                &["--xds-addr", "[::1]:1", "--xds-name", "me.example"],
                ("me.example", "me.example"),
            ),
            (
                &["--xds-addr", "cp.example:1", "--ca-addr", "ca.example:2"],
                ("cp.example", "ca.example"),
            ),
        ];
        for (flags, (xds, ca)) in cases {
            let options = parsed(flags).unwrap();
            assert_eq!(options.bootstrap.xds_name, xds, "{flags:?}");
            assert_eq!(options.ca.server_name, ca, "{flags:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(parsed(&["--admin-port", "0"]).is_err());
        assert!(parsed(&["--admin-port", "0", "--stats-port", "0"]).is_ok());
        assert!(parsed(&["--xds-addr", "nowhere"]).is_err());
        for text in [
            "",
            "waypoint",
            "waypoint/x",
            "waypoint//x",
            "sidecar/a/b",
            "router/a/b/c",
        ] {
            assert!(text.parse::<AgentTarget>().is_err(), "{text:?}");
        }
        for text in ["router/a/b", "waypoint/a/b", "east-west/a/b"] {
            assert_eq!(text.parse::<AgentTarget>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_labels_of_a_pod_say_what_it_serves() {
        let of = |managed: &str, ns: Option<&str>| {
            let labels = [
                (LABEL_GATEWAY_NAME.to_owned(), "gw".to_owned()),
                (LABEL_GATEWAY_MANAGED.to_owned(), managed.to_owned()),
            ];
            AgentTarget::of_pod(&labels.into(), ns).map(|target| target.to_string())
        };
        assert_eq!(of(MANAGED_WAYPOINT, Some("a")).unwrap(), "waypoint/a/gw");
        assert_eq!(of(MANAGED_EAST_WEST, Some("a")).unwrap(), "east-west/a/gw");
        for managed in ["istio.io-gateway-controller", "", "else"] {
            assert_eq!(of(managed, Some("a")).unwrap(), "router/a/gw");
        }
        for ns in [None, Some("")] {
            let error = of("", ns).unwrap_err().to_string();
            assert!(error.contains("POD_NAMESPACE"), "{error}");
        }
        let error = AgentTarget::of_pod(&BTreeMap::new(), Some("a")).unwrap_err();
        assert!(error.to_string().contains(LABEL_GATEWAY_NAME), "{error}");
    }
}
