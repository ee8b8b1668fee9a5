//! Claims about the scope settings of mesh config.

#![allow(clippy::panic)]

use serde_json::{Value, json};

use super::bare;
use crate::Str;
use crate::derived::{EntryVisibility, Visibility};
use crate::input::{LabelSelector, MeshConfig};
use crate::object::{Labels, Object};

/// The config and `code field` of its notes.
fn read(fields: &Value) -> (MeshConfig, Vec<String>) {
    let Value::Object(map) = fields else { panic!() };
    let Object::MeshConfig(row) = bare(map) else {
        panic!()
    };
    let notes = row.notes.iter().map(|n| format!("{} {}", n.code, n.field));
    let Ok(config) = row.body.clone() else {
        panic!("{row:?}")
    };
    (config, notes.collect())
}

fn selector(labels: &[(&str, &str)], expressions: &[(&str, &str, &[&str])]) -> LabelSelector {
    let text = |text: &str| Str::from(text);
    LabelSelector {
        match_labels: labels
            .iter()
            .map(|(k, v)| (text(k), text(v)))
            .collect::<Labels>(),
        match_expressions: expressions
            .iter()
            .map(|(key, operator, values)| {
                let values = values.iter().map(|value| text(value)).collect();
                (text(key), text(operator), values)
            })
            .collect(),
    }
}

#[test]
fn visibility_and_selectors_are_read_whole() {
    let (config, notes) = read(&json!({
        "discoverySelectors": [
            {"matchLabels": {"mesh": "on"}},
            {"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["dev"]}]},
        ],
        "serviceEntryVisibility": {
            "defaultVisibility": "NAMESPACE",
            "applyToSidecars": false,
            "policies": [
                {"visibility": "NONE", "matchingRules": [
                    {"namespaceSelector": {"matchLabels": {"a": "b"}}},
                    {"namespaceSelector": {"matchExpressions": [{"key": "c", "operator": "Exists"}]}},
                ]},
                {"visibility": "PUBLIC"},
            ],
        },
    }));
    let expected = MeshConfig {
        discovery_selectors: vec![
            selector(&[("mesh", "on")], &[]),
            selector(&[], &[("env", "NotIn", &["dev"])]),
        ],
        entry_visibility: Some(EntryVisibility {
            default: Visibility::Namespace,
            policies: vec![
                (
                    vec![
                        Some(selector(&[("a", "b")], &[])),
                        Some(selector(&[], &[("c", "Exists", &[])])),
                    ],
                    Visibility::None,
                ),
                (Vec::new(), Visibility::Public),
            ],
        }),
        ..MeshConfig::default()
    };
    assert_eq!((config, notes), (expected, Vec::new()));
}

#[test]
fn what_cannot_be_read_of_visibility_narrows_and_is_noted() {
    let (config, notes) = read(&json!({"serviceEntryVisibility": {
        "defaultVisibility": "PRIVATE",
        "applyToSidecars": true,
        "policies": [{"visibility": "PUBLIC", "matchingRules": [
            {"namespaceSelector": {"matchExpressions": [{"key": "c", "operator": "In"}]}},
            {"podSelector": {}},
        ]}],
    }}));
    let expected = EntryVisibility {
        default: Visibility::Namespace,
        policies: vec![(vec![None, None], Visibility::Public)],
    };
    assert_eq!(config.entry_visibility, Some(expected));
    assert_eq!(
        notes,
        [
            "unknown-field serviceEntryVisibility.policies[0].matchingRules[1].podSelector",
            "field-not-applied serviceEntryVisibility.applyToSidecars",
            "mesh-visibility-unknown serviceEntryVisibility.defaultVisibility",
            "mesh-selector-invalid serviceEntryVisibility.policies[0].matchingRules[0]",
            "mesh-selector-invalid serviceEntryVisibility.policies[0].matchingRules[1]",
        ]
    );
}

#[test]
fn one_invalid_discovery_selector_voids_them_all() {
    let bad = [
        json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        json!({"matchExpressions": [{"operator": "Exists"}]}),
    ];
    for bad in bad {
        let good = json!({"matchLabels": {"mesh": "on"}});
        let (config, notes) = read(&json!({"discoverySelectors": [good, bad]}));
        assert_eq!(config.discovery_selectors, [], "{bad}");
        assert_eq!(notes, ["mesh-selector-invalid discoverySelectors[1]"]);
    }
}
