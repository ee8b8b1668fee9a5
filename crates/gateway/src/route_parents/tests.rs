#![allow(clippy::unwrap_used)]

use model::{Kind, ObjectRef};

use crate::testworld::World;

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: gw, name: web}
spec:
  gatewayClassName: istio
  allowedListeners: {namespaces: {from: All}}
  listeners:
  - {name: a, port: 80, protocol: HTTP, hostname: '*.com', allowedRoutes: {namespaces: {from: All}}}
  - {name: b, port: 81, protocol: HTTP, hostname: b.com}
  - {name: tls, port: 443, protocol: HTTPS, hostname: c.com, tls: {certificateRefs: [{name: gone}]}}
  - {name: through, port: 8443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: ends, port: 9443, protocol: TLS, tls: {options: {gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL}}}
  - {name: red, port: 90, protocol: HTTP, hostname: red.org, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: red}}}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: red}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {namespace: gw, name: set}
spec:
  parentRef: {name: web}
  listeners:
  - {name: extra, port: 8080, protocol: HTTP}
  - {name: broken, port: 8081, protocol: UDP}
";

/// What becomes of a route with these parents and hostnames, each in flow style.
fn of(kind: Kind, ns: &str, parents: &str, hosts: &str) -> Vec<String> {
    let hosts = match kind {
        Kind::TcpRoute => String::new(),
        _ => format!(", hostnames: [{hosts}]"),
    };
    let route = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{namespace: {ns}, name: r}}
spec: {{parentRefs: [{parents}]{hosts}, rules: []}}
"
    );
    let world = World::new(&format!("{GATEWAY}\n---\n{route}"));
    world.parents(kind, &format!("{ns}/r"))
}

fn http(parents: &str, hosts: &str) -> Vec<String> {
    of(Kind::HttpRoute, "gw", parents, hosts)
}

#[test]
fn the_nearest_refusal_is_told() {
    // 45
    assert_eq!(http("{name: gone}", ""), [""; 0]);
    // 47
    assert_eq!(http("{kind: Service, name: web}", ""), [""; 0]);
    // 52
    assert_eq!(
        http("{name: web, sectionName: x}", ""),
        ["0 NoMatchingParent"]
    );
    assert_eq!(http("{name: web, port: 1}", ""), ["0 NoMatchingParent"]);
    assert_eq!(http("{name: web, port: 81}", ""), ["0 b:b.com"]);
    // 53
    assert_eq!(
        http("{name: web, sectionName: a}", "a.org"),
        ["0 NoMatchingListenerHostname"]
    );
    let red = of(
        Kind::HttpRoute,
        "blue",
        "{name: web, namespace: gw, sectionName: b}",
        "b.com",
    );
    assert_eq!(red, ["0 NotAllowedByListeners"]);
    // 54
    let tls = |section: &str| {
        let parent = format!("{{name: web, sectionName: {section}}}");
        of(Kind::TlsRoute, "gw", &parent, "c.com")
    };
    assert_eq!(tls("tls"), ["0 NotAllowedByListeners"]);
    assert_eq!(tls("through"), ["0 through:c.com"]);
    let tcp = of(Kind::TcpRoute, "gw", "{name: web, sectionName: ends}", "");
    assert_eq!(tcp, ["0 ends:*"]);
    // A listener that is not valid takes routes all the same.
    assert_eq!(http("{name: web, sectionName: tls}", ""), ["0 tls:c.com"]);
    // Of several listeners, the one that is nearest.
    assert_eq!(http("{name: web}", "z.org"), ["0 NotAllowedByListeners"]);
}

#[test]
fn hosts_are_those_that_both_sides_are_for() {
    // 55, 68
    assert_eq!(
        http("{name: web, sectionName: a}", "x.com, y.org"),
        ["0 a:x.com"]
    );
    assert_eq!(http("{name: web}", "b.com"), ["0 a:b.com b:b.com"]);
    assert_eq!(http("{name: web, sectionName: a}", ""), ["0 a:*.com"]);
}

#[test]
fn selectors_know_the_names_of_namespaces() {
    let at = |ns: &str| {
        let parent = "{name: web, namespace: gw, sectionName: red}";
        of(Kind::HttpRoute, ns, parent, "red.org")
    };
    assert_eq!(at("red"), ["0 red:red.org"]);
    assert_eq!(at("blue"), ["0 NotAllowedByListeners"]);
}

#[test]
fn listener_sets_are_parents_of_their_own() {
    let set = "{kind: ListenerSet, name: set}";
    assert_eq!(http(set, ""), ["0 extra:*"]);
    // Those that are not valid are no candidates, and the Gateway does not lead to them.
    let broken = "{kind: ListenerSet, name: set, sectionName: broken}";
    assert_eq!(http(broken, ""), ["0 NoMatchingParent"]);
    assert_eq!(
        http("{name: web, sectionName: extra}", ""),
        ["0 NoMatchingParent"]
    );
    // "Same" is the namespace of the set.
    let far = of(
        Kind::HttpRoute,
        "red",
        "{kind: ListenerSet, name: set, namespace: gw}",
        "",
    );
    assert_eq!(far, ["0 NotAllowedByListeners"]);
}

#[test]
fn attached_routes_count_each_route_once() {
    let routes = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {namespace: gw, name: r}
spec: {parentRefs: [{name: web, sectionName: a}, {name: web}, {kind: ListenerSet, name: set}], hostnames: [b.com]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {namespace: gw, name: r}
spec: {parentRefs: [{name: web, sectionName: a}]}
";
    let world = World::new(&format!("{GATEWAY}\n---\n{routes}"));
    let count = |kind: Kind, key: &str| {
        let status = world.status(kind, key).unwrap();
        let listeners = status.listeners.as_ref().unwrap().iter();
        listeners
            .map(|one| format!("{}={}", one.name, one.attached_routes))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        count(Kind::Gateway, "gw/web"),
        "a=2 b=1 tls=0 through=0 ends=0 red=0"
    );
    assert_eq!(count(Kind::ListenerSet, "gw/set"), "extra=1 broken=0");
    let owner = ObjectRef::new(Kind::Gateway, "gw/web".parse().unwrap());
    assert_eq!(world.row().listeners_of(&owner).count(), 6);
}
