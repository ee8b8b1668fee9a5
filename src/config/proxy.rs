//! Flags of `proxy`: those of Istio's proxy image. Source: spec/gateway-api.md §2.5, §2.11.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

/// What the proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyKind {
    /// An ingress gateway.
    Router,
    /// A waypoint, or a gateway between networks.
    Waypoint,
}

/// Flags of `proxy`. The environment is read besides, as `agent` does.
#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    /// What the proxy is; which Gateway it serves is what the labels of its pod say.
    pub kind: ProxyKind,
    /// DNS suffix of the pod's namespace, such as `default.svc.cluster.local`.
    #[arg(long)]
    pub domain: Option<String>,
    /// Service cluster of the node.
    #[arg(long = "serviceCluster")]
    pub service_cluster: Option<String>,
    /// Log level of Envoy.
    #[arg(long = "proxyLogLevel", default_value = "warning")]
    pub proxy_log_level: String,
    /// Log levels of parts of Envoy.
    #[arg(long = "proxyComponentLogLevel", default_value = "")]
    pub component_log_level: String,
    /// Threads of Envoy; 0 for as many as there are cores. By default what PROXY_CONFIG says,
    /// else the limit of the container.
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// Limit of the container, in cores.
    #[arg(long, env = "ISTIO_CPU_LIMIT", hide = true)]
    pub cpu_limit: Option<String>,
    /// Configuration of the proxy as JSON.
    #[arg(long, env = "PROXY_CONFIG", hide = true)]
    pub proxy_config: Option<String>,
    /// Envoy.
    #[arg(long, default_value = "/usr/local/bin/envoy")]
    pub envoy: OsString,
    /// Flags without effect here.
    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

/// Flags of Istio's agent that have no effect, which is said.
#[derive(Clone, Debug, Default, Args)]
pub struct IgnoredArgs {
    #[arg(long = "stsPort", hide = true)]
    sts_port: Option<String>,
    #[arg(long = "tokenManagerPlugin", hide = true)]
    token_manager_plugin: Option<String>,
    #[arg(long = "meshConfig", hide = true)]
    mesh_config: Option<String>,
    #[arg(long = "templateFile", hide = true)]
    template_file: Option<String>,
    #[arg(long = "outlierLogPath", hide = true)]
    outlier_log_path: Option<String>,
    #[arg(
        long,
        hide = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    profiling: Option<String>,
}

// === impl IgnoredArgs ===

impl IgnoredArgs {
    /// Those that were given, by name.
    pub fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--stsPort", &self.sts_port),
            ("--tokenManagerPlugin", &self.token_manager_plugin),
            ("--meshConfig", &self.mesh_config),
            ("--templateFile", &self.template_file),
            ("--outlierLogPath", &self.outlier_log_path),
            ("--profiling", &self.profiling),
        ];
        let given = all.into_iter().filter(|(_, value)| value.is_some());
        given.map(|(name, _)| name).collect()
    }
}
