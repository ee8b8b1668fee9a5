//! Which namespaces the mesh has, who sees the ServiceEntries of which namespace, and which
//! Services other networks reach.
//! Source: spec/workload-discovery.md §3.5, §4.5, spec/control-plane.md §5.5, §8.6.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Str;
use crate::derived::{EntryVisibility, Visibility};
use crate::finding::Severity;
use crate::input::{LabelSelector, ServiceScope};

use super::super::read::{Doc, labels, strs};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SelectorWire {
    #[serde(alias = "match_labels")]
    match_labels: Option<BTreeMap<String, String>>,
    #[serde(alias = "match_expressions")]
    match_expressions: Option<Vec<ExpressionWire>>,
}

#[derive(Deserialize)]
struct ExpressionWire {
    key: Option<String>,
    operator: Option<String>,
    values: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VisibilityWire {
    #[serde(alias = "default_visibility")]
    default_visibility: Option<String>,
    #[serde(alias = "apply_to_sidecars")]
    apply_to_sidecars: Option<bool>,
    policies: Option<Vec<PolicyWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyWire {
    visibility: Option<String>,
    #[serde(alias = "matching_rules")]
    matching_rules: Option<Vec<RuleWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleWire {
    #[serde(alias = "namespace_selector")]
    namespace_selector: Option<SelectorWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScopeWire {
    #[serde(alias = "namespace_selector")]
    namespace_selector: Option<SelectorWire>,
    #[serde(alias = "services_selector")]
    services_selector: Option<SelectorWire>,
    scope: Option<String>,
}

/// The scopes. One that cannot be read opens nothing.
pub(super) fn service_scopes(
    doc: &mut Doc<'_>,
    at: &str,
    wires: Vec<ScopeWire>,
) -> Vec<ServiceScope> {
    let mut scopes = Vec::new();
    for (i, wire) in wires.into_iter().enumerate() {
        let read = || {
            let is_global = match wire.scope.as_deref() {
                None | Some("" | "LOCAL") => false,
                Some("GLOBAL") => true,
                Some(word) => return Err(arcstr::format!("{word:?} is not LOCAL or GLOBAL")),
            };
            Ok(ServiceScope {
                namespaces: wire.namespace_selector.map(selector).transpose()?,
                services: wire.services_selector.map(selector).transpose()?,
                is_global,
            })
        };
        match read() {
            Ok(scope) => scopes.push(scope),
            Err(reason) => doc.note(
                "mesh-selector-invalid",
                Severity::Error,
                format!("{at}[{i}]"),
                arcstr::format!("{reason}; the entry opens no Service to other networks"),
                "Correct the entry",
            ),
        }
    }
    scopes
}

/// The selectors; all of them are dropped when one is invalid, for the namespaces that it was
/// meant to admit would lose their workloads.
pub(super) fn discovery_selectors(
    doc: &mut Doc<'_>,
    at: &str,
    wires: Vec<SelectorWire>,
) -> Vec<LabelSelector> {
    let mut selectors = Vec::new();
    for (i, wire) in wires.into_iter().enumerate() {
        match selector(wire) {
            Ok(selector) => selectors.push(selector),
            Err(reason) => {
                doc.note(
                    "mesh-selector-invalid",
                    Severity::Error,
                    format!("{at}[{i}]"),
                    arcstr::format!("{reason}; no selector is applied and every namespace counts"),
                    "Correct the selector",
                );
                return Vec::new();
            }
        }
    }
    selectors
}

/// Visibility settings. A rule that cannot be read makes its policy match nothing.
pub(super) fn entry_visibility(
    doc: &mut Doc<'_>,
    at: &str,
    wire: VisibilityWire,
) -> EntryVisibility {
    if wire.apply_to_sidecars == Some(true) {
        let effect =
            "it concerns sidecars and gateways, ztunnel and waypoints always honour visibility";
        doc.not_applied(format!("{at}.applyToSidecars"), effect);
    }
    let default = visibility(
        doc,
        format!("{at}.defaultVisibility"),
        wire.default_visibility,
    );
    let mut policies = Vec::new();
    for (i, policy) in wire.policies.into_iter().flatten().enumerate() {
        let at = format!("{at}.policies[{i}]");
        let outcome = visibility(doc, format!("{at}.visibility"), policy.visibility);
        let mut rules = Vec::new();
        for (j, rule) in policy.matching_rules.into_iter().flatten().enumerate() {
            let read = rule
                .namespace_selector
                .ok_or_else(|| Str::from("The rule has no namespaceSelector"))
                .and_then(selector);
            if let Err(reason) = &read {
                doc.note(
                    "mesh-selector-invalid",
                    Severity::Error,
                    format!("{at}.matchingRules[{j}]"),
                    arcstr::format!("{reason}; the policy matches no namespace"),
                    "Correct the rule",
                );
            }
            rules.push(read.ok());
        }
        policies.push((rules, outcome));
    }
    EntryVisibility { default, policies }
}

/// A word, PUBLIC when unset; one that nobody knows hides as much as a namespace does.
fn visibility(doc: &mut Doc<'_>, field: String, word: Option<String>) -> Visibility {
    match word.as_deref() {
        None | Some("" | "UNSPECIFIED" | "VISIBILITY_UNSPECIFIED" | "PUBLIC") => Visibility::Public,
        Some("NAMESPACE") => Visibility::Namespace,
        Some("NONE") => Visibility::None,
        Some(word) => {
            doc.note(
                "mesh-visibility-unknown",
                Severity::Error,
                field,
                arcstr::format!("{word:?} is not PUBLIC, NAMESPACE or NONE; NAMESPACE is assumed"),
                "Write one of the three",
            );
            Visibility::Namespace
        }
    }
}

/// The selector, or what is wrong with it.
fn selector(wire: SelectorWire) -> Result<LabelSelector, Str> {
    let mut expressions = Vec::new();
    for expression in wire.match_expressions.into_iter().flatten() {
        let key = expression.key.unwrap_or_default();
        let operator = expression.operator.unwrap_or_default();
        let values = expression.values.unwrap_or_default();
        let is_valid = match operator.as_str() {
            "In" | "NotIn" => !values.is_empty(),
            "Exists" | "DoesNotExist" => values.is_empty(),
            _ => {
                return Err(arcstr::format!(
                    "{operator:?} is not In, NotIn, Exists or DoesNotExist"
                ));
            }
        };
        if key.is_empty() || !is_valid {
            return Err(arcstr::format!(
                "The requirement {operator} on {key:?} lacks its key, lacks values or has too many"
            ));
        }
        expressions.push((Str::from(key), Str::from(operator), strs(values)));
    }
    Ok(LabelSelector {
        match_labels: labels(wire.match_labels.into_iter().flatten()),
        match_expressions: expressions,
    })
}
