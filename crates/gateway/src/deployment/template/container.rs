//! The containers of a Gateway's pod: the proxy, and in pods of stock Envoy one that puts the
//! agent beside it. Source: spec/gateway-api.md §2.5, §2.11.

use serde_json::{Value, json};

use super::super::settings::PodForm;
use super::{Template, env, image, insert_some, pod};

/// Name of the proxy's container, which overlays and tools go by.
const PROXY: &str = "istio-proxy";
/// Name of the container that copies the agent.
const INSTALL: &str = "agent-install";
/// Where the agent is in the proxy's container, when it was copied.
pub(super) const AGENT_DIR: &str = "/agent";
/// The agent in its own image.
const AGENT: &str = "/usr/local/bin/ambientd";
/// User and group of proxies.
const PROXY_USER: i64 = 1337;

const ANNOTATION_LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
const ANNOTATION_COMPONENT_LOG_LEVEL: &str = "sidecar.istio.io/componentLogLevel";
const ANNOTATION_AGENT_LOG_LEVEL: &str = "sidecar.istio.io/agentLogLevel";

/// Fields of the proxy configuration that pods of stock Envoy are made with.
const STOCK_FIELDS: [&str; 6] = [
    "concurrency",
    "discoveryAddress",
    "drainDuration",
    "image",
    "proxyMetadata",
    "terminationDrainDuration",
];
/// One that ingress gateways of stock Envoy are made with besides.
const TOPOLOGY: &str = "gatewayTopology";

/// The proxy.
pub(super) fn proxy(template: &Template<'_>) -> Value {
    let settings = template.settings;
    let resources = if template.is_waypoint() {
        &settings.waypoint_resources
    } else {
        &settings.gateway_resources
    };
    let (image, command) = match template.form {
        PodForm::Istio => (image::istio(template), None),
        PodForm::Stock => (
            settings.stock_image.envoy.to_string(),
            Some(json!([agent_path(template)])),
        ),
    };
    let mut container = json!({
        "name": PROXY,
        "image": image,
        "args": args(template),
        "env": env::env(template),
        "ports": [
            {"name": "metrics", "containerPort": 15020, "protocol": "TCP"},
            {"name": "status-port", "containerPort": 15021, "protocol": "TCP"},
            {"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"},
        ],
        "resources": resources,
        "securityContext": security(template),
        "startupProbe": probe(30, 1, 1),
        "readinessProbe": probe(4, 0, 15),
        "volumeMounts": pod::mounts(template),
    });
    insert_some(&mut container, "command", command);
    insert_some(&mut container, "imagePullPolicy", pull_policy(template));
    if !template.is_waypoint() {
        insert_some(&mut container, "lifecycle", settings.lifecycle.clone());
    }
    container
}

/// The container that copies the agent beside stock Envoy, where that is needed.
pub(super) fn install(template: &Template<'_>) -> Option<Value> {
    if template.form != PodForm::Stock {
        return None;
    }
    let image = template.settings.stock_image.agent.as_ref()?;
    let mut container = json!({
        "name": INSTALL,
        "image": image.as_str(),
        "command": [AGENT],
        "args": ["agent-install", AGENT_DIR],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "securityContext": security(template),
        "volumeMounts": [{"name": pod::AGENT_VOLUME, "mountPath": AGENT_DIR}],
    });
    insert_some(&mut container, "imagePullPolicy", pull_policy(template));
    Some(container)
}

fn pull_policy(template: &Template<'_>) -> Option<Value> {
    let policy = template.settings.image_pull_policy.as_ref()?;
    Some(json!(policy.as_str()))
}

fn agent_path(template: &Template<'_>) -> String {
    match template.settings.stock_image.agent {
        Some(_) => format!("{AGENT_DIR}/ambientd"),
        None => AGENT.to_owned(),
    }
}

