use proto::workload::{NamespacedHostname, NetworkAddress, Port, PortList};

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
