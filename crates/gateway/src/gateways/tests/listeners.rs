//! Protocols of listeners, and which are in the way of others.

use super::{accepted, certificates, gateway, join, listeners};
use crate::testworld::{Running, World};

#[test]
fn protocols_and_shapes_are_those_of_the_class() {
    let unsupported = "Accepted=False/UnsupportedProtocol";
    for (class, listener, said, valid) in [
        (
            "istio",
            "name: l, port: 80, protocol: HTTP",
            "l 0 HTTPRoute,GRPCRoute".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: TCP",
            "l 0 TCPRoute".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: TLS, tls: {mode: Passthrough}",
            "l 0 TLSRoute".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: TLS, tls: {certificateRefs: [{name: good}]}",
            "l 0 TLSRoute,TCPRoute".to_owned(),
            true,
        ),
        // 31, 32
        (
            "istio",
            "name: l, port: 80, protocol: UDP",
            format!("l 0  {unsupported}"),
            false,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: http",
            format!("l 0  {unsupported}"),
            false,
        ),
        (
            "istio",
            "name: l, port: 15008, protocol: HBONE",
            format!("l 0  {unsupported}"),
            false,
        ),
        // Not built, and nothing is said against it.
        (
            "istio",
            "name: l, port: 443, protocol: HTTPS",
            "l 0 HTTPRoute,GRPCRoute".to_owned(),
            true,
        ),
        (
            "istio-waypoint",
            "name: l, port: 15008, protocol: HBONE",
            "l 0 HTTPRoute,GRPCRoute".to_owned(),
            true,
        ),
        // 69
        (
            "istio-waypoint",
            "name: l, port: 80, protocol: HTTP",
            format!("l 0 HTTPRoute,GRPCRoute {unsupported}"),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 15008, protocol: HBONE, tls: {mode: Terminate}",
            "l 0".to_owned(),
            true,
        ),
        (
            "istio-eastwest",
            "name: l, port: 15008, protocol: HBONE, tls: {mode: Passthrough}",
            "l 0".to_owned(),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 15443, protocol: TLS, tls: {mode: Passthrough}",
            "l 0 TLSRoute".to_owned(),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 80, protocol: HTTP",
            format!("l 0 HTTPRoute,GRPCRoute {unsupported}"),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 15008, protocol: HBONE",
            format!("l 0  {unsupported}"),
            true,
        ),
        // 36
        (
            "istio",
            "name: l, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}",
            "l 0  ResolvedRefs=False/InvalidRouteKinds".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}, {kind: X}]}",
            "l 0 GRPCRoute ResolvedRefs=False/InvalidRouteKinds".to_owned(),
            true,
        ),
    ] {
        let world = World::new(&join(&[&gateway(class, listener, ""), &certificates()]));
        assert_eq!(listeners(&world), [said.trim_end()], "{class} {listener}");
        assert_eq!(
            world.row().listeners[0].is_valid,
            valid,
            "{class} {listener}"
        );
        let served = valid && !said.contains(unsupported) && !listener.ends_with("HTTPS");
        assert_eq!(
            world.row().listeners[0].is_served,
            served,
            "{class} {listener}"
        );
    }
}

#[test]
fn gateways_between_networks_have_no_listener_while_there_is_one_network() {
    let listener = "name: l, port: 15008, protocol: HBONE, tls: {mode: Terminate}";
    let running = Running {
        one_network: true,
        ..Running::default()
    };
    let world = World::with(&gateway("istio-eastwest", listener, ""), running);
    assert!(world.row().listeners.is_empty());
    assert_eq!(accepted(&world), "Accepted=False/Invalid");
}

#[test]
fn of_listeners_that_cannot_be_told_apart_the_first_stays() {
    let of = |text: &str| {
        let world = World::new(&join(&[&gateway("istio", text, ""), &certificates()]));
        let row = world.row();
        let shown = row.listeners.iter().map(|one| match &one.conflict {
            Some(defect) => format!("{} {}", one.name, defect.reason),
            None => one.name.to_string(),
        });
        (shown.collect::<Vec<_>>().join(", "), accepted(&world))
    };
    let tls = "tls: {certificateRefs: [{name: good}]}";
    let through = "tls: {mode: Passthrough}";
    for (text, expected) in [
        // 37
        (format!("name: a, port: 80, protocol: HTTP, hostname: a.com\nname: b, port: 80, protocol: HTTPS, hostname: a.com, {tls}"), "a, b ProtocolConflict"),
        (format!("name: a, port: 443, protocol: HTTPS, hostname: a.com, {tls}\nname: b, port: 443, protocol: TLS, hostname: b.com, {through}"), "a, b"),
        // 38
        ("name: a, port: 80, protocol: TCP\nname: b, port: 80, protocol: HTTP".to_owned(), "a, b ProtocolConflict"),
        ("name: a, port: 80, protocol: TCP\nname: b, port: 80, protocol: TCP".to_owned(), "a, b ProtocolConflict"),
        ("name: a, port: 80, protocol: HTTP\nname: b, port: 80, protocol: HTTP, hostname: ''".to_owned(), "a, b HostnameConflict"),
        ("name: a, port: 80, protocol: HTTP\nname: b, port: 81, protocol: HTTP".to_owned(), "a, b"),
        // One that is out is in nobody's way.
        ("name: a, port: 80, protocol: HTTP, hostname: x.com\nname: b, port: 80, protocol: TCP\nname: c, port: 80, protocol: HTTP, hostname: y.com".to_owned(), "a, b ProtocolConflict, c"),
    ] {
        let (shown, said) = of(&text);
        assert_eq!(shown, expected, "{text}");
        let reason = if expected.contains("Conflict") { "ListenersNotValid" } else { "Accepted" };
        assert_eq!(said, format!("Accepted=True/{reason}"), "{text}");
    }
    let world = World::new(&gateway(
        "istio",
        "name: a, port: 80, protocol: HTTP\nname: b, port: 80, protocol: HTTP",
        "",
    ));
    assert_eq!(
        listeners(&world)[1],
        "b 0 HTTPRoute,GRPCRoute Accepted=False/HostnameConflict Conflicted=True/HostnameConflict Programmed=False/HostnameConflict"
    );
}
