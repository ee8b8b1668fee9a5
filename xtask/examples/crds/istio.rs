//! The kinds of Istio, by a table: what is in their spec is not described.

use serde_json::{Map, Value, json};

use super::{Names, definition};

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// Group (without `.istio.io`), kind, plural, short name, versions with the stored one first,
/// and whether an object without `spec` is refused.
type IstioKind = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    bool,
);

const ISTIO: &[IstioKind] = &[
    (
        "extensions",
        "TrafficExtension",
        "trafficextensions",
        &[],
        &["v1alpha1"],
        true,
    ),
    (
        "extensions",
        "WasmPlugin",
        "wasmplugins",
        &[],
        &["v1alpha1"],
        true,
    ),
    (
        "networking",
        "DestinationRule",
        "destinationrules",
        &["dr"],
        NETWORKING,
        false,
    ),
    (
        "networking",
        "EnvoyFilter",
        "envoyfilters",
        &[],
        &["v1alpha3"],
        false,
    ),
    (
        "networking",
        "Gateway",
        "gateways",
        &["gw"],
        NETWORKING,
        false,
    ),
    (
        "networking",
        "ProxyConfig",
        "proxyconfigs",
        &[],
        &["v1beta1"],
        false,
    ),
    (
        "networking",
        "ServiceEntry",
        "serviceentries",
        &["se"],
        NETWORKING,
        true,
    ),
    ("networking", "Sidecar", "sidecars", &[], NETWORKING, false),
    (
        "networking",
        "VirtualService",
        "virtualservices",
        &["vs"],
        NETWORKING,
        false,
    ),
    (
        "networking",
        "WorkloadEntry",
        "workloadentries",
        &["we"],
        NETWORKING,
        true,
    ),
    (
        "networking",
        "WorkloadGroup",
        "workloadgroups",
        &["wg"],
        NETWORKING,
        true,
    ),
    (
        "security",
        "AuthorizationPolicy",
        "authorizationpolicies",
        &["ap"],
        SECURITY,
        false,
    ),
    (
        "security",
        "PeerAuthentication",
        "peerauthentications",
        &["pa"],
        SECURITY,
        false,
    ),
    (
        "security",
        "RequestAuthentication",
        "requestauthentications",
        &["ra"],
        SECURITY,
        false,
    ),
    (
        "telemetry",
        "Telemetry",
        "telemetries",
        &["telemetry"],
        &["v1alpha1", "v1"],
        false,
    ),
];

/// All of them.
pub(crate) fn definitions() -> Vec<Value> {
    ISTIO.iter().map(istio_definition).collect()
}

fn istio_definition((group, kind, plural, short, versions, spec_required): &IstioKind) -> Value {
    let text = || json!({ "type": "string" });
    let condition: Map<String, Value> = ["type", "status", "reason", "message"]
        .into_iter()
        .map(|field| (field.to_owned(), text()))
        .chain(
            ["lastTransitionTime", "lastProbeTime"]
                .into_iter()
                .map(|field| {
                    (
                        field.to_owned(),
                        json!({ "type": "string", "format": "date-time" }),
                    )
                }),
        )
        .chain([("observedGeneration".to_owned(), generation())])
        .collect();
    let mut schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": text(),
            "kind": text(),
            "metadata": { "type": "object" },
            "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            // As the real ones: conditions are one value to server-side apply, not merged by
            // type, and other fields, such as the addresses of a ServiceEntry, stay.
            "status": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {
                    "conditions": {
                        "type": "array",
                        "items": { "type": "object", "properties": condition },
                    },
                    "observedGeneration": generation(),
                },
            },
        },
    });
    if *spec_required {
        schema["required"] = json!(["spec"]);
    }
    let group: &'static str = match *group {
        "extensions" => "extensions.istio.io",
        "networking" => "networking.istio.io",
        "security" => "security.istio.io",
        _ => "telemetry.istio.io",
    };
    let names = Names {
        group,
        kind,
        plural,
        short,
        namespaced: true,
        versions,
    };
    definition(&names, &schema)
}

/// Istio's generations may be text, as those of protobuf JSON are.
fn generation() -> Value {
    json!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
    })
}
