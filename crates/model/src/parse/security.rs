//! security.istio.io kinds. What validation would refuse is invalid here: a policy
//! must never apply to less, or allow more, than it says.
//!
//! Source: spec/policy-and-traffic.md §9.1, §9.2.

mod peer;
mod values;
mod wire;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::Str;
use crate::finding::Severity;
use crate::input::{
    Action, AuthorizationPolicy, AuthzOperation, AuthzRule, AuthzSource, TargetRef, Values,
};
use crate::labels::ANNOTATION_DRY_RUN;
use crate::object::{Invalid, Labels, Parsed};

use super::read::{Doc, at_most, invalid, labels};
use values::values;
use wire::{
    FromWire, OperationWire, POLICY_FIELDS, PolicyWire, ProviderWire, RuleWire, SourceWire, ToWire,
    WhenWire,
};

pub(super) use peer::peer_authentication;
pub(super) use wire::{SelectorWire, TargetWire};

// Limits of the API. Source: spec/policy-and-traffic.md §9.1, §9.2.
const TARGETS_COUNT_MAX: usize = 16;
const RULES_COUNT_MAX: usize = 512;
const FROM_COUNT_MAX: usize = 512;
const SERVICE_ACCOUNTS_COUNT_MAX: usize = 16;
const LABELS_COUNT_MAX: usize = 4_096;
const LABEL_VALUE_CHARS_MAX: usize = 63;

/// What a policy can be attached to: kind and group.
const TARGETS: [(&str, &str); 4] = [
    ("Gateway", super::gateway::GROUP),
    ("GatewayClass", super::gateway::GROUP),
    ("Service", ""),
    ("ServiceEntry", "networking.istio.io"),
];

pub(super) fn authorization_policy(doc: Doc<'_>) -> Arc<Parsed<AuthorizationPolicy>> {
    doc.row(|doc| {
        let spec: PolicyWire = doc.spec(POLICY_FIELDS, |_| false)?;
        let action = action(spec.action.as_deref())?;
        let selector = selector(spec.selector)?;
        let targets = targets(spec.target_ref, spec.target_refs)?;
        if selector.is_some() && !targets.is_empty() {
            return Err(invalid(
                "spec.selector",
                "a policy has either a selector or targetRefs",
            ));
        }
        let wire_rules = spec.rules.unwrap_or_default();
        if wire_rules.is_empty() && matches!(action, Action::Deny | Action::Custom) {
            return Err(invalid(
                "spec.rules",
                "a DENY or CUSTOM policy without rules does nothing; at least one is required",
            ));
        }
        at_most(&wire_rules, RULES_COUNT_MAX, "spec.rules")?;
        let mut rules = Vec::with_capacity(wire_rules.len());
        for (i, wire) in wire_rules.into_iter().enumerate() {
            let at = format!("spec.rules[{i}]");
            let rule = rule(&at, wire)?;
            if action == Action::Custom {
                no_identities(&at, &rule)?;
            }
            rules.push(rule);
        }
        let provider = provider(spec.provider, action)?;
        let dry_run = dry_run(doc, action)?;
        note_selector(doc, selector.as_ref());
        Ok(AuthorizationPolicy {
            selector,
            targets,
            action,
            provider,
            rules,
            dry_run,
        })
    })
}

fn action(word: Option<&str>) -> Result<Action, Invalid> {
    match word {
        None | Some("" | "ALLOW") => Ok(Action::Allow),
        Some("DENY") => Ok(Action::Deny),
        Some("AUDIT") => Ok(Action::Audit),
        Some("CUSTOM") => Ok(Action::Custom),
        Some(word) => Err(unknown_word(
            "spec.action",
            word,
            "ALLOW, DENY, AUDIT or CUSTOM",
        )),
    }
}

