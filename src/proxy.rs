//! `ambientd proxy`: what Istio's proxy image is told, in the words of `ambientd agent`.
//!
//! Source: spec/gateway-api.md §2.5, §2.11.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use envoy::bootstrap::BootstrapRole;
use serde_json::{Map, Value};

use crate::agent::{self, AgentTarget};
use crate::config::{self, AgentEnv, Cli, Command, ProxyArgs, ProxyKind};
use crate::pod_info::PodFiles;

/// What of the proxy's configuration has an effect, here or where the pod is made. Of what stands
/// in `proxyMetadata`, `ISTIO_META_*` becomes metadata; the rest is in the environment anyway.
const FIELDS: [&str; 6] = [
    "concurrency",
    "discoveryAddress",
    "drainDuration",
    "image",
    "proxyMetadata",
    "terminationDrainDuration",
];
/// What of it has an effect on ingress gateways besides.
const TOPOLOGY: &str = "gatewayTopology";

/// Runs the agent; its exit code is Envoy's.
///
/// # Errors
/// When the pod does not say what it serves, or says something else than the command line; and
/// what [`agent::run`] reports.
pub fn run(args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let mut env = AgentEnv::read();
    let told = translate(args)?;
    for note in &told.notes {
        tracing::warn!("{note}");
    }
    for (key, value) in told.metadata {
        env.metadata.entry(key).or_insert(value);
    }
    let Command::Agent(args_of_agent) = Cli::try_parse_from(told.words)?.command else {
        bail!("the words of `agent` are no `agent`");
    };
    let pod = PodFiles::read(&args_of_agent.pod_info);
    let target = AgentTarget::of_pod(&pod.labels, args_of_agent.pod_namespace.as_deref())?;
    check_kind(args.kind, &target)?;
    agent::start(args_of_agent, target, pod, env)
}

/// A pod that is told to be what its labels do not say would get nothing from the control plane.
fn check_kind(kind: ProxyKind, target: &AgentTarget) -> anyhow::Result<()> {
    let (is_router, word) = match kind {
        ProxyKind::Router => (true, "router"),
        ProxyKind::Waypoint => (false, "waypoint"),
    };
    if (target.role == BootstrapRole::Router) != is_router {
        bail!("`proxy {word}` in a pod whose labels say that it is {target}");
    }
    Ok(())
}

/// A command line of the agent.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    words: Vec<OsString>,
    /// Node metadata that only PROXY_CONFIG has.
    metadata: Vec<(String, String)>,
    /// What was said and has no effect.
    notes: Vec<String>,
}

fn translate(args: &ProxyArgs) -> anyhow::Result<Told> {
    let config: Map<String, Value> = match args.proxy_config.as_deref() {
        None | Some("") => Map::new(),
        Some(text) => serde_json::from_str(text).context("PROXY_CONFIG is not a JSON object")?,
    };
    let mut words: Vec<OsString> = ["ambientd", "agent"].map(Into::into).into();
    let mut notes = Vec::new();
    let mut flag = |name: &str, value: &str| words.push(format!("--{name}={value}").into());
    if let Some(domain) = &args.domain {
        flag("domain", cluster_domain(domain));
    }
    if let Some(cluster) = &args.service_cluster {
        flag("service-cluster", cluster);
    }
    if let Some(address) = config.get("discoveryAddress").and_then(Value::as_str) {
        flag("xds-addr", address);
    }
    for (name, field) in [
        ("drain-duration", "drainDuration"),
        ("termination-drain", "terminationDrainDuration"),
    ] {
        match config
            .get(field)
            .map(|value| value.as_str().unwrap_or_default())
        {
            None => {}
            Some(text) if config::duration(text).is_ok() => flag(name, text),
            Some(text) => notes.push(format!(
                "PROXY_CONFIG {field} {text:?} is no duration: ignored"
            )),
        }
    }
    words.extend([OsString::from("--"), args.envoy.clone()]);
    words.extend(
        of_envoy(args, &config, &mut notes)
            .into_iter()
            .map(OsString::from),
    );
    let given = args.ignored.given();
    if !given.is_empty() {
        notes.push(format!(
            "without effect with stock Envoy: {}",
            given.join(", ")
        ));
    }
    let is_known =
        |name: &str| FIELDS.contains(&name) || (name == TOPOLOGY && args.kind == ProxyKind::Router);
    let unknown: Vec<&str> = config
        .keys()
        .map(String::as_str)
        .filter(|name| !is_known(name))
        .collect();
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        notes.push(format!(
            "without effect with stock Envoy: PROXY_CONFIG {names}"
        ));
    }
    Ok(Told {
        words,
        metadata: metadata(&config),
        notes,
    })
}