/// The command line of Istio's proxy image, which the agent of stock Envoy understands too.
fn args(template: &Template<'_>) -> Vec<String> {
    let is_istio = template.form == PodForm::Istio;
    let settings = template.settings;
    let role = if template.is_waypoint() {
        "waypoint"
    } else {
        "router"
    };
    let mut args: Vec<String> = ["proxy", role, "--domain"].map(str::to_owned).into();
    args.push(format!("$(POD_NAMESPACE).svc.{}", settings.domain));
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    if template.is_waypoint() {
        let account = &template.subject.row.service_account;
        flag("--serviceCluster", format!("{account}.$(POD_NAMESPACE)"));
    }
    let levels = Levels::of(template);
    flag("--proxyLogLevel", levels.proxy.to_owned());
    flag("--proxyComponentLogLevel", levels.components.to_owned());
    flag("--log_output_level", levels.agent.to_owned());
    if is_istio && settings.sts_port != 0 && !template.is_waypoint() {
        flag("--stsPort", settings.sts_port.to_string());
    }
    if is_istio && !settings.outlier_log_path.is_empty() && template.is_waypoint() {
        flag("--outlierLogPath", settings.outlier_log_path.to_string());
    }
    if settings.log.as_json {
        args.push("--log_as_json".to_owned());
    }
    args
}

/// How loud the proxy is.
struct Levels<'t> {
    proxy: &'t str,
    components: &'t str,
    agent: &'t str,
}

impl<'t> Levels<'t> {
    fn of(template: &'t Template<'_>) -> Self {
        let log = &template.settings.log;
        let level = |annotation, default: &'t str| {
            let value = template.subject.meta.annotation(annotation);
            value.map_or(default, |value| value.as_str())
        };
        Self {
            proxy: level(ANNOTATION_LOG_LEVEL, &log.proxy),
            components: level(ANNOTATION_COMPONENT_LOG_LEVEL, &log.components),
            agent: level(ANNOTATION_AGENT_LOG_LEVEL, &log.agent),
        }
    }
}

fn probe(failures: u32, initial_delay_s: u32, period_s: u32) -> Value {
    json!({
        "failureThreshold": failures,
        "httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"},
        "initialDelaySeconds": initial_delay_s,
        "periodSeconds": period_s,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    })
}

fn security(template: &Template<'_>) -> Value {
    let settings = template.settings;
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
    });
    // OpenShift chooses those of waypoints; for ingress it says which they are.
    let (user, group) = match (settings.is_openshift, template.is_waypoint()) {
        (true, true) => (None, None),
        (true, false) => (template.subject.proxy_user, template.subject.proxy_user),
        (false, _) => (Some(PROXY_USER), Some(PROXY_USER)),
    };
    insert_some(&mut context, "runAsUser", user.map(|id| json!(id)));
    insert_some(&mut context, "runAsGroup", group.map(|id| json!(id)));
    if template.is_waypoint() {
        let profile = settings.seccomp_profile.clone();
        insert_some(&mut context, "seccompProfile", profile);
    }
    context
}

/// What is asked for and this form does not do.
pub(super) fn ignored(template: &Template<'_>) -> Vec<(String, String)> {
    if template.form != PodForm::Stock {
        return Vec::new();
    }
    let annotations = image::ANNOTATIONS
        .into_iter()
        .filter(|key| template.subject.meta.annotation(key).is_some())
        .map(|key| {
            let why = "chooses among Istio's images; this Gateway runs stock Envoy".to_owned();
            (format!("metadata.annotations[{key}]"), why)
        });
    let fields = template
        .proxy
        .names()
        .filter(|name| !STOCK_FIELDS.contains(name))
        .filter(|name| *name != TOPOLOGY || template.is_waypoint())
        .map(|name| {
            let why = "the agent of stock Envoy does not know it".to_owned();
            (format!("defaultConfig.{name}"), why)
        });
    let (settings, is_waypoint) = (template.settings, template.is_waypoint());
    let flags = [
        (
            "global.sts.servicePort",
            settings.sts_port != 0 && !is_waypoint,
        ),
        (
            "global.proxy.outlierLogPath",
            !settings.outlier_log_path.is_empty() && is_waypoint,
        ),
    ];
    let flags = flags
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(name, _)| {
            let why = "the agent of stock Envoy does not do it".to_owned();
            (name.to_owned(), why)
        });
    annotations.chain(fields).chain(flags).collect()
}
