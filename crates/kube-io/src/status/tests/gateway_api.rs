//! Claims about statuses of the Gateway API. Source: spec/gateway-api.md §3.10, §4.5, §4.7.

use model::Str;
use model::input::GatewayStatusAddress;
use model::status::{AncestorStatus, ListenerStatus, MANAGER_GATEWAY_API, ParentRef, ParentStatus};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn condition(ty: &'static str, holds: bool, message: &'static str) -> Condition {
    Condition::new(ty, holds, if holds { ty } else { "Bad" }, message, 3)
}

/// A condition as it was written by us.
fn there(ty: &str, holds: bool, message: &str) -> Value {
    json!({"type": ty, "status": if holds { "True" } else { "False" },
        "reason": if holds { ty } else { "Bad" }, "message": message,
        "observedGeneration": 3, "lastTransitionTime": OLD})
}

fn parent(name: &str) -> ParentRef {
    ParentRef {
        name: name.into(),
        ..ParentRef::default()
    }
}

fn entry(reference: ParentRef, message: &'static str) -> ParentStatus {
    ParentStatus {
        parent_ref: reference,
        controller_name: MANAGER_GATEWAY_API,
        conditions: vec![condition("Accepted", true, message)],
    }
}

fn entry_there(name: &str, controller: &str, message: &str) -> Value {
    json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name},
        "controllerName": controller,
        "conditions": [there("Accepted", true, message)],
    })
}

fn parents(entries: Vec<ParentStatus>) -> StatusRow {
    StatusRow {
        parents: Some(entries),
        ..StatusRow::default()
    }
}

/// What is changed of a status.
fn changes(kind: Kind, row: &StatusRow, status: &Value) -> Value {
    let object = object(kind, "a");
    let seen = seen(7, status.clone());
    let written = (MANAGER_GATEWAY_API, row);
    let body = plan::body(&object, written, &seen, Form::Atomic, NOW);
    let is_due = plan::is_due(&object, written, &seen, Form::Map);
    assert_eq!(is_due, body["status"] != json!({}), "{body}");
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    body["status"].clone()
}

#[test]
fn entries_of_others_stay_where_they_are_and_ours_take_their_places() {
    let status = json!({"parents": [
        entry_there("gone", MANAGER_GATEWAY_API, "old"),
        entry_there("b", "example.com/other", "theirs"),
        entry_there("b", MANAGER_GATEWAY_API, "old"),
        entry_there("a", "example.com/other", "theirs"),
        entry_there("b", MANAGER_GATEWAY_API, "twice"),
    ]});
    let row = parents(vec![entry(parent("a"), "new"), entry(parent("b"), "new")]);
    let written = changes(Kind::HttpRoute, &row, &status);
    let all: Vec<_> = written["parents"].as_array().unwrap().iter().collect();
    let told: Vec<_> = all
        .iter()
        .map(|it| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let condition = &it["conditions"][0];
            [
                text(&it["parentRef"]["name"]),
                text(&it["controllerName"]),
                text(&condition["message"]),
                text(&condition["lastTransitionTime"]),
            ]
            .join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("b example.com/other theirs {OLD}"),
            // It holds as it did before.
            format!("b {MANAGER_GATEWAY_API} new {OLD}"),
            format!("a example.com/other theirs {OLD}"),
            format!("a {MANAGER_GATEWAY_API} new {NOW}"),
        ]
    );
    assert_eq!(changes(Kind::HttpRoute, &row, &written), json!({}));
}

#[test]
fn a_route_without_entries_of_ours_keeps_those_of_others_and_is_not_written_for_nothing() {
    let none = parents(Vec::new());
    for status in [Value::Null, json!({}), json!({"parents": []})] {
        assert_eq!(changes(Kind::TcpRoute, &none, &status), json!({}));
    }
    let theirs = entry_there("a", "example.com/other", "theirs");
    let alone = json!({"parents": [theirs]});
    assert_eq!(changes(Kind::TcpRoute, &none, &alone), json!({}));
    let ours = entry_there("a", MANAGER_GATEWAY_API, "old");
    let both = json!({"parents": [ours, theirs]});
    assert_eq!(changes(Kind::TcpRoute, &none, &both), alone);
    let ours = json!({"parents": [ours]});
    assert_eq!(
        changes(Kind::TcpRoute, &none, &ours),
        json!({"parents": []})
    );
}