/// Arguments of Envoy.
fn of_envoy(args: &ProxyArgs, config: &Map<String, Value>, notes: &mut Vec<String>) -> Vec<String> {
    // A level of everything, then levels of parts, may be one word.
    let (level, more) = args
        .proxy_log_level
        .split_once(',')
        .unwrap_or((&args.proxy_log_level, ""));
    let parts = [more, &args.component_log_level];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let mut words = vec!["--log-level".to_owned(), level.to_owned()];
    if !parts.is_empty() {
        words.extend(["--component-log-level".to_owned(), parts.join(",")]);
    }
    let limit = args.cpu_limit.as_deref().filter(|text| !text.is_empty());
    let limit = limit.map(|text| {
        let cores = text.parse::<u64>().ok();
        if cores.is_none() {
            notes.push(format!("ISTIO_CPU_LIMIT {text:?} is no number: ignored"));
        }
        cores.unwrap_or_default()
    });
    let threads = args.concurrency.map(u64::from);
    let threads = threads
        .or_else(|| config.get("concurrency")?.as_u64())
        .or(limit);
    // Threads as cores would be those of the node.
    if let Some(threads) = threads.filter(|threads| *threads != 0) {
        words.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    words
}

/// The suffix of `NAMESPACE.svc.SUFFIX`.
fn cluster_domain(domain: &str) -> &str {
    domain
        .split_once(".svc.")
        .map_or(domain, |(_, suffix)| suffix)
}

fn metadata(config: &Map<String, Value>) -> Vec<(String, String)> {
    let fields = config.get("proxyMetadata").and_then(Value::as_object);
    let pairs = fields.into_iter().flatten();
    pairs
        .filter_map(|(name, value)| {
            let name = name.strip_prefix("ISTIO_META_")?;
            Some((name.to_owned(), value.as_str()?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(words: &str) -> ProxyArgs {
        let words = ["ambientd", "proxy"]
            .into_iter()
            .chain(words.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Proxy(args) => args,
            _ => unreachable!("`proxy` is `proxy`"),
        }
    }

    /// The agent's words without its name, and what is ignored.
    fn told(args: &ProxyArgs) -> (String, Vec<String>) {
        let told = translate(args).unwrap();
        let words = told.words.iter().skip(2).map(|word| word.to_str().unwrap());
        (words.collect::<Vec<_>>().join(" "), told.notes)
    }

    #[test]
    fn the_command_line_of_the_proxy_image_is_one_of_the_agent() {
        let mut args = args(
            "router --domain shop.svc.cluster.local --proxyLogLevel warning \
             --proxyComponentLogLevel misc:error --log_output_level default:info --log_as_json",
        );
        args.cpu_limit = Some("2".to_owned());
        args.proxy_config = Some(
            r#"{"discoveryAddress": "istiod.istio-system.svc:15012", "drainDuration": "30s",
                "terminationDrainDuration": "20s", "gatewayTopology": {"numTrustedProxies": 1},
                "proxyMetadata": {"ISTIO_META_A": "b", "C": "d"}}"#
                .to_owned(),
        );
        let words = "--domain=cluster.local --xds-addr=istiod.istio-system.svc:15012 \
                     --drain-duration=30s --termination-drain=20s -- /usr/local/bin/envoy \
                     --log-level warning --component-log-level misc:error --concurrency 2";
        assert_eq!(told(&args), (words.to_owned(), Vec::new()));
        assert_eq!(
            translate(&args).unwrap().metadata,
            [("A".to_owned(), "b".to_owned())]
        );
    }

    #[test]
    fn waypoints_have_a_service_cluster_and_no_topology() {
        let mut args = args(
            "waypoint --domain shop.svc.mesh.example --serviceCluster wp.shop \
             --proxyLogLevel info,rbac:debug --concurrency 0 --outlierLogPath /dev/stdout",
        );
        args.cpu_limit = Some("2".to_owned());
        args.proxy_config = Some(
            r#"{"concurrency": 3, "gatewayTopology": {}, "drainDuration": "soon"}"#.to_owned(),
        );
        let (words, notes) = told(&args);
        assert_eq!(
            words,
            "--domain=mesh.example --service-cluster=wp.shop -- /usr/local/bin/envoy \
             --log-level info --component-log-level rbac:debug"
        );
        assert_eq!(
            notes,
            [
                "PROXY_CONFIG drainDuration \"soon\" is no duration: ignored",
                "without effect with stock Envoy: --outlierLogPath",
                "without effect with stock Envoy: PROXY_CONFIG gatewayTopology",
            ]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let mut bad = args("router");
        bad.proxy_config = Some("[]".to_owned());
        assert!(translate(&bad).is_err());
        assert!(Cli::try_parse_from(["ambientd", "proxy", "sidecar"]).is_err());
        let target = |text: &str| text.parse::<AgentTarget>().unwrap();
        for (kind, text, is_good) in [
            (ProxyKind::Router, "router/a/b", true),
            (ProxyKind::Router, "waypoint/a/b", false),
            (ProxyKind::Waypoint, "waypoint/a/b", true),
            (ProxyKind::Waypoint, "east-west/a/b", true),
            (ProxyKind::Waypoint, "router/a/b", false),
        ] {
            assert_eq!(
                check_kind(kind, &target(text)).is_ok(),
                is_good,
                "{kind:?} {text}"
            );
        }
    }
}