fn provider(wire: Option<ProviderWire>, action: Action) -> Result<Option<Str>, Invalid> {
    match (wire, action) {
        (None, Action::Custom) => Err(invalid("spec.provider", "a CUSTOM policy must name one")),
        (Some(wire), Action::Custom) => match wire.name.filter(|name| !name.is_empty()) {
            Some(name) => Ok(Some(Str::from(name))),
            None => Err(invalid("spec.provider.name", "missing or empty")),
        },
        (Some(_), _) => Err(invalid(
            "spec.provider",
            "only a CUSTOM policy has a provider",
        )),
        (None, _) => Ok(None),
    }
}

/// Labels of a selector.
pub(super) fn selector(wire: Option<SelectorWire>) -> Result<Option<Labels>, Invalid> {
    const FIELD: &str = "spec.selector.matchLabels";
    let Some(wire) = wire else {
        return Ok(None);
    };
    let labels = labels(wire.match_labels.into_iter().flatten());
    if labels.len() > LABELS_COUNT_MAX {
        return Err(invalid(
            FIELD,
            arcstr::format!("more than {LABELS_COUNT_MAX} labels"),
        ));
    }
    for (key, value) in &labels {
        let reason = if key.is_empty() {
            "a label without a key"
        } else if key.contains('*') || value.contains('*') {
            "a selector takes no *; it is compared as it is written"
        } else if value.chars().count() > LABEL_VALUE_CHARS_MAX {
            "longer than 63 characters"
        } else {
            continue;
        };
        let field = arcstr::format!("{FIELD}.{}", super::clip(key));
        return Err(invalid(field, reason));
    }
    Ok(Some(labels))
}

/// A selector without labels is legal but hardly what was meant.
pub(super) fn note_selector(doc: &mut Doc<'_>, selector: Option<&Labels>) {
    if selector.is_some_and(Labels::is_empty) {
        doc.note(
            "field-not-applied",
            Severity::Warning,
            "spec.selector",
            "This selector names no labels, so it selects every workload as if it were left out",
            "Leave it out, or name labels under matchLabels",
        );
    }
}

fn unknown_word(field: impl Into<Str>, word: &str, words: &str) -> Invalid {
    let word = super::clip(word);
    invalid(field, arcstr::format!("{word:?} is not {words}"))
}

// === Targets ===

pub(super) fn targets(
    single: Option<TargetWire>,
    list: Option<Vec<TargetWire>>,
) -> Result<Vec<TargetRef>, Invalid> {
    let list = list.unwrap_or_default();
    match single {
        Some(_) if !list.is_empty() => Err(invalid(
            "spec.targetRef",
            "a policy has either targetRef or targetRefs",
        )),
        Some(wire) => Ok(vec![target("spec.targetRef", wire)?]),
        None => {
            at_most(&list, TARGETS_COUNT_MAX, "spec.targetRefs")?;
            list.into_iter()
                .enumerate()
                .map(|(i, wire)| target(&format!("spec.targetRefs[{i}]"), wire))
                .collect()
        }
    }
}

fn target(at: &str, wire: TargetWire) -> Result<TargetRef, Invalid> {
    if wire.kind.is_empty() || wire.name.is_empty() {
        return Err(invalid(at, "kind and name are required"));
    }
    if wire.namespace.is_some_and(|ns| !ns.is_empty()) {
        return Err(invalid(
            format!("{at}.namespace"),
            "a policy can only be attached in its own namespace; leave this out",
        ));
    }
    let group = wire.group.filter(|group| group != "core");
    let group = group.unwrap_or_default();
    let of_kind = TARGETS.iter().find(|(kind, _)| *kind == wire.kind);
    match of_kind {
        Some((_, known)) if *known == group => Ok(TargetRef {
            group: Str::from(group),
            kind: Str::from(wire.kind),
            name: Str::from(wire.name),
            ns: None,
        }),
        Some((kind, known)) => Err(invalid(
            format!("{at}.group"),
            arcstr::format!("{kind} is a kind of group {known:?}"),
        )),
        None => Err(unknown_word(
            format!("{at}.kind"),
            &wire.kind,
            "Gateway, GatewayClass, Service or ServiceEntry",
        )),
    }
}

