//! The Service of a Gateway. Source: spec/gateway-api.md §2.6.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use model::gateway::ANNOTATION_SERVICE_TYPE;

use super::super::OverlayKind;
use super::{Template, insert_some, whole};

/// Port of readiness.
const STATUS_PORT: u16 = 15021;
const STATUS_PORT_NAME: &str = "status-port";
/// Length of a port's name. Source: Kubernetes, DNS labels.
const NAME_BYTES_MAX: usize = 63;

pub(super) fn service(template: &Template<'_>) -> Value {
    let subject = template.subject;
    let kind = subject
        .meta
        .annotation(ANNOTATION_SERVICE_TYPE)
        .map(|kind| kind.as_str())
        .or_else(|| subject.row.controller.service_type())
        .unwrap_or("ClusterIP");
    let mut spec = json!({
        "ipFamilyPolicy": "PreferDualStack",
        "ports": ports(template),
        "selector": template.selector(),
        "type": kind,
    });
    let wanted = subject.gateway.requested.first();
    let address = wanted
        .filter(|_| kind == "LoadBalancer")
        .map(|(_, value)| json!(value.as_str()));
    insert_some(&mut spec, "loadBalancerIP", address);
    let name = &subject.row.deployment;
    let metadata = template.metadata.of_service(subject, name);
    whole(OverlayKind::Service, metadata, Some(spec))
}

/// That of readiness, then one for each port of the listeners.
fn ports(template: &Template<'_>) -> Vec<Value> {
    let mut names = BTreeSet::from([STATUS_PORT_NAME.to_owned()]);
    let mut taken = BTreeSet::from([0, STATUS_PORT]);
    let mut ports = vec![json!({
        "name": STATUS_PORT_NAME,
        "port": STATUS_PORT,
        "protocol": "TCP",
        "appProtocol": "tcp",
    })];
    for listener in &template.subject.row.listeners {
        if !taken.insert(listener.port) {
            continue;
        }
        let name = port_name(&listener.name, listener.port, &names);
        ports.push(json!({
            "name": name,
            "port": listener.port,
            "protocol": "TCP",
            "appProtocol": listener.protocol.as_str().to_lowercase(),
        }));
        names.insert(name);
    }
    ports
}

/// A name that no other port has.
fn port_name(listener: &str, port: u16, taken: &BTreeSet<String>) -> String {
    let mut suffix = String::new();
    loop {
        let room = NAME_BYTES_MAX - suffix.len().min(NAME_BYTES_MAX);
        let base: String = listener
            .chars()
            .map(|c| if c == '.' { '-' } else { c })
            .take(room)
            .collect();
        let name = if suffix.is_empty() {
            base.trim_end_matches('-').to_owned()
        } else {
            format!("{}{suffix}", base.trim_end_matches('-'))
        };
        if !taken.contains(&name) {
            return name;
        }
        if suffix.is_empty() {
            suffix = format!("-{port}");
        } else {
            suffix.push('x');
        }
    }
}
