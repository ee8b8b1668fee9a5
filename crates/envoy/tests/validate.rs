//! Real Envoy accepts everything that the stages emit for a world with all of it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

mod support;

use std::process::Command;

use ambientd_envoy as envoy;
use envoy::bootstrap::{BootstrapOptions, BootstrapRole, BootstrapSecrets, bootstrap};
use envoy::emit::Resource;
use model::derived::{AppProtocol, BoundWaypoint};
use model::input::{
    Action, AuthorizationPolicy, AuthzOperation, AuthzRule, AuthzSource, HttpMatch, HttpRule,
    PathMatch, Resolution, ValueMatch, Values,
};
use model::proxy::{SecretSource, StringFactory};
use model::{ObjectKey, ProxyClass, Str, WorkloadRow};
use serde_json::{Value, json};
use support::*;

fn values(values: &[&str]) -> Values {
    Values {
        values: values.iter().map(|v| Str::from(*v)).collect(),
        not_values: Vec::new(),
    }
}

fn not_values(values: &[&str]) -> Values {
    Values {
        values: Vec::new(),
        not_values: values.iter().map(|v| Str::from(*v)).collect(),
    }
}

/// Every attribute, so that every matcher is seen by Envoy.
fn full_rule() -> AuthzRule {
    let text = ["*", "a*", "*z", "exact"];
    AuthzRule {
        from: vec![
            AuthzSource {
                principals: values(&["*", "cluster.local/ns/a/sa/b", "*/sa/c", "td/*"]),
                namespaces: values(&["*", "a", "a*", "*z"]),
                service_accounts: values(&["sa", "ns/sa"]),
                trust_domains: values(&["*", "cluster.local", "other", "cl*"]),
                ip_blocks: values(&["10.0.0.0/8", "fd00::/64", "10.1.1.1"]),
                remote_ip_blocks: not_values(&["10.9.0.0/16"]),
                ..Default::default()
            },
            AuthzSource::default(),
        ],
        to: vec![
            AuthzOperation {
                hosts: values(&text),
                methods: values(&["*", "GET", "P*"]),
                paths: values(&["*", "/a", "/a*", "*.html", "/a/{*}/b", "/a/{**}"]),
                ports: values(&["80", "443"]),
            },
            AuthzOperation {
                paths: not_values(&["/private*"]),
                ..Default::default()
            },
        ],
        when: vec![
            ("request.headers[X-Token]".into(), values(&text)),
            ("destination.ip".into(), values(&["10.0.0.1", "10.0.0.0/8"])),
            ("destination.port".into(), values(&["80"])),
            ("connection.sni".into(), values(&text)),
            ("source.ip".into(), not_values(&["10.0.0.1"])),
            ("source.namespace".into(), values(&["a"])),
        ],
    }
}