/// The targets of a security object that cannot be read, as far as they can: it must not be
/// forgotten where it is clear what it was meant for.
pub(super) fn targets_of_unreadable(object: &Map<String, Value>, ns: &str) -> Vec<TargetRef> {
    let spec = object.get("spec").and_then(Value::as_object);
    let list = spec.and_then(|spec| spec.get("targetRefs"));
    let list = list.and_then(Value::as_array).into_iter().flatten();
    let single = spec.and_then(|spec| spec.get("targetRef"));
    let read = list.chain(single).filter_map(|value| {
        let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        // An object has no say in other namespaces, and need not write its own.
        if text("namespace").is_some_and(|other| !other.is_empty() && other != ns) {
            return None;
        }
        let wire = TargetWire {
            group: text("group"),
            kind: text("kind")?,
            name: text("name")?,
            namespace: None,
        };
        target("", wire).ok()
    });
    read.collect()
}

// === Rules ===

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
    let from = wire.from.unwrap_or_default();
    at_most(&from, FROM_COUNT_MAX, &format!("{at}.from"))?;
    let from = from.into_iter().enumerate();
    let to = wire.to.into_iter().flatten().enumerate();
    let when = wire.when.into_iter().flatten().enumerate();
    Ok(AuthzRule {
        from: from
            .map(|(i, wire)| source(&format!("{at}.from[{i}].source"), wire))
            .collect::<Result<_, _>>()?,
        to: to
            .map(|(i, wire)| operation(&format!("{at}.to[{i}].operation"), wire))
            .collect::<Result<_, _>>()?,
        when: when
            .map(|(i, wire)| condition(&format!("{at}.when[{i}]"), wire))
            .collect::<Result<_, _>>()?,
    })
}

fn source(at: &str, wire: FromWire) -> Result<AuthzSource, Invalid> {
    let wire = wire.source.ok_or_else(|| invalid(at, "missing or empty"))?;
    accounts_alone(at, &wire)?;
    let texts = |names, lists| values(at, names, lists, values::text);
    let blocks = |names, lists| values(at, names, lists, values::block);
    let out = AuthzSource {
        principals: texts(
            ("principals", "notPrincipals"),
            (wire.principals, wire.not_principals),
        )?,
        request_principals: texts(
            ("requestPrincipals", "notRequestPrincipals"),
            (wire.request_principals, wire.not_request_principals),
        )?,
        namespaces: texts(
            ("namespaces", "notNamespaces"),
            (wire.namespaces, wire.not_namespaces),
        )?,
        service_accounts: values(
            at,
            ("serviceAccounts", "notServiceAccounts"),
            (wire.service_accounts, wire.not_service_accounts),
            values::service_account,
        )?,
        trust_domains: values(
            at,
            ("trustDomains", "notTrustDomains"),
            (wire.trust_domains, wire.not_trust_domains),
            values::trust_domain,
        )?,
        ip_blocks: blocks(
            ("ipBlocks", "notIpBlocks"),
            (wire.ip_blocks, wire.not_ip_blocks),
        )?,
        remote_ip_blocks: blocks(
            ("remoteIpBlocks", "notRemoteIpBlocks"),
            (wire.remote_ip_blocks, wire.not_remote_ip_blocks),
        )?,
    };
    if out == AuthzSource::default() {
        return Err(invalid(at, "a source without any condition"));
    }
    Ok(out)
}

/// Service accounts come with neither namespaces nor principals, and are few.
fn accounts_alone(at: &str, wire: &SourceWire) -> Result<(), Invalid> {
    let lists = [
        ("serviceAccounts", &wire.service_accounts),
        ("notServiceAccounts", &wire.not_service_accounts),
    ];
    let others = wire.principals.is_some()
        || wire.not_principals.is_some()
        || wire.namespaces.is_some()
        || wire.not_namespaces.is_some();
    for (name, list) in lists {
        let Some(list) = list else { continue };
        let field = format!("{at}.{name}");
        if others {
            return Err(invalid(
                field,
                "service accounts cannot be combined with namespaces or principals",
            ));
        }
        at_most(list, SERVICE_ACCOUNTS_COUNT_MAX, &field)?;
    }
    Ok(())
}

