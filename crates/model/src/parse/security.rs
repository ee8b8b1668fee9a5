//! security.istio.io kinds. What validation would refuse is invalid here: a policy
//! must never apply to less, or allow more, than it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::Str;
use crate::finding::Severity;
use crate::input::{
    Action, AuthorizationPolicy, AuthzOperation, AuthzRule, AuthzSource, MtlsMode,
    PeerAuthentication, TargetRef, Values,
};
use crate::labels::ANNOTATION_DRY_RUN;
use crate::object::{Invalid, Labels, Parsed};

use super::read::{Doc, at_most, invalid, labels, port, strs};

const TARGETS_COUNT_MAX: usize = 16;

const POLICY_FIELDS: &[&str] = &[
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
struct PolicyWire {
    selector: Option<SelectorWire>,
    target_ref: Option<TargetWire>,
    target_refs: Option<Vec<TargetWire>>,
    action: Option<String>,
    provider: Option<ProviderWire>,
    rules: Option<Vec<RuleWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectorWire {
    match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct TargetWire {
    group: Option<String>,
    kind: String,
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct ProviderWire {
    name: Option<String>,
}

#[derive(Deserialize)]
struct RuleWire {
    from: Option<Vec<FromWire>>,
    to: Option<Vec<ToWire>>,
    when: Option<Vec<WhenWire>>,
}

#[derive(Deserialize)]
struct FromWire {
    source: Option<SourceWire>,
}

#[derive(Deserialize)]
struct ToWire {
    operation: Option<OperationWire>,
}

type List = Option<Vec<String>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceWire {
    principals: List,
    not_principals: List,
    request_principals: List,
    not_request_principals: List,
    namespaces: List,
    not_namespaces: List,
    service_accounts: List,
    not_service_accounts: List,
    trust_domains: List,
    not_trust_domains: List,
    ip_blocks: List,
    not_ip_blocks: List,
    remote_ip_blocks: List,
    not_remote_ip_blocks: List,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OperationWire {
    hosts: List,
    not_hosts: List,
    ports: List,
    not_ports: List,
    methods: List,
    not_methods: List,
    paths: List,
    not_paths: List,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WhenWire {
    key: String,
    values: List,
    not_values: List,
}

// === AuthorizationPolicy ===

pub(super) fn authorization_policy(doc: Doc<'_>) -> Arc<Parsed<AuthorizationPolicy>> {
    doc.row(|doc| {
        let spec: PolicyWire = doc.spec(POLICY_FIELDS, |_| false)?;
        let action = match spec.action.as_deref() {
            None | Some("" | "ALLOW") => Action::Allow,
            Some("DENY") => Action::Deny,
            Some("AUDIT") => Action::Audit,
            Some("CUSTOM") => Action::Custom,
            Some(word) => {
                return Err(unknown_word(
                    "spec.action",
                    word,
                    "ALLOW, DENY, AUDIT or CUSTOM",
                ));
            }
        };
        let selector = spec.selector.map(match_labels);
        let targets = targets(spec.target_ref, spec.target_refs)?;
        if selector.is_some() && !targets.is_empty() {
            return Err(invalid(
                "spec.selector",
                "a policy has either a selector or targetRefs",
            ));
        }
        let rules = spec.rules.unwrap_or_default().into_iter().enumerate();
        Ok(AuthorizationPolicy {
            selector,
            targets,
            action,
            provider: spec
                .provider
                .and_then(|p| p.name)
                .filter(|name| !name.is_empty())
                .map(Str::from),
            rules: rules
                .map(|(i, wire)| rule(&format!("spec.rules[{i}]"), wire))
                .collect::<Result<_, _>>()?,
            dry_run: dry_run(doc),
        })
    })
}

fn match_labels(wire: SelectorWire) -> Labels {
    labels(wire.match_labels.into_iter().flatten())
}

fn unknown_word(field: impl Into<Str>, word: &str, words: &str) -> Invalid {
    invalid(field, arcstr::format!("{word:?} is not {words}"))
}

fn targets(
    single: Option<TargetWire>,
    list: Option<Vec<TargetWire>>,
) -> Result<Vec<TargetRef>, Invalid> {
    let list = list.unwrap_or_default();
    if single.is_some() && !list.is_empty() {
        return Err(invalid(
            "spec.targetRef",
            "a policy has either targetRef or targetRefs",
        ));
    }
    at_most(&list, TARGETS_COUNT_MAX, "spec.targetRefs")?;
    single
        .into_iter()
        .chain(list)
        .enumerate()
        .map(|(i, wire)| target(i, wire))
        .collect()
}

fn target(i: usize, wire: TargetWire) -> Result<TargetRef, Invalid> {
    if wire.kind.is_empty() || wire.name.is_empty() {
        return Err(invalid(
            format!("spec.targetRefs[{i}]"),
            "kind and name are required",
        ));
    }
    let group = wire.group.as_deref().filter(|group| *group != "core");
    Ok(TargetRef {
        group: Str::from(group.unwrap_or_default()),
        kind: Str::from(wire.kind),
        name: Str::from(wire.name),
        ns: wire.namespace.filter(|ns| !ns.is_empty()).map(Str::from),
    })
}

fn rule(at: &str, wire: RuleWire) -> Result<AuthzRule, Invalid> {
    // An empty list would read as "no condition", which allows more than a list that lost
    // its last entry was meant to.
    for (field, empty) in [
        ("from", wire.from.as_ref().is_some_and(Vec::is_empty)),
        ("to", wire.to.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if empty {
            return Err(invalid(
                format!("{at}.{field}"),
                "an empty list; leave it out to match everything",
            ));
        }
    }
    let from = wire.from.into_iter().flatten().enumerate();
    let to = wire.to.into_iter().flatten().enumerate();
    let when = wire.when.into_iter().flatten().enumerate();
    Ok(AuthzRule {
        from: from
            .map(|(i, wire)| source(&format!("{at}.from[{i}]"), wire))
            .collect::<Result<_, _>>()?,
        to: to
            .map(|(i, wire)| operation(&format!("{at}.to[{i}]"), wire))
            .collect::<Result<_, _>>()?,
        when: when
            .map(|(i, wire)| condition(&format!("{at}.when[{i}]"), wire))
            .collect::<Result<_, _>>()?,
    })
}

fn values(values: List, not_values: List) -> Values {
    Values {
        values: strs(values.unwrap_or_default()),
        not_values: strs(not_values.unwrap_or_default()),
    }
}

fn source(at: &str, wire: FromWire) -> Result<AuthzSource, Invalid> {
    let wire = wire
        .source
        .ok_or_else(|| invalid(format!("{at}.source"), "missing or empty"))?;
    let out = AuthzSource {
        principals: values(wire.principals, wire.not_principals),
        request_principals: values(wire.request_principals, wire.not_request_principals),
        namespaces: values(wire.namespaces, wire.not_namespaces),
        service_accounts: values(wire.service_accounts, wire.not_service_accounts),
        trust_domains: values(wire.trust_domains, wire.not_trust_domains),
        ip_blocks: values(wire.ip_blocks, wire.not_ip_blocks),
        remote_ip_blocks: values(wire.remote_ip_blocks, wire.not_remote_ip_blocks),
    };
    if out == AuthzSource::default() {
        return Err(invalid(
            format!("{at}.source"),
            "a source without any condition",
        ));
    }
    Ok(out)
}

fn operation(at: &str, wire: ToWire) -> Result<AuthzOperation, Invalid> {
    let wire = wire
        .operation
        .ok_or_else(|| invalid(format!("{at}.operation"), "missing or empty"))?;
    let out = AuthzOperation {
        hosts: values(wire.hosts, wire.not_hosts),
        ports: values(wire.ports, wire.not_ports),
        methods: values(wire.methods, wire.not_methods),
        paths: values(wire.paths, wire.not_paths),
    };
    if out == AuthzOperation::default() {
        return Err(invalid(
            format!("{at}.operation"),
            "an operation without any condition",
        ));
    }
    Ok(out)
}

fn condition(at: &str, wire: WhenWire) -> Result<(Str, Values), Invalid> {
    let out = values(wire.values, wire.not_values);
    if wire.key.is_empty() {
        return Err(invalid(format!("{at}.key"), "empty"));
    }
    if out.is_empty() {
        return Err(invalid(at, "neither values nor notValues"));
    }
    Ok((Str::from(wire.key), out))
}

/// The annotation as Go's `ParseBool` reads it.
fn dry_run(doc: &mut Doc<'_>) -> bool {
    let Some(text) = doc.meta.annotation(ANNOTATION_DRY_RUN).cloned() else {
        return false;
    };
    match text.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => {
            doc.note(
                "field-not-applied",
                Severity::Warning,
                arcstr::format!("metadata.annotations[{ANNOTATION_DRY_RUN}]"),
                "This is neither true nor false, so the policy is enforced",
                "Write \"true\" or \"false\"",
            );
            false
        }
    }
}

// === PeerAuthentication ===

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeerWire {
    selector: Option<SelectorWire>,
    mtls: Option<MtlsWire>,
    port_level_mtls: Option<BTreeMap<String, MtlsWire>>,
}

#[derive(Deserialize)]
struct MtlsWire {
    mode: Option<String>,
}

pub(super) fn peer_authentication(doc: Doc<'_>) -> Arc<Parsed<PeerAuthentication>> {
    const FIELDS: &[&str] = &["selector", "matchLabels", "mtls", "mode", "portLevelMtls"];
    doc.row(|doc| {
        let spec: PeerWire = doc.spec(FIELDS, |_| false)?;
        let mut ports = BTreeMap::new();
        for (key, wire) in spec.port_level_mtls.into_iter().flatten() {
            let at = format!("spec.portLevelMtls.{key}");
            let number: i64 = key
                .parse()
                .map_err(|_| invalid(at.as_str(), "the key is not a port"))?;
            ports.insert(
                port(number, || at.clone())?,
                mode(&format!("{at}.mode"), Some(wire))?,
            );
        }
        Ok(PeerAuthentication {
            selector: spec
                .selector
                .map(match_labels)
                .filter(|labels| !labels.is_empty()),
            mode: mode("spec.mtls.mode", spec.mtls)?,
            ports,
        })
    })
}

fn mode(field: &str, wire: Option<MtlsWire>) -> Result<MtlsMode, Invalid> {
    match wire.and_then(|wire| wire.mode).as_deref() {
        None | Some("" | "UNSET") => Ok(MtlsMode::Unset),
        Some("DISABLE") => Ok(MtlsMode::Disable),
        Some("PERMISSIVE") => Ok(MtlsMode::Permissive),
        Some("STRICT") => Ok(MtlsMode::Strict),
        Some(word) => Err(unknown_word(
            field,
            word,
            "UNSET, DISABLE, PERMISSIVE or STRICT",
        )),
    }
}
