//! The pod template of a Gateway's Deployment. Source: spec/gateway-api.md §2.5.

use serde_json::{Value, json};

use super::super::settings::{PodForm, TrustBundle};
use super::{Template, container, insert_some};

/// Name of the volume with the agent's program, in pods of stock Envoy.
pub(super) const AGENT_VOLUME: &str = "agent-bin";
/// Seconds that a token is good for.
const TOKEN_S: u32 = 43_200;
/// Who the token is for.
const TOKEN_AUDIENCE: &str = "istio-ca";
/// File with the root, in its volume.
const ROOT_FILE: &str = "root-cert.pem";

pub(super) fn template(template: &Template<'_>) -> Value {
    let (settings, row) = (template.settings, template.subject.row);
    let mut spec = json!({
        "serviceAccountName": row.service_account.as_str(),
        "containers": [container::proxy(template)],
        "volumes": volumes(template),
    });
    insert_some(
        &mut spec,
        "initContainers",
        container::install(template).map(|container| json!([container])),
    );
    if template.is_waypoint() {
        let scheduling = &settings.waypoint_scheduling;
        insert_some(&mut spec, "affinity", scheduling.affinity.clone());
        insert_some(
            &mut spec,
            "topologySpreadConstraints",
            scheduling.topology_spread_constraints.clone(),
        );
        insert_some(&mut spec, "nodeSelector", scheduling.node_selector.clone());
        insert_some(&mut spec, "tolerations", scheduling.tolerations.clone());
    } else {
        insert_some(&mut spec, "securityContext", Some(security(template)));
    }
    let secrets: Vec<Value> = settings
        .image_pull_secrets
        .iter()
        .map(|name| json!({"name": name.as_str()}))
        .collect();
    let secrets = (!secrets.is_empty()).then_some(Value::Array(secrets));
    insert_some(&mut spec, "imagePullSecrets", secrets);
    json!({
        "metadata": template.metadata.of_pods(template.subject, settings),
        "spec": spec,
    })
}

/// Security context of an ingress pod: whoever is not root may listen on port 80.
fn security(template: &Template<'_>) -> Value {
    if let Some(context) = &template.settings.gateway_security_context {
        return context.clone();
    }
    let mut context = json!({
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
    });
    let profile = template.settings.seccomp_profile.clone();
    insert_some(&mut context, "seccompProfile", profile);
    context
}

/// A volume and where the proxy has it.
struct Volume {
    name: &'static str,
    path: &'static str,
    source: Value,
    is_read_only: bool,
}

/// Volumes in the order of their mounts.
fn all(template: &Template<'_>) -> Vec<Volume> {
    let volume = |name, path, source| Volume {
        name,
        path,
        source,
        is_read_only: false,
    };
    let empty = || json!({"emptyDir": {}});
    let mut volumes = vec![volume(
        "workload-socket",
        "/var/run/secrets/workload-spiffe-uds",
        empty(),
    )];
    let is_istio_gateway = template.form == PodForm::Istio && !template.is_waypoint();
    if is_istio_gateway {
        volumes.push(volume(
            "credential-socket",
            "/var/run/secrets/credential-uds",
            empty(),
        ));
        volumes.push(volume(
            "workload-certs",
            "/var/run/secrets/workload-spiffe-credentials",
            empty(),
        ));
    }
    // Istio's proxy may trust the certificates of others; our agent knows one root.
    if !is_istio_gateway || template.settings.cert_provider == "istiod" {
        volumes.push(volume(
            "istiod-ca-cert",
            "/var/run/secrets/istio",
            root(template),
        ));
    }
    volumes.push(volume("istio-data", "/var/lib/istio/data", empty()));
    volumes.push(volume(
        "istio-envoy",
        "/etc/istio/proxy",
        json!({"emptyDir": {"medium": "Memory"}}),
    ));
    volumes.push(volume(
        "istio-token",
        "/var/run/secrets/tokens",
        json!({"projected": {"sources": [{"serviceAccountToken": {
            "audience": TOKEN_AUDIENCE,
            "expirationSeconds": TOKEN_S,
            "path": "istio-token",
        }}]}}),
    ));
    volumes.push(volume(
        "istio-podinfo",
        "/etc/istio/pod",
        json!({"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}},
            {
                "path": "annotations",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.annotations"},
            },
        ]}}),
    ));
    if container::install(template).is_some() {
        volumes.push(Volume {
            is_read_only: true,
            ..volume(AGENT_VOLUME, container::AGENT_DIR, empty())
        });
    }
    volumes
}

fn root(template: &Template<'_>) -> Value {
    match &template.settings.trust_bundle {
        TrustBundle::ConfigMap(name) => json!({"configMap": {"name": name.as_str()}}),
        TrustBundle::Cluster(name) => {
            json!({"projected": {"sources": [{"clusterTrustBundle": {
                "name": name.as_str(),
                "path": ROOT_FILE,
            }}]}})
        }
    }
}

fn volumes(template: &Template<'_>) -> Vec<Value> {
    let volumes = all(template).into_iter().map(|volume| {
        let mut value = volume.source;
        insert_some(&mut value, "name", Some(json!(volume.name)));
        value
    });
    volumes.collect()
}

/// `volumeMounts` of the proxy's container.
pub(super) fn mounts(template: &Template<'_>) -> Vec<Value> {
    let mounts = all(template).into_iter().map(|volume| {
        let mut mount = json!({"name": volume.name, "mountPath": volume.path});
        let read_only = volume.is_read_only.then_some(json!(true));
        insert_some(&mut mount, "readOnly", read_only);
        mount
    });
    mounts.collect()
}
