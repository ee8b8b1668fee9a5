//! The mesh config: a ConfigMap with YAML inside, or a bare document.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::defaults;
use crate::finding::Severity;
use crate::input::MeshConfig;
use crate::names::{Kind, ObjectKey};
use crate::object::{Invalid, Meta, Object};

use super::meta::lenient;
use super::read::{Doc, invalid, strs};
use crate::Str;

mod provider;
mod scope;
mod traffic;

use scope::{ScopeWire, SelectorWire, VisibilityWire};
use traffic::TrafficWire;

/// Name of the ConfigMap, and of the row.
pub(super) const CONFIG_MAP_NAME: &str = "istio";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshWire {
    #[serde(alias = "trust_domain")]
    trust_domain: Option<String>,
    #[serde(alias = "trust_domain_aliases")]
    trust_domain_aliases: Option<Vec<String>>,
    #[serde(alias = "root_namespace")]
    root_namespace: Option<String>,
    #[serde(alias = "discovery_selectors")]
    discovery_selectors: Option<Vec<SelectorWire>>,
    #[serde(alias = "service_entry_visibility")]
    service_entry_visibility: Option<VisibilityWire>,
    #[serde(alias = "service_scope_configs")]
    service_scope_configs: Option<Vec<ScopeWire>>,
}

/// Fields that say nothing which a file would miss: they concern what ambient does not have.
const WITHOUT_EFFECT: &[&str] = &[
    "ca",
    "certificates",
    "configSources",
    "disableEnvoyListenerLog",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enablePrometheusMerge",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshNetworks",
    "outboundClusterStatName",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "thriftConfig",
    "verifyCertificateAtClient",
];

/// Fields that change traffic or policy and are not applied yet.
const NOT_APPLIED: &[&str] = &[
    "accessLogEncoding",
    "accessLogFile",
    "accessLogFormat",
    "caCertificates",
    "defaultProviders",
    "enableEnvoyAccessLogService",
    "enableTracing",
    "meshMTLS",
    "outboundTrafficPolicy",
    "serviceSettings",
    "tlsDefaults",
];

const FIELDS: &[&str] = &[
    "applyToSidecars",
    "connectTimeout",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultHttpRetryPolicy",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "defaultVisibility",
    "discoverySelectors",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "localityLbSetting",
    "matchExpressions",
    "matchLabels",
    "matchingRules",
    "namespaceSelector",
    "pathNormalization",
    "policies",
    "rootNamespace",
    "scope",
    "serviceEntryVisibility",
    "serviceScopeConfigs",
    "servicesSelector",
    "tcpKeepalive",
    "trustDomain",
    "trustDomainAliases",
    "visibility",
];

/// The proxy configuration.
const DEFAULT_CONFIG: &str = "defaultConfig";

fn key() -> ObjectKey {
    ObjectKey::new(defaults::ROOT_NAMESPACE, CONFIG_MAP_NAME)
}

pub(super) fn config_map_meta(map: &Map<String, Value>) -> Meta {
    lenient(key(), map)
}

/// The row of a mesh ConfigMap from the value of its `data.mesh`, or from the reason why
/// that is no YAML.
pub fn mesh_config(meta: Meta, value: Result<&Value, String>) -> Object {
    let map = Map::new();
    let doc = Doc::new(Kind::MeshConfig, meta, &map, None);
    Object::MeshConfig(doc.row(|doc| match value {
        Ok(value) => body(doc, value, "data.mesh"),
        Err(reason) => Err(invalid("data.mesh", reason)),
    }))
}

/// A bare document: fields beside `kind`, or under `spec`.
pub(super) fn bare(map: &Map<String, Value>) -> Object {
    let meta = lenient(key(), map);
    let doc = Doc::new(Kind::MeshConfig, meta, map, None);
    Object::MeshConfig(doc.row(|doc| {
        if let Some(spec) = map.get("spec") {
            body(doc, spec, "spec")
        } else {
            let header = |key: &String| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata");
            let fields = map
                .iter()
                .filter(|(key, _)| header(key))
                .map(|(k, v)| (k.clone(), v.clone()));
            body(doc, &Value::Object(fields.collect()), "")
        }
    }))
}

fn body(doc: &mut Doc<'_>, value: &Value, prefix: &str) -> Result<MeshConfig, Invalid> {
    let empty = Value::Object(Map::new());
    let value = if value.is_null() { &empty } else { value };
    let mut not_applied = Vec::new();
    // Read apart from the rest, so that a bad one costs itself alone.
    let traffic = TrafficWire::deserialize(value)
        .map_err(|error| invalid(prefix, super::clip(&error.to_string())))?;
    let wire: MeshWire = doc.fields(value, prefix, FIELDS, |path| {
        let word = path
            .strip_prefix(prefix)
            .unwrap_or(path)
            .trim_start_matches('.');
        let word = provider::camel(word);
        let word = word.as_str();
        if word == DEFAULT_CONFIG || traffic::SETTINGS.contains(&word) {
            return true;
        }
        if NOT_APPLIED.contains(&word) {
            not_applied.push(path.to_owned());
            return true;
        }
        WITHOUT_EFFECT.contains(&word)
    })?;
    for path in not_applied {
        doc.note(
            "field-not-applied",
            Severity::Warning,
            path,
            "This version does not apply this mesh setting; the default stays",
            "Remove it, or do not rely on it",
        );
    }
    let at = |field: &str| {
        if prefix.is_empty() {
            field.to_owned()
        } else {
            format!("{prefix}.{field}")
        }
    };
    let text = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Str::from);
    let mut config = MeshConfig {
        trust_domain: text(wire.trust_domain),
        trust_domain_aliases: strs(wire.trust_domain_aliases.unwrap_or_default()),
        root_namespace: text(wire.root_namespace),
        discovery_selectors: scope::discovery_selectors(
            doc,
            &at("discoverySelectors"),
            wire.discovery_selectors.unwrap_or_default(),
        ),
        entry_visibility: wire
            .service_entry_visibility
            .map(|wire| scope::entry_visibility(doc, &at("serviceEntryVisibility"), wire)),
        service_scopes: wire
            .service_scope_configs
            .map(|wires| scope::service_scopes(doc, &at("serviceScopeConfigs"), wires)),
        ..MeshConfig::default()
    };
    traffic::read(doc, &at, traffic, &mut config);
    config.default_config = default_config(doc, &at(DEFAULT_CONFIG), value);
    Ok(config)
}

/// The proxy configuration, of which only the deployments of gateways know what it says.
fn default_config(doc: &mut Doc<'_>, field: &str, value: &Value) -> Map<String, Value> {
    let written = value.as_object().and_then(|map| {
        let mut fields = map.iter();
        fields.find(|(key, _)| provider::camel(key) == DEFAULT_CONFIG)
    });
    match written {
        None | Some((_, Value::Null)) => Map::new(),
        Some((_, Value::Object(map))) => {
            let set = map.iter().filter(|(_, value)| !value.is_null());
            set.map(|(key, value)| (provider::camel(key), value.clone()))
                .collect()
        }
        Some(_) => {
            doc.note(
                "mesh-setting-invalid",
                Severity::Error,
                field,
                "It is no mapping; deployed gateways are given the default",
                "Write a mapping of fields of ProxyConfig",
            );
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests;
