//! Tables of spec/policy-and-traffic.md §9: each row is a claim, an edit of a good object, and
//! the field that is refused, or a part of the warning.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod extensions;
mod security;
mod traffic;

use super::*;

/// What is to be said of an object.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// It is taken, and nothing is said.
    Fine,
    /// It is refused for this field.
    Reject(&'static str),
    /// It is taken with a warning that has this text.
    Warn(&'static str),
}

use Expect::{Fine, Reject, Warn};

type Row = (&'static str, Value, Expect);

fn object(group: &str, kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"),
        "kind": kind,
        "metadata": {"name": "a", "namespace": "own"},
        "spec": spec,
    })
}

/// Merges an edit into a good object: maps are merged, everything else is replaced; an
/// explicit `"-"` removes.
fn merge(into: &mut Value, edit: &Value) {
    let (Value::Object(to), Value::Object(from)) = (&mut *into, edit) else {
        *into = edit.clone();
        return;
    };
    for (key, value) in from {
        if value == "-" {
            to.remove(key);
        } else {
            merge(to.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn check_rows(group: &str, kind: &str, good: &Value, rows: &[Row]) {
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|(claim, edit, expect)| {
            let mut value = object(group, kind, good);
            // An edit of more than the spec says so.
            match edit.get("metadata") {
                Some(_) => merge(&mut value, edit),
                None => merge(&mut value["spec"], edit),
            }
            let verdict = validate(&value);
            let is_met = match expect {
                Fine => verdict.rejected.is_empty() && verdict.warnings.is_empty(),
                Reject(field) => verdict.rejected.iter().any(|one| one.field == **field),
                Warn(text) => {
                    let said = verdict.warnings.iter().any(|one| one.contains(*text));
                    verdict.rejected.is_empty() && said
                }
            };
            (!is_met).then(|| format!("{kind}: {claim}: expected {expect:?}, found {verdict:#?}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_no_object_of_the_api_is_refused() {
    for (value, field) in [
        (json!(null), "kind"),
        (json!({"kind": "Pod", "apiVersion": "v1"}), "kind"),
        (
            object("security.istio.io", "VirtualService", &json!({})),
            "kind",
        ),
        (object("security.istio.io", "Unheard", &json!({})), "kind"),
        (
            object("gateway.networking.k8s.io", "Gateway", &json!({})),
            "kind",
        ),
        (object("networking.istio.io", "Sidecar", &json!([])), "spec"),
    ] {
        let verdict = validate(&value);
        assert_eq!(verdict.rejected.first().unwrap().field, field, "{value}");
    }
    let mut strange = object("networking.istio.io", "Sidecar", &json!({}));
    strange["specs"] = json!({});
    assert_eq!(validate(&strange).rejected[0].field, "specs");
}

#[test]
fn what_is_too_long_is_refused_before_it_is_looked_at() {
    let hosts: Vec<String> = (0..1001).map(|i| format!("h{i}.example.com")).collect();
    let value = object("networking.istio.io", "Sidecar", &json!({"egress": hosts}));
    assert_eq!(validate(&value).rejected[0].field, "spec.egress");
    // Warnings and problems have a number.
    let tag = json!({"operation": "REMOVE", "value": "x"});
    let tags: serde_json::Map<_, _> = (0..200).map(|i| (format!("t{i}"), tag.clone())).collect();
    let spec = json!({"metrics": [{"overrides": [{"tagOverrides": tags}]}]});
    let verdict = validate(&object("telemetry.istio.io", "Telemetry", &spec));
    assert_eq!(verdict.rejected.len(), COUNT_MAX);
}

#[test]
fn a_name_that_is_still_to_be_generated_is_no_fault() {
    let mut value = object("security.istio.io", "PeerAuthentication", &json!({}));
    value["metadata"] = json!({"generateName": "a-", "namespace": "own"});
    assert_eq!(validate(&value), Verdict::default());
    value["metadata"] = json!({"namespace": "own"});
    assert!(!validate(&value).rejected.is_empty());
}

#[test]
fn annotations_with_a_meaning_of_their_own() {
    let good = json!({"selector": {"matchLabels": {"a": "b"}}});
    let with = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let always = "internal.istio.io/webhook-always-reject";
    let parents = "internal.istio.io/parents";
    let dry_run = "istio.io/dry-run";
    check_rows(
        "security.istio.io",
        "AuthorizationPolicy",
        &good,
        &[
            ("plain", json!({}), Fine),
            (
                "the annotation of the self-test",
                with(always, "true"),
                Reject("metadata.annotations[internal.istio.io/webhook-always-reject]"),
            ),
            (
                "an internal annotation",
                with(parents, "x"),
                Reject("metadata.annotations[internal.istio.io/parents]"),
            ),
            ("a trial of an ALLOW policy", with(dry_run, "true"), Fine),
            (
                "a trial that is no boolean",
                with(dry_run, "maybe"),
                Reject("metadata.annotations[istio.io/dry-run]"),
            ),
        ],
    );
    check_rows(
        "networking.istio.io",
        "ProxyConfig",
        &json!({}),
        &[(
            "a trial of something else than an AuthorizationPolicy",
            with(dry_run, "true"),
            Reject("metadata.annotations[istio.io/dry-run]"),
        )],
    );
}
