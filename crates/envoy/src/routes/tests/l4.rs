//! Where connections go.

use super::*;

const TCP: &str = "inbound-vip|80|tcp|web.app.svc.cluster.local";

fn l4(hostnames: &[&str], port: Option<u16>, backends: Vec<BackendRef>) -> L4Route {
    L4Route {
        parents: vec![reference("Service", "app", "web", port)],
        hostnames: hostnames.iter().map(|host| Str::from(*host)).collect(),
        rules: vec![
            L4Rule {
                name: None,
                backends,
            },
            L4Rule {
                name: None,
                backends: vec![backend("v2", 1)],
            },
        ],
    }
}

fn world() -> World {
    let mut world = World::new();
    for name in ["web", "v1", "v2"] {
        world.service(name).ports[0].protocol = AppProtocol::Tcp;
    }
    world
}

fn tcp(world: &mut World, name: &str, created_s: i64, route: L4Route) {
    let key: ObjectKey = name.parse().unwrap();
    world
        .tcp
        .insert(key.clone(), parsed(&key, created_s, route));
}

fn tls(world: &mut World, name: &str, route: L4Route) {
    let key: ObjectKey = name.parse().unwrap();
    world.tls.insert(key.clone(), parsed(&key, 9, route));
}

fn clusters(world: &World) -> Vec<(Str, u32)> {
    world
        .at(|site, tables, reads| tcp_for_port(site, tables, reads, 80, &TCP.into()))
        .0
        .clusters
}

fn to(name: &str, weight: u32) -> (Str, u32) {
    let cluster = format!("inbound-vip|80|tcp|{name}.app.svc.cluster.local");
    (cluster.into(), weight)
}

#[test]
fn without_routes_connections_go_to_the_service() {
    let found =
        world().at(|site, tables, reads| tcp_for_port(site, tables, reads, 80, &TCP.into()));
    assert_eq!(found, (TcpIr::to(TCP.into()), BTreeSet::new()));
}

#[test]
fn the_first_rule_of_the_oldest_route_counts() {
    let mut world = world();
    let split = vec![
        backend("v1", 3),
        backend("v2", 0),
        backend("none", 2),
        backend("depot/far", 1),
    ];
    tcp(&mut world, "app/b", 1, l4(&[], None, split));
    tcp(
        &mut world,
        "app/a",
        2,
        l4(&[], None, vec![backend("v2", 1)]),
    );
    let (found, outbound) =
        world.at(|site, tables, reads| tcp_for_port(site, tables, reads, 80, &TCP.into()));
    let unknown = ("UnknownService".into(), 2);
    assert_eq!(found.clusters, [to("v1", 3), unknown, (FAR.into(), 1)]);
    assert_eq!(outbound.len(), 1);
}

#[test]
fn tls_routes_come_before_tcp_routes_where_their_name_fits() {
    let host = "web.app.svc.cluster.local";
    for (hostnames, counts) in [
        (vec![], true),
        (vec![host], true),
        (vec![host, "other.example"], true),
        (vec!["*.app.svc.cluster.local"], false),
        (vec![host, "*.cluster.local"], false),
        (vec!["other.example"], false),
    ] {
        let mut world = world();
        tcp(
            &mut world,
            "app/t",
            1,
            l4(&[], None, vec![backend("v1", 1)]),
        );
        tls(
            &mut world,
            "app/s",
            l4(&hostnames, None, vec![backend("v2", 1)]),
        );
        let expected = if counts { to("v2", 1) } else { to("v1", 1) };
        assert_eq!(clusters(&world), [expected], "{hostnames:?}");
    }
}

#[test]
fn no_weight_closes_connections_and_unusable_routes_do_not_count() {
    let closed = [("UnknownService".into(), 1)];
    let own = [(Str::from(TCP), 1)];
    for (route, expected) in [
        (l4(&[], None, vec![backend("v1", 0)]), &closed),
        (l4(&[], None, vec![]), &closed),
        (l4(&[], Some(81), vec![backend("v1", 1)]), &own),
        (l4(&[], None, vec![backend("a.b", 1)]), &own),
    ] {
        let mut world = world();
        tcp(&mut world, "app/t", 1, route);
        assert_eq!(clusters(&world), *expected);
    }
    let mut world = world();
    tcp(
        &mut world,
        "client/t",
        1,
        l4(&[], None, vec![backend("v1", 1)]),
    );
    assert_eq!(clusters(&world), own);
}
