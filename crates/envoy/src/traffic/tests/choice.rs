//! Which rules concern a service, and how they are merged.

use super::*;

#[test]
fn the_first_namespace_with_a_rule_decides() {
    let all = [
        ("app/a", 1, rule(HOST, &[])),
        ("shop/b", 1, rule("web", &[])),
        ("istio-system/c", 1, rule(HOST, &[])),
        ("else/d", 1, rule(HOST, &[])),
    ];
    assert_eq!(Case::new(&all).winners(), ["app/a"]);
    assert_eq!(Case::new(&all[1..]).winners(), ["shop/b"]);
    assert_eq!(Case::new(&all[2..]).winners(), ["istio-system/c"]);
    assert!(Case::new(&all[3..]).winners().is_empty());
    // A short host is of the rule's own namespace.
    assert!(
        Case::new(&[("app/a", 1, rule("web", &[]))])
            .winners()
            .is_empty()
    );
    let mut strict = Case::new(&all);
    strict.mesh.features.foreign_hosts = false;
    assert_eq!(strict.winners(), ["shop/b"]);
}

#[test]
fn who_sees_rule_and_service_counts() {
    let only = |at: &'static str, export_to: &[&str]| [(at, 1, rule(HOST, export_to))];
    for (rows, applies) in [
        (only("app/a", &["."]), true),
        (only("app/a", &["other"]), false),
        (only("shop/a", &["."]), false),
        (only("shop/a", &["app"]), true),
        (only("shop/a", &["*"]), true),
        (only("istio-system/a", &["."]), false),
    ] {
        let case = Case::new(&rows);
        assert_eq!(!case.winners().is_empty(), applies, "{rows:?}");
    }
    let rows = only("app/a", &[]);
    let mut case = Case::new(&rows);
    case.service.export_to = vec![".".into()];
    assert!(case.winners().is_empty());
    case.service.export_to = vec!["app".into()];
    assert_eq!(case.winners(), ["app/a"]);
    // By default rules of the mesh may be private.
    let rows = only("shop/a", &[]);
    let mut case = Case::new(&rows);
    case.mesh.traffic.destination_rule_export_to = vec![".".into()];
    assert!(case.winners().is_empty());
}

#[test]
fn a_waypoint_of_the_root_namespace_takes_private_rules_first() {
    let rows = [
        ("istio-system/open", 1, rule(HOST, &[])),
        ("istio-system/private", 2, rule(HOST, &["."])),
        ("shop/own", 1, rule(HOST, &[])),
    ];
    let mut case = Case::new(&rows);
    case.waypoint = ObjectKey::new("istio-system", "wp");
    assert_eq!(case.winners(), ["istio-system/private"]);
    let rest = [rows[0].clone(), rows[2].clone()];
    let mut case = Case::new(&rest);
    case.waypoint = ObjectKey::new("istio-system", "wp");
    assert_eq!(case.winners(), ["shop/own"]);
}

#[test]
fn exact_hosts_beat_wildcards_and_longer_ones_shorter() {
    let mut rows = vec![
        ("shop/all", 1, rule("*", &[])),
        ("shop/local", 1, rule("*.local", &[])),
        ("shop/ns", 1, rule("*.shop.svc.cluster.local", &[])),
        ("shop/web", 9, rule("WEB.shop.svc.cluster.local", &[])),
    ];
    for expected in ["shop/web", "shop/ns", "shop/local", "shop/all"] {
        assert_eq!(Case::new(&rows).winners(), [expected]);
        rows.pop();
    }
    assert!(host_rank("*.example.com", "example.com").is_none());
    assert!(host_rank("*.example.com", "*.example.com").is_some());
    assert!(host_rank("*.com", "*.example.com").is_some());
}

fn subset(name: &str, version: &str) -> Subset {
    Subset {
        name: name.into(),
        labels: Labels::from_iter([("version".into(), version.into())]),
        policy: None,
    }
}

