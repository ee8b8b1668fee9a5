//! ListenerSets.

use model::Kind;

use super::{gateway, join};
use crate::testworld::World;

const ALL: &str = "  allowedListeners: {namespaces: {from: All}}";

fn set(name: &str, created: u32, listeners: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{namespace: app, name: {name}, generation: 5, creationTimestamp: '2024-01-0{created}T00:00:00Z'}}
spec: {{parentRef: {{name: web, namespace: gw}}, listeners: [{listeners}]}}
"
    )
}

#[test]
fn listener_sets_add_listeners_where_they_may() {
    let own = "name: own, port: 80, protocol: HTTP, hostname: own.com";
    let one = set("one", 1, "{name: l, protocol: HTTP, hostname: a.com}");
    let of = |class: &str, more: &str| World::new(&join(&[&gateway(class, own, more), &one]));
    let not_allowed = ["Accepted=False/NotAllowed", "Programmed=False/NotAllowed"];
    // 39, 40
    for (class, more) in [
        ("istio", ""),
        ("istio", "  allowedListeners: {namespaces: {}}"),
        ("istio", "  allowedListeners: {namespaces: {from: Same}}"),
        ("istio", "  allowedListeners: {namespaces: {from: None}}"),
        ("istio-waypoint", ALL),
    ] {
        let world = of(class, more);
        assert_eq!(
            world.conditions(Kind::ListenerSet, "app/one"),
            not_allowed,
            "{class} {more}"
        );
        let status = world.status(Kind::ListenerSet, "app/one").unwrap();
        assert_eq!(status.listeners.as_deref(), Some(&[][..]));
        let status = world.status(Kind::Gateway, "gw/web").unwrap();
        let count = (class == "istio").then_some(0);
        assert_eq!(status.attached_listener_sets, count, "{class} {more}");
        assert_eq!(world.row().listeners.len(), 1);
    }
    let world = of("istio", ALL);
    assert_eq!(
        world.listeners(Kind::ListenerSet, "app/one"),
        ["l 0 HTTPRoute,GRPCRoute"]
    );
    assert_eq!(
        world.conditions(Kind::ListenerSet, "app/one")[0],
        "Accepted=True/Accepted"
    );
    let status = world.status(Kind::Gateway, "gw/web").unwrap();
    assert_eq!(status.attached_listener_sets, Some(1));
    assert_eq!(status.listeners.as_ref().unwrap().len(), 1);
    // An open port is that of the protocol.
    assert_eq!(world.row().listeners[1].port, 80);
    // 41
    let orphan = World::new(&one);
    assert!(orphan.status(Kind::ListenerSet, "app/one").is_none());
    let foreign = of("example", ALL);
    assert!(foreign.status(Kind::ListenerSet, "app/one").is_none());
}

#[test]
fn the_older_listener_set_wins_and_needs_what_a_gateway_need_not() {
    let gw = gateway(
        "istio",
        "name: own, port: 80, protocol: HTTP, hostname: own.com",
        ALL,
    );
    // 42
    let young = set(
        "a-young",
        2,
        "{name: l, port: 80, protocol: HTTP, hostname: a.com}",
    );
    let old = set(
        "b-old",
        1,
        "{name: l, port: 80, protocol: HTTP, hostname: a.com}",
    );
    let world = World::new(&join(&[&gw, &young, &old]));
    assert_eq!(
        world.conditions(Kind::ListenerSet, "app/b-old")[0],
        "Accepted=True/Accepted"
    );
    assert_eq!(
        world.conditions(Kind::ListenerSet, "app/a-young"),
        [
            "Accepted=False/ListenersNotValid",
            "Programmed=False/ListenersNotValid"
        ]
    );
    assert!(
        world.listeners(Kind::ListenerSet, "app/a-young")[0]
            .contains("Conflicted=True/HostnameConflict")
    );
    for (listener, said) in [
        (
            "{name: l, protocol: TCP}",
            "l 0 TCPRoute Accepted=False/UnsupportedProtocol",
        ),
        (
            "{name: l, protocol: HTTPS}",
            "l 0 HTTPRoute,GRPCRoute Accepted=False/UnsupportedProtocol Programmed=False/Invalid",
        ),
    ] {
        let world = World::new(&join(&[&gw, &set("s", 1, listener)]));
        assert_eq!(world.listeners(Kind::ListenerSet, "app/s"), [said]);
        assert!(!world.row().listeners[1].is_valid);
    }
}
