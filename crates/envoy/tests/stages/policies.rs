//! Where policies are enforced, and what does not do what it says.

use super::*;

fn with_target(kind: &str, name: &str) -> AuthorizationPolicy {
    AuthorizationPolicy {
        targets: vec![target(kind, name)],
        ..Default::default()
    }
}

#[test]
fn policies_attach_by_target_and_nothing_else() {
    for (policy, ns, attaches) in [
        (with_target("Service", "web"), "app", true),
        (with_target("Service", "v2"), "app", false),
        (with_target("Service", "web"), "other", false),
        (with_target("Gateway", "wp"), "app", true),
        (
            with_target("GatewayClass", "istio-waypoint"),
            "istio-system",
            true,
        ),
        (with_target("GatewayClass", "istio-waypoint"), "app", false),
        (AuthorizationPolicy::default(), "app", false),
    ] {
        let mut world = world();
        world.policy(&ObjectKey::new(ns, "p"), policy.clone());
        let attached = !world.derive().chain(CHAIN).filters.is_empty();
        assert_eq!(attached, attaches, "{ns} {:?}", policy.targets);
    }
}

#[test]
fn direct_chains_take_the_policies_of_the_whole_waypoint_only() {
    let mut world = world();
    world.policy(&key("s"), with_target("Service", "web"));
    let direct = main_internal(&world).direct.unwrap();
    assert!(direct.http.filters.is_empty());
    world.policy(&key("g"), with_target("Gateway", "wp"));
    let direct = main_internal(&world).direct.unwrap();
    assert_eq!(
        (direct.http.filters.len(), direct.tcp.filters.len()),
        (1, 1)
    );
}

/// A rule about a path that is none.
fn odd_path(ports: &[&str]) -> AuthzRule {
    let to = AuthzOperation {
        paths: values(&["/a?b"]),
        ports: values(ports),
        ..Default::default()
    };
    AuthzRule {
        to: vec![to],
        ..Default::default()
    }
}

fn values(list: &[&str]) -> Values {
    Values {
        values: list.iter().map(|value| (*value).into()).collect(),
        not_values: Vec::new(),
    }
}

#[test]
fn policies_that_do_not_do_what_they_say_are_reported() {
    const PATHS: &str = "spec.rules[0].to[0].operation.paths";
    const TARGET: &str = "spec.targetRefs[0]";
    let http = |action, ports: &[&str]| AuthorizationPolicy {
        action,
        rules: vec![odd_path(ports)],
        ..with_target("Service", "db")
    };
    let jwt = AuthorizationPolicy {
        rules: vec![AuthzRule {
            when: vec![("request.auth.principal".into(), Values::default())],
            ..Default::default()
        }],
        ..with_target("Gateway", "wp")
    };
    let custom = AuthorizationPolicy {
        action: Action::Custom,
        ..with_target("Gateway", "wp")
    };
    let mut elsewhere = with_target("Service", "web");
    elsewhere.targets[0].ns = Some("far".into());
    for (policy, expected) in [
        (
            with_target("Service", "nope"),
            vec![("authz-target-missing", TARGET)],
        ),
        (
            with_target("Gateway", "nope"),
            vec![("authz-target-missing", TARGET)],
        ),
        (elsewhere, vec![("authz-target-missing", TARGET)]),
        (
            with_target("ServiceEntry", "api.example.com"),
            vec![("authz-se-by-hostname", TARGET)],
        ),
        (
            with_target("Service", "remote"),
            vec![("authz-target-other-namespace", TARGET)],
        ),
        (
            with_target("Gateway", "far-wp"),
            vec![("authz-target-other-namespace", TARGET)],
        ),
        (
            with_target("Service", "plain"),
            vec![("authz-service-without-waypoint", TARGET)],
        ),
        (
            with_target("GatewayClass", "istio-waypoint"),
            vec![("authz-gatewayclass-scope", TARGET)],
        ),
        (
            http(Action::Allow, &[]),
            vec![
                ("authz-http-on-tcp-allow", PATHS),
                ("authz-path-query", PATHS),
            ],
        ),
        (
            http(Action::Deny, &["5432"]),
            vec![
                ("authz-http-on-tcp-deny", PATHS),
                ("authz-path-query", PATHS),
            ],
        ),
        (
            http(Action::Deny, &["80"]),
            vec![("authz-path-query", PATHS)],
        ),
        (
            jwt,
            vec![
                ("authz-bypass-direct-pod", TARGET),
                ("authz-http-on-tcp-allow", "spec.rules[0].when[0].key"),
                (
                    "authz-jwt-without-requestauthn",
                    "spec.rules[0].when[0].key",
                ),
            ],
        ),
        (
            custom,
            vec![
                ("authz-bypass-direct-pod", TARGET),
                ("authz-custom-provider", "spec.provider"),
            ],
        ),
        (
            with_target("Service", "web"),
            vec![("authz-bypass-direct-pod", TARGET)],
        ),
    ] {
        let mut world = guarded();
        let db = vec![port(5432, AppProtocol::Tcp)];
        world.service(service("app", "db", "10.96.0.5", db));
        let http = || vec![port(80, AppProtocol::Http)];
        world.service(unbound("app", "plain", "10.96.0.6", http()));
        world.service(unbound("other", "remote", "10.96.0.7", http()));
        let far = ObjectKey::new("other", "far-wp");
        world.waypoints.insert(far.clone(), waypoint(&far));
        world.policy(&key("p"), policy.clone());
        world.proxies.clear();
        let expected = expected.into_iter().map(|(code, at)| (code, at.to_owned()));
        let expected: Vec<_> = expected.collect();
        assert_eq!(fields(&world, "p"), expected, "{:?}", policy.targets);
    }
}

