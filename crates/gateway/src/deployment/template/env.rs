//! Variables of the proxy's container. Source: spec/gateway-api.md §2.5.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use model::labels::LABEL_NETWORK;

use super::Template;

/// Variables, each name once.
pub(super) struct Variables {
    list: Vec<Value>,
    names: BTreeSet<String>,
}

// === impl Variables ===

impl Variables {
    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.push(name, json!({"name": name, "value": value.into()}));
    }

    fn field(&mut self, name: &str, path: &str) {
        let from = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
        self.push(name, json!({"name": name, "valueFrom": from}));
    }

    fn limit(&mut self, name: &str, resource: &str) {
        let from = json!({"resourceFieldRef": {"resource": resource, "divisor": "0"}});
        self.push(name, json!({"name": name, "valueFrom": from}));
    }

    /// A variable that is there already stays as it is.
    fn push(&mut self, name: &str, variable: Value) {
        if self.names.insert(name.to_owned()) {
            self.list.push(variable);
        }
    }
}

/// `env` of the container. What a pod is comes first, so that nothing else can say it; then
/// what users say (`proxyMetadata`), which wins over the rest.
pub(super) fn env(template: &Template<'_>) -> Vec<Value> {
    let settings = template.settings;
    let mut vars = Variables {
        list: Vec::new(),
        names: BTreeSet::new(),
    };
    vars.add("PILOT_CERT_PROVIDER", settings.cert_provider.as_str());
    vars.add("CA_ADDR", settings.ca_address());
    vars.field("POD_NAME", "metadata.name");
    vars.field("POD_NAMESPACE", "metadata.namespace");
    vars.field("INSTANCE_IP", "status.podIP");
    vars.field("SERVICE_ACCOUNT", "spec.serviceAccountName");
    vars.field("HOST_IP", "status.hostIP");
    vars.field("ISTIO_META_NODE_NAME", "spec.nodeName");
    vars.limit("ISTIO_CPU_LIMIT", "limits.cpu");
    vars.limit("GOMEMLIMIT", "limits.memory");
    vars.add("TRUST_DOMAIN", settings.trust_domain.as_str());
    vars.add("PROXY_CONFIG", template.proxy.to_json());
    for (name, value) in template.proxy.environment() {
        vars.add(&name, value);
    }
    metadata(template, &mut vars);
    vars.list
}

/// What becomes metadata of the node.
fn metadata(template: &Template<'_>, vars: &mut Variables) {
    let (settings, row) = (template.settings, template.subject.row);
    if template.is_waypoint() {
        vars.field("ISTIO_META_SERVICE_ACCOUNT", "spec.serviceAccountName");
    } else {
        vars.add("ISTIO_META_POD_PORTS", "[]");
        vars.add("ISTIO_META_APP_CONTAINERS", "");
    }
    vars.add("ISTIO_META_CLUSTER_ID", cluster_id(template));
    vars.add("ISTIO_META_INTERCEPTION_MODE", interception_mode(template));
    vars.add("ISTIO_META_WORKLOAD_NAME", row.deployment.as_str());
    vars.add(
        "ISTIO_META_OWNER",
        format!(
            "kubernetes://apis/apps/v1/namespaces/{}/deployments/{}",
            row.key.ns, row.deployment
        ),
    );
    let mesh_id = match settings.mesh_id.as_str() {
        "" => settings.trust_domain.as_str(),
        id => id,
    };
    vars.add("ISTIO_META_MESH_ID", mesh_id);
    let labelled = template.metadata.labels.get(LABEL_NETWORK);
    let network = labelled.unwrap_or(&settings.network);
    if !network.is_empty() {
        vars.add("ISTIO_META_NETWORK", network.as_str());
    }
    let view = match (template.is_waypoint(), template.is_east_west()) {
        (false, _) => labelled,
        (true, true) => Some(network),
        (true, false) => None,
    };
    if let Some(view) = view.filter(|view| !view.is_empty()) {
        vars.add("ISTIO_META_REQUESTED_NETWORK_VIEW", view.as_str());
    }
}

fn cluster_id<'a>(template: &Template<'a>) -> &'a str {
    match template.settings.cluster_name.as_str() {
        "" => template.settings.cluster_id.as_str(),
        name => name,
    }
}

fn interception_mode<'t>(template: &'t Template<'_>) -> &'t str {
    const REDIRECT: &str = "REDIRECT";
    if template.is_waypoint() {
        return REDIRECT;
    }
    template.proxy.text("interceptionMode").unwrap_or(REDIRECT)
}
