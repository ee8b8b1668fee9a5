//! Claims about what is due and how it is sent.

use model::status::{
    Condition, MANAGER_ALLOCATION, MANAGER_SERVICE, MANAGER_WAYPOINT_POLICY,
    MANAGER_ZTUNNEL_POLICY, TYPE_FINDINGS,
};
use model::{Finding, Kind, Severity};
use serde_json::{Value, json};

use super::*;

fn conditions(body: &Value) -> Vec<(&str, &str)> {
    let list = body["status"]["conditions"].as_array().unwrap().iter();
    list.map(|it| {
        (
            it["type"].as_str().unwrap(),
            it["lastTransitionTime"].as_str().unwrap(),
        )
    })
    .collect()
}

#[test]
fn where_lists_merge_a_manager_sends_its_own_conditions_alone() {
    let status = json!({"conditions": [written("foreign", "x"), written(BOUND, "same")]});
    let seen = seen(7, status);
    let service = object(Kind::Service, "a");
    assert!(!plan::is_due(
        &service,
        (MANAGER_SERVICE, &row(&[(BOUND, "same")])),
        &seen,
        Form::Map
    ));
    let more = row(&[(BOUND, "same"), ("istio.io/VisibilityApplied", "new")]);
    assert!(plan::is_due(
        &service,
        (MANAGER_SERVICE, &more),
        &seen,
        Form::Map
    ));
    let body = plan::body(&service, (MANAGER_SERVICE, &more), &seen, Form::Map, "now");
    // What says the same keeps its time.
    let sent = [(BOUND, OLD), ("istio.io/VisibilityApplied", "now")];
    assert_eq!(conditions(&body), sent);
    assert_eq!(
        body["metadata"],
        json!({"name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7"})
    );
    // Removing.
    assert!(plan::is_due(
        &service,
        (MANAGER_SERVICE, &row(&[])),
        &seen,
        Form::Map
    ));
    let body = plan::body(
        &service,
        (MANAGER_SERVICE, &row(&[])),
        &seen,
        Form::Map,
        "now",
    );
    assert_eq!(body["status"], json!({}));
    let foreign = ObservedStatus {
        managers: vec!["other".to_owned()],
        ..seen
    };
    assert!(!plan::is_due(
        &service,
        (MANAGER_SERVICE, &row(&[])),
        &foreign,
        Form::Map
    ));
}

#[test]
fn where_lists_do_not_merge_everything_that_others_wrote_is_sent_again() {
    let status = json!({"conditions": [
        written("Reconciled", "x"), written("ZtunnelAccepted", "z"), written("WaypointAccepted", "old"),
    ]});
    let seen = seen(7, status);
    let policy = object(Kind::AuthorizationPolicy, "p");
    let wanted = row(&[("WaypointAccepted", "new")]);
    let body = plan::body(
        &policy,
        (MANAGER_WAYPOINT_POLICY, &wanted),
        &seen,
        Form::Atomic,
        "now",
    );
    let sent = [
        ("Reconciled", OLD),
        ("ZtunnelAccepted", OLD),
        ("WaypointAccepted", "now"),
    ];
    assert_eq!(conditions(&body), sent);
    let body = plan::body(
        &policy,
        (MANAGER_ZTUNNEL_POLICY, &row(&[])),
        &seen,
        Form::Atomic,
        "now",
    );
    assert_eq!(
        conditions(&body),
        [("Reconciled", OLD), ("WaypointAccepted", OLD)]
    );
}

#[test]
fn generation_reason_message_and_value_are_compared_and_numbers_may_be_text() {
    let policy = object(Kind::AuthorizationPolicy, "p");
    let wanted = StatusRow {
        conditions: vec![Condition::new("ZtunnelAccepted", true, "Good", "m", 3)],
        ..StatusRow::default()
    };
    let cases = [
        ("observedGeneration", json!(3), false),
        ("observedGeneration", json!("3"), false),
        ("observedGeneration", json!(2), true),
        ("reason", json!("Bad"), true),
        ("message", json!("n"), true),
        ("status", json!("False"), true),
        ("lastTransitionTime", json!("never"), false),
    ];
    for (field, value, differs) in cases {
        let mut condition = written("ZtunnelAccepted", "m");
        condition["observedGeneration"] = json!(3);
        condition[field] = value.clone();
        let seen = seen(1, json!({"conditions": [condition]}));
        assert_eq!(
            plan::differs(&policy, (MANAGER_ZTUNNEL_POLICY, &wanted), &seen),
            differs,
            "{field} {value}"
        );
    }
    let twice =
        json!({"conditions": [written("ZtunnelAccepted", "m"), written("ZtunnelAccepted", "m")]});
    assert!(plan::differs(
        &policy,
        (MANAGER_ZTUNNEL_POLICY, &wanted),
        &seen(1, twice)
    ));
}

#[test]
fn addresses_are_compared_in_order_and_take_no_condition_along() {
    let wanted = StatusRow {
        addresses: Some(vec![("240.240.0.1".into(), "a.example".into())]),
        ..StatusRow::default()
    };
    let entry = object(Kind::ServiceEntry, "e");
    let listed = json!({"addresses": [{"host": "a.example", "value": "240.240.0.1"}]});
    assert!(!plan::differs(
        &entry,
        (MANAGER_ALLOCATION, &wanted),
        &seen(1, listed)
    ));
    let other = seen(
        1,
        json!({"addresses": [], "conditions": [written("x", "y")]}),
    );
    assert!(plan::differs(&entry, (MANAGER_ALLOCATION, &wanted), &other));
    let body = plan::body(
        &entry,
        (MANAGER_ALLOCATION, &wanted),
        &other,
        Form::Atomic,
        "now",
    );
    assert_eq!(
        body["status"],
        json!({"addresses": [{"value": "240.240.0.1", "host": "a.example"}]})
    );
    let none = StatusRow {
        addresses: Some(Vec::new()),
        ..StatusRow::default()
    };
    assert!(!plan::differs(
        &entry,
        (MANAGER_ALLOCATION, &none),
        &seen(1, Value::Null)
    ));
}

#[test]
fn findings_become_one_condition_that_fits() {
    let of = |code, severity, name: &str| {
        let message = format!("What {code} does");
        Finding::new(
            code,
            severity,
            object(Kind::Service, name),
            message,
            "Change it",
        )
        .at("spec.x")
    };
    let mut all = vec![
        of("wp-unused", Severity::Warning, "a"),
        of("wp-missing", Severity::Error, "a"),
        of("wp-headless", Severity::Info, "b"),
        Finding::new("x", Severity::Error, object(Kind::Pod, "a"), "m", "f"),
    ];
    let rows = findings::by_object(&all);
    assert_eq!(
        rows.keys()
            .map(|it| it.key.name.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );
    let condition = &rows[&object(Kind::Service, "a")].conditions[0];
    assert_eq!(
        (condition.ty.as_str(), condition.reason.as_str()),
        (TYPE_FINDINGS, "WpMissing")
    );
    assert_eq!(
        condition.message,
        "error wp-missing spec.x: What wp-missing does. Change it\n\
         warning wp-unused spec.x: What wp-unused does. Change it"
    );
    for number in 0..500 {
        let mut finding = of("wp-missing", Severity::Error, "a");
        finding.message = format!("{number} {}", "ü".repeat(3_000)).into();
        all.push(finding);
    }
    let rows = findings::by_object(&all);
    let message = &rows[&object(Kind::Service, "a")].conditions[0].message;
    assert!(
        message.len() < 20_000 && message.ends_with(" more"),
        "{}",
        message.len()
    );
}