/// A world with one captured pod behind its service.
fn guarded() -> World {
    let mut world = world();
    let services = &world.services;
    let web = services.values().find(|row| row.name == "web").unwrap();
    let pod = pod("app", "a", "10.0.0.1", Some(web));
    world.workload(pod);
    world
}

/// Codes and fields of the findings about a policy.
fn fields(world: &World, policy: &str) -> Vec<(&'static str, String)> {
    let mut found: Vec<_> = world
        .derive()
        .findings
        .into_iter()
        .filter(|found| found.object.key == key(policy))
        .map(|found| (found.code, found.field.to_string()))
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn a_waypoint_is_bypassed_unless_its_pods_admit_it_alone() {
    let from = |source: AuthzSource| AuthzRule {
        from: vec![source],
        ..Default::default()
    };
    let principal = |name: &str| {
        from(AuthzSource {
            principals: values(&[name]),
            ..Default::default()
        })
    };
    let account = |name: &str| {
        from(AuthzSource {
            service_accounts: values(&[name]),
            ..Default::default()
        })
    };
    let all_but = |name: &str| {
        let mut source = AuthzSource::default();
        source.principals.not_values = vec![name.into()];
        from(source)
    };
    let (wp, web) = ("cluster.local/ns/app/sa/wp", "cluster.local/ns/app/sa/web");
    for (case, action, rules, open) in [
        ("waypoint", Action::Allow, vec![principal(wp)], false),
        ("account", Action::Allow, vec![account("wp")], false),
        ("nobody", Action::Allow, vec![], false),
        ("client", Action::Allow, vec![principal(web)], true),
        (
            "both",
            Action::Allow,
            vec![principal(wp), principal(web)],
            true,
        ),
        ("anybody", Action::Allow, vec![AuthzRule::default()], true),
        ("all but", Action::Deny, vec![all_but(wp)], false),
        ("other deny", Action::Deny, vec![principal(web)], true),
        ("audit", Action::Audit, vec![principal(wp)], true),
    ] {
        let mut world = guarded();
        world.policy(&key("p"), with_target("Gateway", "wp"));
        let l4 = AuthorizationPolicy {
            action,
            rules,
            ..Default::default()
        };
        world.policy(&key("l4"), l4);
        let found = world.derive().codes(&key("p"));
        assert_eq!(found.contains(&"authz-bypass-direct-pod"), open, "{case}");
    }
}

#[test]
fn a_policy_without_targets_that_means_a_waypoint_is_reported() {
    let gateway = ("gateway.networking.k8s.io/gateway-name", "wp");
    let http = || vec![odd_path(&[])];
    for (case, ns, labels, rules, expected) in [
        ("by gateway name", "app", vec![gateway], vec![], true),
        (
            "another gateway",
            "app",
            vec![(gateway.0, "x")],
            vec![],
            false,
        ),
        (
            "by its own label",
            "app",
            vec![("app", "gate")],
            vec![],
            true,
        ),
        ("others too", "app", vec![("tier", "any")], vec![], false),
        ("http, others", "app", vec![("app", "web")], http(), false),
        ("http, nobody", "app", vec![("app", "gone")], http(), true),
        ("l4, nobody", "app", vec![("app", "gone")], vec![], false),
        ("http, everybody", "app", vec![], http(), false),
        ("no waypoint here", "other", vec![gateway], http(), false),
        ("root", "istio-system", vec![("app", "gate")], vec![], true),
        (
            "root, others",
            "istio-system",
            vec![("tier", "any")],
            http(),
            false,
        ),
    ] {
        let mut world = guarded();
        let set = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        for row in world.workloads.values_mut() {
            row.labels = set(&[("app", "web"), ("tier", "any")]);
        }
        world.workload(WorkloadRow {
            labels: set(&[gateway, ("app", "gate"), ("tier", "any")]),
            ..pod("app", "wp-0", "10.0.0.9", None)
        });
        let policy = ObjectKey::new(ns, "p");
        let body = AuthorizationPolicy {
            selector: (!labels.is_empty()).then(|| set(&labels)),
            rules,
            ..Default::default()
        };
        world.policy(&policy, body);
        let found = world.derive().codes(&policy);
        assert_eq!(found.contains(&"authz-no-ref-waypoint"), expected, "{case}");
    }
}

#[test]
fn a_waypoint_that_nothing_uses_names_what_idles_on_it() {
    let bound = Some(BoundWaypoint {
        key: waypoint_key(),
        address: None,
    });
    for (case, service, workload, ready, route, expected) in [
        (
            "empty",
            false,
            false,
            true,
            false,
            Some("Nothing is bound to waypoint app/wp"),
        ),
        (
            "with a route",
            false,
            false,
            true,
            true,
            Some("Nothing is bound to waypoint app/wp; HTTPRoute app/r idles on it"),
        ),
        ("a service", true, false, true, false, None),
        ("a workload", false, true, true, false, None),
        ("not ready", false, false, false, false, None),
    ] {
        let mut world = if service { self::world() } else { World::new() };
        world.waypoints.get_mut(&waypoint_key()).unwrap().ready = ready;
        if workload {
            world.workload(WorkloadRow {
                waypoint: bound.clone().map(Box::new),
                ..pod("app", "a", "10.0.0.1", None)
            });
        }
        if route {
            let parent = reference("Gateway", "app", "wp", None);
            world.route(&key("r"), crate::route(parent, vec![]));
        }
        let found = world.derive().findings;
        let mut unused = found.iter().filter(|found| found.code == "wp-unused");
        let message = unused.next().map(|found| found.message.as_str());
        assert_eq!(message, expected, "{case}");
    }
}

#[test]
fn hosts_resolved_per_request_are_reported_when_bound() {
    let mut world = World::new();
    let mut any = service("app", "any", "10.96.0.1", vec![port(80, AppProtocol::Http)]);
    any.resolution = Resolution::DynamicDns;
    any.source = ObjectRef::new(Kind::ServiceEntry, key("any"));
    world.service(any);
    world.proxies.clear();
    assert_eq!(
        world.derive().codes(&key("any")),
        ["se-dynamic-dns-not-supported"]
    );
}

#[test]
fn a_bound_service_whose_endpoints_are_all_outside_the_mesh_is_reported() {
    let gateway = "gateway.networking.k8s.io/gateway-name";
    for (case, hbone, terminating, label, expected) in [
        ("none", vec![], false, "app", false),
        ("one outside", vec![false], false, "app", true),
        ("one inside", vec![true], false, "app", false),
        ("half", vec![false, true], false, "app", false),
        ("going", vec![false], true, "app", false),
        ("a gateway", vec![false], false, gateway, false),
    ] {
        let mut world = world();
        let services = &world.services;
        let web = services.values().find(|row| row.name == "web").unwrap();
        let pods: Vec<_> = hbone
            .into_iter()
            .enumerate()
            .map(|(n, hbone)| WorkloadRow {
                hbone,
                terminating,
                labels: [(label.into(), "x".into())].into(),
                ..pod(
                    "app",
                    &format!("web-{n}"),
                    &format!("10.0.0.{}", n + 1),
                    Some(web),
                )
            })
            .collect();
        for pod in pods {
            world.workload(pod);
        }
        let found = world.derive().codes(&key("web"));
        assert_eq!(found.contains(&"wp-server-not-ambient"), expected, "{case}");
    }
}
