//! AuthorizationPolicy as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Words to suggest for a misspelt field.
pub(super) const POLICY_FIELDS: &[&str] = &[
    "action",
    "from",
    "group",
    "hosts",
    "ipBlocks",
    "key",
    "kind",
    "matchLabels",
    "methods",
    "name",
    "namespace",
    "namespaces",
    "notHosts",
    "notIpBlocks",
    "notMethods",
    "notNamespaces",
    "notPaths",
    "notPorts",
    "notPrincipals",
    "notRemoteIpBlocks",
    "notRequestPrincipals",
    "notServiceAccounts",
    "notTrustDomains",
    "notValues",
    "operation",
    "paths",
    "ports",
    "principals",
    "provider",
    "remoteIpBlocks",
    "requestPrincipals",
    "rules",
    "selector",
    "serviceAccounts",
    "source",
    "targetRef",
    "targetRefs",
    "to",
    "trustDomains",
    "values",
    "when",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyWire {
    pub(super) selector: Option<SelectorWire>,
    pub(super) target_ref: Option<TargetWire>,
    pub(super) target_refs: Option<Vec<TargetWire>>,
    pub(super) action: Option<String>,
    pub(super) provider: Option<ProviderWire>,
    pub(super) rules: Option<Vec<RuleWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct SelectorWire {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct TargetWire {
    pub(super) group: Option<String>,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ProviderWire {
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RuleWire {
    pub(super) from: Option<Vec<FromWire>>,
    pub(super) to: Option<Vec<ToWire>>,
    pub(super) when: Option<Vec<WhenWire>>,
}

#[derive(Deserialize)]
pub(super) struct FromWire {
    pub(super) source: Option<SourceWire>,
}

#[derive(Deserialize)]
pub(super) struct ToWire {
    pub(super) operation: Option<OperationWire>,
}

pub(super) type List = Option<Vec<String>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceWire {
    pub(super) principals: List,
    pub(super) not_principals: List,
    pub(super) request_principals: List,
    pub(super) not_request_principals: List,
    pub(super) namespaces: List,
    pub(super) not_namespaces: List,
    pub(super) service_accounts: List,
    pub(super) not_service_accounts: List,
    pub(super) trust_domains: List,
    pub(super) not_trust_domains: List,
    pub(super) ip_blocks: List,
    pub(super) not_ip_blocks: List,
    pub(super) remote_ip_blocks: List,
    pub(super) not_remote_ip_blocks: List,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OperationWire {
    pub(super) hosts: List,
    pub(super) not_hosts: List,
    pub(super) ports: List,
    pub(super) not_ports: List,
    pub(super) methods: List,
    pub(super) not_methods: List,
    pub(super) paths: List,
    pub(super) not_paths: List,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WhenWire {
    pub(super) key: String,
    pub(super) values: List,
    pub(super) not_values: List,
}