fn full_world() -> World {
    let mut world = World::new();
    world.mesh.trust_domain_aliases = vec!["old.example".into()];
    let ports = vec![
        port(80, AppProtocol::Http),
        port(81, AppProtocol::Http2),
        port(82, AppProtocol::GrpcWeb),
        port(90, AppProtocol::Unknown),
        port(91, AppProtocol::Tcp),
        port(443, AppProtocol::Https),
        port(53, AppProtocol::Udp),
    ];
    let web = service("app", "web", "10.96.0.1", ports);
    let v2 = service("app", "v2", "fd00:10::2", vec![port(80, AppProtocol::Http)]);
    let twin = service("app", "twin", "10.96.0.1", vec![port(80, AppProtocol::Tcp)]);
    let other = unbound(
        "other",
        "api",
        "10.96.0.9",
        vec![port(80, AppProtocol::Http)],
    );
    for (n, resolution) in [
        Resolution::None,
        Resolution::Dns,
        Resolution::DnsRoundRobin,
        Resolution::DynamicDns,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("ext{n}");
        let vip = format!("10.97.0.{}", n + 1);
        let mut row = service("app", &name, &vip, vec![port(80, AppProtocol::Http)]);
        row.resolution = resolution;
        let mut host = pod("app", &name, "10.0.9.9", Some(&row));
        host.addresses.clear();
        host.hostname = format!("{name}.example.com").into();
        world.workload(host).service(row);
    }
    world.workload(pod("app", "web-1", "10.0.0.1", Some(&web)));
    world.workload(WorkloadRow {
        healthy: false,
        ..pod("app", "web-2", "fd00::2", Some(&web))
    });
    world.workload(WorkloadRow {
        hbone: false,
        ..pod("app", "v2-1", "10.0.0.3", Some(&v2))
    });
    world.workload(WorkloadRow {
        waypoint: Some(Box::new(BoundWaypoint {
            key: waypoint_key(),
            address: None,
        })),
        ..pod("other", "api-1", "10.0.0.4", Some(&other))
    });
    world.service(web).service(v2).service(twin).service(other);
    let m = HttpMatch {
        path: Some(PathMatch::Regex("/v[0-9]+/.*".into())),
        headers: vec![
            ("x-a".into(), ValueMatch::Exact("b".into())),
            ("x-b".into(), ValueMatch::Regex("b+".into())),
            ("x-c".into(), ValueMatch::Regex("*".into())),
        ],
        query: vec![("q".into(), ValueMatch::Exact("1".into()))],
        method: Some("POST".into()),
    };
    let exact = HttpMatch {
        path: Some(PathMatch::Exact("/exact".into())),
        ..Default::default()
    };
    let rules = vec![
        rule(
            vec![m, exact],
            vec![backend("app", "web", 80, 90), backend("app", "v2", 80, 10)],
        ),
        rule(
            vec![prefix("/other/")],
            vec![backend("other", "api", 80, 1)],
        ),
        rule(
            vec![prefix("/gone")],
            vec![backend("app", "gone", 80, 1), backend("app", "v2", 80, 0)],
        ),
        rule(vec![prefix("/none")], vec![]),
        HttpRule {
            matches: vec![prefix("/")],
            backends: vec![backend("app", "web", 91, 1)],
            ..Default::default()
        },
    ];
    world.route(
        &ObjectKey::new("app", "own"),
        route(reference("Service", "app", "web", None), rules.clone()),
    );
    world.route(
        &ObjectKey::new("app", "shared"),
        route(reference("Gateway", "app", "wp", None), rules),
    );
    for (name, action, dry_run, kind, object) in [
        ("allow", Action::Allow, false, "Service", "web"),
        ("deny", Action::Deny, false, "Gateway", "wp"),
        ("audit", Action::Audit, false, "Gateway", "wp"),
        ("custom", Action::Custom, false, "Gateway", "wp"),
        ("dry-allow", Action::Allow, true, "Gateway", "wp"),
        ("dry-deny", Action::Deny, true, "Service", "web"),
        ("empty", Action::Allow, false, "Service", "v2"),
    ] {
        let rules = if name == "empty" {
            vec![]
        } else {
            vec![full_rule(), AuthzRule::default()]
        };
        let policy = AuthorizationPolicy {
            targets: vec![target(kind, object)],
            action,
            rules,
            dry_run,
            ..Default::default()
        };
        world.policy(&ObjectKey::new("app", name), policy);
    }
    world
}

fn json_of(resource: &Resource) -> Value {
    proto::json::to_json(resource.type_url, &resource.bytes).unwrap()
}

/// Puts routes where route discovery would fetch them; how many.
fn inline(value: &mut Value, routes: &[Value]) -> usize {
    match value {
        Value::Object(map) => {
            let mut count = 0;
            if let Some(rds) = map.remove("rds") {
                let own = |r: &&Value| r["name"] == rds["routeConfigName"];
                let own = routes.iter().find(own).expect("a chain has its routes");
                map.insert("routeConfig".to_owned(), own.clone());
                count += 1;
            }
            count + map.values_mut().map(|v| inline(v, routes)).sum::<usize>()
        }
        Value::Array(list) => list.iter_mut().map(|v| inline(v, routes)).sum(),
        _ => 0,
    }
}