fn operation(at: &str, wire: ToWire) -> Result<AuthzOperation, Invalid> {
    let OperationWire {
        hosts,
        not_hosts,
        ports,
        not_ports,
        methods,
        not_methods,
        paths,
        not_paths,
    } = wire
        .operation
        .ok_or_else(|| invalid(at, "missing or empty"))?;
    let list = |names, lists, check| values(at, names, lists, check);
    let out = AuthzOperation {
        hosts: list(("hosts", "notHosts"), (hosts, not_hosts), values::text)?,
        ports: list(("ports", "notPorts"), (ports, not_ports), values::port)?,
        methods: list(
            ("methods", "notMethods"),
            (methods, not_methods),
            values::text,
        )?,
        paths: list(("paths", "notPaths"), (paths, not_paths), values::path)?,
    };
    if out == AuthzOperation::default() {
        return Err(invalid(at, "an operation without any condition"));
    }
    Ok(out)
}

fn condition(at: &str, wire: WhenWire) -> Result<(Str, Values), Invalid> {
    let check =
        values::check_of_key(&wire.key).map_err(|reason| invalid(format!("{at}.key"), reason))?;
    let lists = (wire.values, wire.not_values);
    let out = values(at, ("values", "notValues"), lists, check)?;
    if out.is_empty() {
        return Err(invalid(at, "neither values nor notValues"));
    }
    Ok((Str::from(wire.key), out))
}

/// A CUSTOM rule decides who is asked for leave, before anybody's identity is judged.
fn no_identities(at: &str, rule: &AuthzRule) -> Result<(), Invalid> {
    const REASON: &str = "a CUSTOM policy cannot use identities";
    for (i, from) in rule.from.iter().enumerate() {
        for (list, name, not_name) in [
            (&from.namespaces, "namespaces", "notNamespaces"),
            (
                &from.service_accounts,
                "serviceAccounts",
                "notServiceAccounts",
            ),
            (&from.trust_domains, "trustDomains", "notTrustDomains"),
            (&from.principals, "principals", "notPrincipals"),
            (
                &from.request_principals,
                "requestPrincipals",
                "notRequestPrincipals",
            ),
        ] {
            if list.is_empty() {
                continue;
            }
            let name = if list.values.is_empty() {
                not_name
            } else {
                name
            };
            return Err(invalid(format!("{at}.from[{i}].source.{name}"), REASON));
        }
    }
    let identity = |key: &str| {
        key.starts_with("request.auth.")
            || matches!(
                key,
                "source.namespace"
                    | "source.serviceAccount"
                    | "source.trustDomain"
                    | "source.principal"
            )
    };
    match rule.when.iter().position(|(key, _)| identity(key)) {
        Some(i) => Err(invalid(format!("{at}.when[{i}].key"), REASON)),
        None => Ok(()),
    }
}

// === Dry run ===

pub(super) fn dry_run_field() -> Str {
    arcstr::format!("metadata.annotations[{ANNOTATION_DRY_RUN}]")
}

/// The annotation as Go's `ParseBool` reads it.
fn dry_run(doc: &mut Doc<'_>, action: Action) -> Result<bool, Invalid> {
    let Some(text) = doc.meta.annotation(ANNOTATION_DRY_RUN) else {
        return Ok(false);
    };
    if !matches!(action, Action::Allow | Action::Deny) {
        return Err(invalid(
            dry_run_field(),
            "only ALLOW and DENY policies can be tried out",
        ));
    }
    match text.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            doc.note(
                "authz-value-invalid",
                Severity::Error,
                dry_run_field(),
                "The annotation is neither true nor false, so the policy is enforced",
                "Write true or false, or remove it",
            );
            Ok(false)
        }
    }
}
