use proto::workload::{NamespacedHostname, NetworkAddress, Port, PortList, WeightedWaypoint};

use super::*;

fn workload(name: &str, addr: [u8; 4], service: Option<&str>) -> Workload {
    let ports = PortList {
        ports: vec![Port {
            service_port: 80,
            target_port: 9080,
            app_protocol: 0,
        }],
    };
    Workload {
        uid: format!("Kubernetes//Pod/app/{name}"),
        name: name.into(),
        namespace: "app".into(),
        service_account: name.into(),
        addresses: vec![addr.to_vec().into()],
        tunnel_protocol: TunnelProtocol::Hbone as i32,
        services: service
            .map(|s| (format!("app/{s}.host"), ports))
            .into_iter()
            .collect(),
        ..Workload::default()
    }
}

fn service(name: &str, vip: [u8; 4], ports: &[(u32, u32)], waypoint: Option<&str>) -> Service {
    Service {
        name: name.into(),
        namespace: "app".into(),
        hostname: format!("{name}.host"),
        addresses: vec![NetworkAddress {
            address: vip.to_vec().into(),
            ..Default::default()
        }],
        ports: ports
            .iter()
            .map(|(service_port, target_port)| Port {
                service_port: *service_port,
                target_port: *target_port,
                app_protocol: 0,
            })
            .collect(),
        waypoint: waypoint.map(|host| GatewayAddress {
            hbone_mtls_port: 15008,
            destination: Some(Destination::Hostname(NamespacedHostname {
                namespace: "app".into(),
                hostname: format!("{host}.host"),
            })),
        }),
        ..Service::default()
    }
}

fn mesh() -> MeshState {
    let mut state = MeshState::default();
    let mut wp = workload("wp", [10, 1, 0, 9], Some("wp"));
    wp.services.insert(
        "app/wp.host".into(),
        PortList {
            ports: vec![Port {
                service_port: 15008,
                target_port: 15008,
                app_protocol: 0,
            }],
        },
    );
    let mut sick = workload("sick", [10, 1, 0, 2], Some("direct"));
    sick.status = WorkloadStatus::Unhealthy as i32;
    let mut plain = workload("plain", [10, 1, 0, 3], None);
    plain.tunnel_protocol = 0;
    for w in [
        workload("a", [10, 1, 0, 1], Some("direct")),
        sick,
        plain,
        wp,
    ] {
        state.workloads.insert(w.uid.clone(), w);
    }
    for s in [
        service("direct", [10, 2, 0, 1], &[(80, 9080)], None),
        service("fronted", [10, 2, 0, 2], &[(80, 9080)], Some("wp")),
        service("wp", [10, 2, 0, 9], &[(15008, 15008)], None),
        service("lost", [10, 2, 0, 3], &[(80, 9080)], Some("gone")),
        service("empty", [10, 2, 0, 4], &[(80, 9080)], None),
    ] {
        state.services.insert(format!("app/{}", s.hostname), s);
    }
    state
}

#[test]
fn a_connection_goes_where_ztunnel_sends_it() {
    let hop = |server: &str, authority: &str, name: &str| Hop {
        server: server.parse().unwrap(),
        authority: authority.parse().unwrap(),
        expected: SpiffeId::new("cluster.local", "app", name),
        name: name.into(),
    };
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let direct = Route::Workload(hop("10.1.0.1:15008", "10.1.0.1:9080", "a"));
    for (destination, expected) in [
        ("10.2.0.1:80", Ok(direct.clone())),
        (
            "10.2.0.2:80",
            Ok(Route::Waypoint(hop("10.1.0.9:15008", "10.2.0.2:80", "wp"))),
        ),
        ("10.1.0.1:9080", Ok(direct)),
        ("10.1.0.3:9080", Ok(Route::Plain(addr("10.1.0.3:9080")))),
        (
            "192.0.2.1:443",
            Ok(Route::Passthrough(addr("192.0.2.1:443"))),
        ),
        ("10.2.0.1:81", Err(RouteError::NoPort)),
        ("10.2.0.3:80", Err(RouteError::NoWaypoint)),
        ("10.2.0.4:80", Err(RouteError::NoEndpoint)),
    ] {
        for choice in 0..3 {
            assert_eq!(
                route(&mesh(), addr(destination), choice),
                expected,
                "{destination}"
            );
        }
    }
}

fn to(host: &str) -> GatewayAddress {
    GatewayAddress {
        hbone_mtls_port: 15008,
        destination: Some(Destination::Hostname(NamespacedHostname {
            namespace: "app".into(),
            hostname: format!("{host}.host"),
        })),
    }
}

/// A mesh whose service `fronted` is shared by waypoints `wp` and `next`.
fn shared(weights: &[(&str, u32)]) -> MeshState {
    let mut state = mesh();
    let mut next = state.workloads["Kubernetes//Pod/app/wp"].clone();
    next.uid = "Kubernetes//Pod/app/next".into();
    next.name = "next".into();
    next.hostname = "next.host".into();
    next.addresses = vec![vec![10, 1, 0, 8].into()];
    next.services.clear();
    state.workloads.insert(next.uid.clone(), next);
    let fronted = state.services.get_mut("app/fronted.host").unwrap();
    fronted.weighted_waypoints = weights
        .iter()
        .map(|(host, weight)| WeightedWaypoint {
            destination: Some(to(host)),
            weight: *weight,
        })
        .collect();
    state
}

#[test]
fn waypoints_that_share_a_service_take_what_their_weights_say() {
    let cases: [(&[(&str, u32)], _); 6] = [
        (&[], [100, 0, 0]),
        (&[("wp", 0), ("next", 0)], [100, 0, 0]),
        (&[("wp", 75), ("next", 25)], [75, 25, 0]),
        (&[("wp", 0), ("next", 100)], [0, 100, 0]),
        (&[("wp", 100), ("next", 0)], [100, 0, 0]),
        // One that is not to be found refuses its share; it is never bypassed.
        (&[("wp", 60), ("gone", 40)], [60, 0, 40]),
    ];
    for (weights, [wp, next, refused]) in cases {
        let state = shared(weights);
        let mut found = [0_usize; 3];
        for choice in 0..1000 {
            let at = match route(&state, "10.2.0.2:80".parse().unwrap(), choice) {
                Ok(Route::Waypoint(hop)) if hop.name == "wp" => 0,
                Ok(Route::Waypoint(hop)) if hop.name == "next" => 1,
                Err(RouteError::NoWaypoint) => 2,
                other => panic!("{weights:?}: {other:?}"),
            };
            found[at] += 1;
        }
        for (found, percent) in found.into_iter().zip([wp, next, refused]) {
            assert!(
                found.abs_diff(percent * 10) <= 5,
                "{weights:?}: {found} of 1000, not {percent} %"
            );
            assert_eq!(found == 0, percent == 0, "{weights:?}");
        }
    }
}

#[test]
fn waypoint_that_stands_for_one_that_is_missing_refuses_services_and_workloads() {
    let mut state = mesh();
    state.services.get_mut("app/direct.host").unwrap().waypoint = Some(to("blocked"));
    let pod = state.workloads.get_mut("Kubernetes//Pod/app/a").unwrap();
    pod.waypoint = Some(to("blocked"));
    for destination in ["10.2.0.1:80", "10.1.0.1:9080"] {
        let found = route(&state, destination.parse().unwrap(), 0);
        assert_eq!(found, Err(RouteError::NoWaypoint), "{destination}");
    }
}
