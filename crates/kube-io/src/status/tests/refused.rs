//! What becomes of writes that fail.

use super::*;

/// What is told while something is, and then nothing more.
async fn told(world: &mut World) -> Finding {
    let told = world.findings.recv().await.unwrap();
    let [Input::SourceFindings(_, all)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(world.findings.try_recv().is_err());
    all[0].clone()
}

fn forbidden() -> Value {
    json!({"kind": "Status", "code": 403, "reason": "Forbidden",
        "message": "services \"a\" is forbidden: User \"u\" cannot patch resource \"services/status\""})
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_judged_anew_and_a_bad_object_holds_up_no_other() {
    let script = |uri: &str, count: u64| {
        if uri.contains("/bad/") {
            return Some(json!({"kind": "Status", "code": 500, "message": "broken"}));
        }
        (count == 1).then(|| json!({"kind": "Status", "code": 409, "reason": "Conflict"}))
    };
    let mut world = world(Arc::new(script));
    let all = ["a", "bad", "c"].map(|name| service("shop", name));
    world.want(&all);
    pass(30).await;
    assert_eq!(all.map(|it| world.holds(&it)), [true, false, true]);
    assert_eq!(world.sent_to("/bad/"), 5);
    pass(80).await;
    assert_eq!(world.sent_to("/bad/"), 10);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_cannot_be_written_is_told_once_and_tried_by_one_object() {
    let absent = json!({"kind": "Status", "code": 404, "reason": "NotFound", "details": {},
        "message": "the server could not find the requested resource"});
    for (answer, code) in [
        (forbidden(), "kube-write-forbidden"),
        (absent, "kube-status-not-served"),
    ] {
        let (open, is_open) = watch::channel(false);
        let script = move |_: &str, _: u64| (!*is_open.borrow()).then(|| answer.clone());
        let mut world = world(Arc::new(script));
        let all: Vec<_> = (0..200)
            .map(|number| service("shop", &format!("s{number}")))
            .collect();
        world.want(&all);
        pass(60).await;
        // At most what was under way, and then a few probes.
        let sent = world.sent();
        assert!(sent <= 25, "{code} {sent}");
        pass(1_200).await;
        assert!(world.sent() - sent <= 6, "{code} {sent} {}", world.sent());
        assert_eq!(told(&mut world).await.code, code);
        open.send_replace(true);
        pass(700).await;
        assert!(all.iter().all(|it| world.holds(it)), "{code}");
        let told = world.findings.recv().await.unwrap();
        assert!(matches!(&told[..], [Input::SourceFindings(_, all)] if all.is_empty()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_where_a_kind_may_not_be_written_stops_no_other() {
    let script = |uri: &str, _: u64| uri.contains("/namespaces/shut/").then(forbidden);
    let mut world = world(Arc::new(script));
    let at = |ns: &str| -> Vec<_> {
        (0..50)
            .map(|number| service(ns, &format!("s{number}")))
            .collect()
    };
    let (shut, open) = (at("shut"), at("open"));
    // The one that refuses comes first, and others later.
    world.want(&shut);
    pass(60).await;
    world.want(&[shut.clone(), open.clone()].concat());
    pass(2).await;
    assert!(open.iter().all(|it| world.holds(it)));
    pass(600).await;
    assert!(
        world.sent_to("/shut/") <= 16 + 10,
        "{}",
        world.sent_to("/shut/")
    );
    let finding = told(&mut world).await;
    assert!(
        finding
            .message
            .contains("patch services/status in namespace shut;"),
        "{finding:?}"
    );
    // Nothing is left there that needs the right.
    for object in &shut {
        world.observed.set(object.clone(), None);
    }
    pass(700).await;
    let told = world.findings.recv().await.unwrap();
    assert!(matches!(&told[..], [Input::SourceFindings(_, all)] if all.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panics_is_tried_again() {
    let script = |_: &str, count: u64| {
        assert!(count > 1, "the first write panics on purpose");
        None
    };
    let mut world = world(Arc::new(script));
    world
        .observed
        .set(object(Kind::Service, "a"), Some(seen(1, json!({}))));
    world.publish(&[("a", row(&[(BOUND, "m")]))]);
    pass(30).await;
    assert_eq!(world.sent(), 2);
}