#[test]
fn parents_are_known_by_what_they_mean_and_repeated_as_they_are_written() {
    let status = json!({"parents": [entry_there("a", MANAGER_GATEWAY_API, "same")]});
    // The API server has added group and kind.
    let row = parents(vec![entry(parent("a"), "same")]);
    assert_eq!(changes(Kind::HttpRoute, &row, &status), json!({}));
    let named = ParentRef {
        namespace: Some("shop".into()),
        ..parent("a")
    };
    let written = changes(
        Kind::HttpRoute,
        &parents(vec![entry(named, "same")]),
        &status,
    );
    let written = &written["parents"][0];
    assert_eq!(
        written["parentRef"],
        json!({"name": "a", "namespace": "shop"})
    );
    assert_eq!(written["conditions"], status["parents"][0]["conditions"]);
    for other in [
        ParentRef {
            section_name: Some("http".into()),
            ..parent("a")
        },
        ParentRef {
            port: Some(80),
            ..parent("a")
        },
        ParentRef {
            namespace: Some("other".into()),
            ..parent("a")
        },
        ParentRef {
            kind: Some("ListenerSet".into()),
            ..parent("a")
        },
    ] {
        let row = parents(vec![entry(other, "same")]);
        let written = changes(Kind::HttpRoute, &row, &status);
        let condition = &written["parents"][0]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], NOW, "{written}");
        assert_eq!(written["parents"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_condition_changes_its_time_with_its_value_alone() {
    let row = |condition: Condition| StatusRow {
        conditions: vec![condition],
        ..StatusRow::default()
    };
    let now = there("Programmed", true, "m");
    let status = json!({"conditions": [written("example.com/Cost", "x"), now]});
    let of = |wanted: Condition| {
        let mut changed = changes(Kind::Gateway, &row(wanted), &status);
        if changed != json!({}) {
            let list = changed["conditions"].as_array_mut().unwrap();
            assert_eq!(list.len(), 2, "{list:?}");
            assert_eq!(list[0], status["conditions"][0]);
            return list[1]["lastTransitionTime"].as_str().unwrap().to_owned();
        }
        "not written".to_owned()
    };
    assert_eq!(of(condition("Programmed", true, "m")), "not written");
    assert_eq!(of(condition("Programmed", true, "n")), OLD);
    assert_eq!(of(condition("Programmed", false, "m")), NOW);
    let mut later = condition("Programmed", true, "m");
    later.observed_generation = Some(4);
    assert_eq!(of(later), OLD);
    let mut reason = condition("Programmed", true, "m");
    reason.reason = "Else".into();
    assert_eq!(of(reason), OLD);
    // What the API server starts with has a time too, but another value.
    let pending = json!({"conditions": [{"type": "Programmed", "status": "Unknown",
        "reason": "Pending", "message": "w", "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
    let row = row(condition("Programmed", false, "m"));
    let first = changes(Kind::Gateway, &row, &pending);
    assert_eq!(first["conditions"][0]["lastTransitionTime"], NOW);
}

#[test]
fn control_planes_that_share_a_class_do_not_correct_each_others_words() {
    let row = StatusRow {
        conditions: vec![condition("Accepted", true, "ours")],
        ..StatusRow::default()
    };
    let mut theirs = there("Accepted", true, "theirs");
    let status = |condition: &Value| json!({"conditions": [condition]});
    let class = |condition: &Value| changes(Kind::GatewayClass, &row, &status(condition));
    assert_eq!(class(&theirs), json!({}));
    assert_ne!(changes(Kind::Gateway, &row, &status(&theirs)), json!({}));
    theirs["observedGeneration"] = json!(2);
    let written = class(&theirs);
    assert_eq!(written["conditions"][0]["message"], "ours");
    assert_eq!(written["conditions"][0]["lastTransitionTime"], OLD);
}

#[test]
fn conditions_that_are_ours_and_not_wanted_go_and_those_of_others_stay() {
    let status = json!({"conditions": [
        there("InsecureFrontendValidationMode", true, "m"),
        there("Accepted", true, "m"),
        written(TYPE_FINDINGS, "told"),
    ]});
    let row = StatusRow {
        conditions: vec![
            condition("Programmed", true, "m"),
            condition("Accepted", true, "m"),
        ],
        ..StatusRow::default()
    };
    let changed = changes(Kind::Gateway, &row, &status);
    let list = changed["conditions"].as_array().unwrap();
    let types: Vec<_> = list.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Accepted", TYPE_FINDINGS, "Programmed"]);
}

#[test]
fn listeners_are_known_by_name_and_keep_conditions_that_nobody_speaks_of() {
    let listener = |name: &str, routes: usize, conditions: Vec<Condition>| ListenerStatus {
        name: name.into(),
        supported_kinds: vec![Kind::HttpRoute],
        attached_routes: routes,
        conditions,
    };
    let old = |name: &str, conditions: Value| {
        json!({
            "name": name, "attachedRoutes": 0, "conditions": conditions,
            "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
        })
    };
    let accepted = || condition("Accepted", true, "m");
    let status = json!({"listeners": [
        old("gone", json!([])),
        old("b", json!([there("ResolvedRefs", true, "kept"), there("Accepted", true, "m")])),
        old("a", json!([there("Accepted", false, "m")])),
    ]});
    let row = StatusRow {
        listeners: Some(vec![
            listener("a", 0, vec![accepted()]),
            listener("b", 2, vec![accepted()]),
        ]),
        ..StatusRow::default()
    };
    let written = changes(Kind::ListenerSet, &row, &status);
    let mut b = status["listeners"][1].clone();
    b["attachedRoutes"] = json!(2);
    let mut a = status["listeners"][2].clone();
    a["conditions"][0] = there("Accepted", true, "m");
    a["conditions"][0]["lastTransitionTime"] = json!(NOW);
    assert_eq!(written, json!({"listeners": [a, b]}));
    assert_eq!(changes(Kind::ListenerSet, &row, &written), json!({}));
    let none = StatusRow {
        listeners: Some(Vec::new()),
        ..StatusRow::default()
    };
    let cleared = changes(Kind::ListenerSet, &none, &written);
    assert_eq!(cleared, json!({"listeners": []}));
}

#[test]
fn addresses_are_never_withdrawn_and_a_count_of_none_is_written() {
    let row = |addresses: Vec<GatewayStatusAddress>| StatusRow {
        gateway_addresses: Some(addresses),
        attached_listener_sets: Some(0),
        ..StatusRow::default()
    };
    let ip = || GatewayStatusAddress::Ip("192.0.2.1".parse().unwrap());
    let host = |name: &str| GatewayStatusAddress::Hostname(name.into());
    let first = changes(
        Kind::Gateway,
        &row(vec![ip(), host("a.example"), host("Not_A.name")]),
        &json!({}),
    );
    let shown = json!([
        {"type": "IPAddress", "value": "192.0.2.1"},
        {"type": "Hostname", "value": "a.example"},
    ]);
    assert_eq!(
        first,
        json!({"addresses": shown, "attachedListenerSets": 0})
    );
    assert_eq!(changes(Kind::Gateway, &row(Vec::new()), &first), json!({}));
    let one = changes(Kind::Gateway, &row(vec![ip()]), &first);
    assert_eq!(one, json!({"addresses": [shown[0]]}));
    let many = vec![ip(); 40];
    let many = changes(Kind::Gateway, &row(many), &json!({}));
    assert_eq!(many["addresses"].as_array().unwrap().len(), 16);
}

#[test]
fn lists_end_where_the_api_ends_them_and_others_lose_nothing() {
    let named = |number: usize| parent(&number.to_string());
    let theirs: Vec<_> = (0..10)
        .map(|number| entry_there(&number.to_string(), "example.com/other", "theirs"))
        .collect();
    let row = parents((0..32).map(|number| entry(named(number), "m")).collect());
    let written = changes(Kind::HttpRoute, &row, &json!({"parents": theirs}));
    let list = written["parents"].as_array().unwrap();
    assert_eq!((list.len(), &list[..10]), (32, &theirs[..]));
    assert_eq!(changes(Kind::HttpRoute, &row, &written), json!({}));

    let long = "ü".repeat(40_000);
    let row = StatusRow {
        conditions: vec![Condition::new("Accepted", false, "Bad", long, 3)],
        ..StatusRow::default()
    };
    let written = changes(Kind::Gateway, &row, &json!({}));
    let message = written["conditions"][0]["message"].as_str().unwrap();
    assert!(message.len() <= 32_768 && message.ends_with('…'));
    assert_eq!(changes(Kind::Gateway, &row, &written), json!({}));
}

#[test]
fn ancestors_of_both_controllers_are_ours_and_no_others() {
    let [mesh, gateway] = model::status::ANCESTOR_CONTROLLERS;
    let of = |name: &str, controller| AncestorStatus {
        ancestor_ref: parent(name),
        controller_name: controller,
        conditions: vec![condition("Accepted", true, "m")],
    };
    let old = |name: &str, controller: &str| {
        json!({
            "ancestorRef": {"name": name}, "controllerName": controller,
            "conditions": [there("Accepted", true, "m")],
        })
    };
    let status = json!({"ancestors": [
        old("a", gateway), old("a", "example.com/other"), old("gone", mesh), old("a", mesh),
    ]});
    let row = StatusRow {
        ancestors: Some(vec![of("a", mesh)]),
        ..StatusRow::default()
    };
    let written = changes(Kind::BackendTlsPolicy, &row, &status);
    assert_eq!(
        written,
        json!({"ancestors": [old("a", "example.com/other"), old("a", mesh)]})
    );
    let many = StatusRow {
        ancestors: Some(
            (0..40)
                .map(|number| of(&number.to_string(), gateway))
                .collect(),
        ),
        ..StatusRow::default()
    };
    let written = changes(Kind::BackendTlsPolicy, &many, &json!({}));
    assert_eq!(written["ancestors"].as_array().unwrap().len(), 16);
}

#[test]
fn a_row_of_an_earlier_generation_is_known_by_what_it_nests() {
    let seen = seen(7, json!({}));
    let older = |mut condition: Condition| {
        condition.observed_generation = Some(2);
        vec![condition]
    };
    let old = || older(condition("Accepted", true, "m"));
    let rows = [
        StatusRow {
            conditions: old(),
            ..StatusRow::default()
        },
        parents(vec![ParentStatus {
            conditions: old(),
            ..entry(parent("a"), "m")
        }]),
        StatusRow {
            listeners: Some(vec![ListenerStatus {
                name: Str::from("a"),
                supported_kinds: Vec::new(),
                attached_routes: 0,
                conditions: old(),
            }]),
            ..StatusRow::default()
        },
    ];
    assert!(rows.iter().all(|row| plan::is_old(row, &seen)));
    assert!(!plan::is_old(
        &parents(vec![entry(parent("a"), "m")]),
        &seen
    ));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_patched_by_one_and_its_findings_applied_by_the_other() {
    let world = world(Arc::new(|_, _| None));
    let name = "n".repeat(253);
    let gateway = object(Kind::Gateway, &name);
    world
        .observed
        .set(gateway.clone(), Some(seen(1, json!({}))));
    let row = StatusRow {
        conditions: vec![condition("Accepted", true, "m")],
        ..StatusRow::default()
    };
    let key = StatusKey {
        object: gateway.clone(),
        manager: MANAGER_GATEWAY_API,
    };
    let finding = Finding::new("wp-unused", Severity::Warning, gateway.clone(), "m", "f");
    let snapshot = Snapshot {
        statuses: [(key, Arc::new(row))].into_iter().collect(),
        findings: [finding].into_iter().collect(),
        ..Snapshot::default()
    };
    world.snapshots.send_replace(Some(Arc::new(snapshot)));
    pass(5).await;
    let requests = world.requests.lock().clone();
    let [(first, body), (second, _)] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert!(first.contains(&format!("/{name}/status?")), "{first}");
    assert!(first.contains("fieldManager=istio.io%2Fgateway-controller"));
    assert!(!first.contains("force"), "{first}");
    assert_eq!(body["metadata"]["resourceVersion"], "1");
    assert!(second.contains("force=true") && second.contains("fieldManager=ambientd-findings"));
    pass(600).await;
    assert_eq!(world.sent(), 2);
}