#[test]
fn rules_of_one_host_are_merged_in_any_order() {
    let with = |policy: bool, export_to: &[&str], subsets: &[(&str, &str)]| DestinationRule {
        policy: policy.then(TrafficPolicy::default),
        subsets: subsets.iter().map(|(n, v)| subset(n, v)).collect(),
        ..rule(HOST, export_to)
    };
    let mut rows = vec![
        (
            "shop/young",
            3,
            with(true, &[], &[("v1", "other"), ("v3", "v3")]),
        ),
        (
            "shop/old",
            1,
            with(false, &[], &[("v1", "v1"), ("v2", "v2")]),
        ),
        ("shop/middle", 2, with(true, &[], &[])),
        ("shop/elsewhere", 4, with(true, &["app"], &[("v4", "v4")])),
    ];
    for _ in 0..rows.len() {
        rows.rotate_left(1);
        let case = Case::new(&rows);
        assert_eq!(case.winners(), ["shop/middle", "shop/old", "shop/young"]);
        let table = rules(&rows);
        let tables = TrafficTables {
            destination_rules: table.view(),
        };
        let seen = Seen::from(&case.waypoint, &case.service, &case.mesh);
        let found = resolve(tables, &mut Reads::detached(), &seen).unwrap();
        let subsets: Vec<_> = found.subsets().cloned().collect();
        let expected = [subset("v1", "v1"), subset("v2", "v2"), subset("v3", "v3")];
        assert_eq!(subsets, expected);
        for (name, exists) in [("", true), ("v2", true), ("v4", false)] {
            let reads = &mut Reads::detached();
            assert_eq!(subset_exists(tables, reads, &seen, name), exists);
        }
    }
}

#[test]
fn selecting_rules_concern_services_elsewhere() {
    let selecting = |name: &str| DestinationRule {
        workload_selector: Some(Labels::from_iter([(
            "gateway.networking.k8s.io/gateway-name".into(),
            name.into(),
        )])),
        ..rule(HOST, &[])
    };
    let rows = [
        ("app/any", 1, rule(HOST, &[])),
        ("app/mine", 2, selecting("wp")),
        ("app/other", 3, selecting("other")),
    ];
    let mut case = Case::new(&rows);
    assert_eq!(case.winners(), ["app/any"]);
    case.direction = Direction::Outbound;
    assert_eq!(case.winners(), ["app/mine"]);
    let rows = [("shop/mine", 2, selecting("wp"))];
    let mut case = Case::new(&rows);
    case.direction = Direction::Outbound;
    assert!(case.winners().is_empty());
}

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn random() -> Option<LoadBalancer> {
    Some(LoadBalancer {
        balancer: Balancer::Random,
        ..LoadBalancer::default()
    })
}

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn pool(connections: u32) -> Option<ConnectionPool> {
    Some(ConnectionPool {
        max_connections: Some(connections),
        ..ConnectionPool::default()
    })
}

#[test]
fn ports_replace_everything_and_subsets_block_by_block() {
    let top = TrafficPolicy {
        base: PortPolicy {
            balancer: random(),
            pool: pool(1),
            ..PortPolicy::default()
        },
        ports: [(
            80,
            PortPolicy {
                pool: pool(2),
                ..PortPolicy::default()
            },
        )]
        .into(),
        proxy_protocol: Some(1),
        ..TrafficPolicy::default()
    };
    let of_subset = TrafficPolicy {
        base: PortPolicy {
            pool: pool(3),
            ..PortPolicy::default()
        },
        ports: [(
            90,
            PortPolicy {
                pool: pool(4),
                ..PortPolicy::default()
            },
        )]
        .into(),
        ..TrafficPolicy::default()
    };
    let rows = [(
        "shop/r",
        1,
        DestinationRule {
            policy: Some(top),
            subsets: vec![Subset {
                policy: Some(of_subset),
                ..subset("v1", "v1")
            }],
            ..rule(HOST, &[])
        },
    )];
    let table = rules(&rows);
    let tables = TrafficTables {
        destination_rules: table.view(),
    };
    let (service, mesh, at) = (service(), MeshRow::default(), waypoint());
    let seen = Seen::from(&at, &service, &mesh);
    let found = resolve(tables, &mut Reads::detached(), &seen).unwrap();
    for (port, subset, balancer, connections, proxy) in [
        (70, "", random(), 1, Some(1)),
        (80, "", None, 2, None),
        (70, "v1", random(), 3, Some(1)),
        (80, "v1", None, 3, None),
        (90, "v1", None, 4, None),
        (70, "unknown", random(), 1, Some(1)),
    ] {
        let policy = policy_of(&found, port, subset);
        let expected = (balancer, pool(connections), proxy);
        let got = (
            policy.base.balancer,
            policy.base.pool,
            policy.proxy_protocol,
        );
        assert_eq!(got, expected, "{port} {subset}");
        assert_eq!(policy.rule, Some(ObjectKey::new("shop", "r")));
    }
}