/// The resources as a static configuration: EDS becomes an inline assignment, RDS inline routes.
fn configuration(dir: &std::path::Path, world: &World, class: &ProxyClass) -> Value {
    let path = |name: &str| dir.join(name).display().to_string();
    let certified = rcgen::generate_simple_self_signed(vec!["wp.test".to_owned()]).unwrap();
    std::fs::write(path("chain.pem"), certified.cert.pem()).unwrap();
    std::fs::write(path("root.pem"), certified.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let secrets = match class.secrets {
        SecretSource::Bootstrap => BootstrapSecrets::Files {
            cert_chain: path("chain.pem"),
            private_key: path("key.pem"),
            root: path("root.pem"),
        },
        SecretSource::SdsGrpc => BootstrapSecrets::Agent {
            socket: "/var/run/secrets/socket".into(),
        },
    };
    let mut config = bootstrap(&BootstrapOptions {
        role: BootstrapRole::Waypoint,
        gateway: class.gateway.clone(),
        pod_name: "wp-0".into(),
        service_account: "wp".into(),
        cluster_id: "Kubernetes".into(),
        network: String::new(),
        domain: "cluster.local".into(),
        ip: "127.0.0.1".parse().unwrap(),
        bind_ip: true,
        admin_port: 0,
        xds_host: "127.0.0.1".into(),
        xds_port: 15012,
        xds_name: "istiod.istio-system.svc".into(),
        sotw: false,
        secrets,
        stats_port: None,
        metadata: std::collections::BTreeMap::new(),
        pod: envoy::bootstrap::PodInfo::default(),
    });
    config["dynamic_resources"] = json!({});
    let resources = world.derive().resources(class);
    let assignments: Vec<Value> = resources.endpoints.iter().map(json_of).collect();
    let mut clusters: Vec<Value> = resources.clusters.iter().map(json_of).collect();
    for cluster in &mut clusters {
        if cluster["type"] != "EDS" {
            continue;
        }
        let own = |a: &&Value| a["clusterName"] == cluster["edsClusterConfig"]["serviceName"];
        let assignment = assignments
            .iter()
            .find(own)
            .expect("every EDS cluster has its endpoints");
        cluster["type"] = json!("STATIC");
        cluster["loadAssignment"] = assignment.clone();
        cluster.as_object_mut().unwrap().remove("edsClusterConfig");
    }
    let own = config["static_resources"]["clusters"].as_array();
    clusters.extend(own.cloned().unwrap());
    config["static_resources"]["clusters"] = json!(clusters);
    let mut listeners: Vec<Value> = resources.listeners.iter().map(json_of).collect();
    let routes: Vec<Value> = resources.routes.iter().map(json_of).collect();
    let inlined: usize = listeners.iter_mut().map(|l| inline(l, &routes)).sum();
    assert_eq!(inlined, routes.len(), "every chain has its routes");
    config["static_resources"]["listeners"] = json!(listeners);
    config
}

fn validate(world: &World, class: &ProxyClass) {
    let envoy = std::env::var_os("AMBIENTD_ENVOY")
        .expect("AMBIENTD_ENVOY must name an Envoy binary; `cargo xtask test` provides one");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("envoy.json");
    let config = configuration(dir.path(), world, class);
    std::fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{class:?}:\n{stderr}");
    // Of RBAC the one field that works at a waypoint; fields whose successors older Envoys lack.
    let known = |line: &&str| {
        [
            "Principal.source_ip",
            "Principal.metadata",
            "Permission.metadata",
            "Cluster.dns_",
            "Cluster.respect_dns_ttl",
        ]
        .iter()
        .any(|field| line.contains(field))
    };
    let deprecated = stderr
        .lines()
        .filter(|line| line.contains("Deprecated field"));
    let other: Vec<&str> = deprecated.filter(|line| !known(line)).collect();
    assert_eq!(other, Vec::<&str>::new());
}

#[test]
fn envoy_accepts_everything_with_either_source_of_secrets() {
    for secrets in [SecretSource::Bootstrap, SecretSource::SdsGrpc] {
        let class = ProxyClass {
            secrets,
            bind: Some("127.0.0.1".parse().unwrap()),
            ..ProxyClass::waypoint(waypoint_key())
        };
        let mut world = full_world();
        world.proxies = vec![class.clone()];
        validate(&world, &class);
    }
}

#[test]
fn envoy_accepts_a_waypoint_that_serves_nothing() {
    let class = ProxyClass {
        secrets: SecretSource::Bootstrap,
        strings: StringFactory::EnvoyPlain,
        ..ProxyClass::waypoint(waypoint_key())
    };
    let mut world = World::new();
    world.proxies = vec![class.clone()];
    validate(&world, &class);
}

#[test]
fn equal_worlds_give_equal_bytes() {
    let class = ProxyClass::waypoint(waypoint_key());
    let bytes = || {
        let resources = full_world().derive().resources(&class);
        [
            resources.clusters,
            resources.endpoints,
            resources.listeners,
            resources.routes,
        ]
        .concat()
    };
    let first = bytes();
    for _ in 0..5 {
        assert_eq!(bytes(), first);
    }
}

#[test]
fn every_emitted_message_has_a_known_type_and_no_istio_extension() {
    fn look(value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(kind) = map.get("@type").and_then(Value::as_str) {
                    assert!(
                        !kind.contains("istio") && !kind.contains("TypedStruct"),
                        "{kind}"
                    );
                    let raw = map.len() == 2
                        && map.get("value").is_some_and(|v| v.is_string())
                        && !kind.ends_with("StringValue");
                    assert!(!raw, "{kind} is not in the descriptor pool");
                }
                map.values().for_each(look);
            }
            Value::Array(list) => list.iter().for_each(look),
            _ => {}
        }
    }
    let class = ProxyClass::waypoint(waypoint_key());
    let resources = full_world().derive().resources(&class);
    for resource in resources
        .clusters
        .iter()
        .chain(&resources.endpoints)
        .chain(&resources.listeners)
        .chain(&resources.routes)
    {
        look(&json_of(resource));
    }
}
