//! Which routes reach a port, and in what order.

use super::*;

fn named(name: &str, m: HttpMatch) -> HttpRule {
    HttpRule {
        name: Some(name.into()),
        matches: vec![m],
        backends: vec![backend("v1", 1)],
        ..HttpRule::default()
    }
}

#[test]
fn kinds_are_merged_and_the_more_specific_match_comes_first() {
    let header = |m: HttpMatch| HttpMatch {
        headers: vec![("h".into(), ValueMatch::Exact("1".into()))],
        ..m
    };
    let method = |m: HttpMatch| HttpMatch {
        method: Some("GET".into()),
        ..m
    };
    let query = |m: HttpMatch| HttpMatch {
        query: vec![("q".into(), ValueMatch::Exact("1".into()))],
        ..m
    };
    let mut world = World::new();
    world.http(
        "app/h",
        2,
        own(vec![
            named("all", HttpMatch::default()),
            named("regex", with_path(PathMatch::Regex("/r.*".into()))),
            named("short", prefix("/a")),
            named("long", prefix("/a/b")),
            named("query", query(prefix("/a"))),
            named("header", header(prefix("/a"))),
            named("method", method(prefix("/a"))),
            named("young", prefix("/same")),
        ]),
    );
    world.grpc(
        "app/g",
        1,
        own(vec![
            named("exact", with_path(PathMatch::Exact("/x".into()))),
            named("old", prefix("/same")),
        ]),
    );
    assert_eq!(
        names(&world.routes()),
        [
            "exact", "old", "young", "long", "method", "header", "query", "short", "regex", "all"
        ]
    );
}

#[test]
fn own_routes_decide_alone_and_those_of_the_gateway_fall_through() {
    let mut world = World::new();
    world.http("app/gw", 1, of_gateway(vec![named("gw", prefix("/g"))]));
    assert_eq!(names(&world.routes()), ["gw", "default"]);
    world.grpc("app/own", 2, own(vec![named("own", prefix("/o"))]));
    assert_eq!(names(&world.routes()), ["own"]);
}

#[test]
fn virtual_services_apply_where_no_route_reaches() {
    let key: ObjectKey = "app/vs".parse().unwrap();
    let destination = |host: &str| WeightedDestination {
        destination: Destination {
            host: host.into(),
            ..Destination::default()
        },
        ..WeightedDestination::default()
    };
    let spec = VirtualService {
        hosts: vec!["web".into()],
        http: vec![VirtualHttp {
            name: "vs".into(),
            routes: vec![destination("v2")],
            ..VirtualHttp::default()
        }],
        ..VirtualService::default()
    };
    let mut world = World::new();
    world
        .virtual_services
        .insert(key.clone(), parsed(&key, 1, spec));
    assert_eq!(names(&world.routes()), ["vs"]);
    world.http("app/gw", 1, of_gateway(vec![named("gw", prefix("/g"))]));
    assert_eq!(names(&world.routes()), ["gw", "default"]);
    world.http("app/own", 2, own(vec![named("own", prefix("/o"))]));
    assert_eq!(names(&world.routes()), ["own"]);
}

#[test]
fn of_a_rule_that_envoy_would_refuse_nothing_else_is_told() {
    let key: ObjectKey = "app/vs".parse().unwrap();
    for (origin, status) in [("a.*", 418), ("(", 500)] {
        let spec = VirtualService {
            hosts: vec!["web".into()],
            http: vec![VirtualHttp {
                direct_response: Some(DirectResponse {
                    status: 418,
                    ..DirectResponse::default()
                }),
                cors: Some(VirtualCors {
                    origins: vec![StringMatch::Regex(origin.into())],
                    ..VirtualCors::default()
                }),
                fault: Some(Fault {
                    delay: Some((Duration::from_secs(1), 1_000_000)),
                    abort: None,
                }),
                headers: Some(HeaderOperations {
                    response: HeaderEdits {
                        remove: vec!["x".into()],
                        ..HeaderEdits::default()
                    },
                    ..HeaderOperations::default()
                }),
                ..VirtualHttp::default()
            }],
            ..VirtualService::default()
        };
        let mut world = World::new();
        world
            .virtual_services
            .insert(key.clone(), parsed(&key, 1, spec));
        let route = world.routes().routes.remove(0);
        let RouteAction::Respond(answered, _) = &route.action else {
            panic!("{route:?}");
        };
        assert_eq!(*answered, status, "{origin}");
        let told = [
            route.cors.is_some(),
            route.fault.is_some(),
            !route.response.remove.is_empty(),
        ];
        assert_eq!(told, [status == 418; 3], "{origin}");
    }
}

#[test]
fn grants_name_the_kind_of_the_route_and_hostnames_need_them_too() {
    let far = |target| HttpRule {
        backends: vec![BackendRef {
            target,
            weight: 1,
            filters: Vec::new(),
        }],
        ..HttpRule::default()
    };
    let service = || far(reference("Service", "depot", "far", Some(80)));
    let host = "far.depot.svc.cluster.local";
    let hostname = || far(reference("Hostname", "app", host, Some(80)));
    let mut world = World::new();
    let to = |world: &World| -> Vec<String> {
        let found = world.routes();
        let list = found.routes.iter().filter(|route| route.name != "default");
        list.map(|route| sent(route)[0].0.to_owned()).collect()
    };
    world.http("app/h", 1, of_gateway(vec![service(), hostname()]));
    world.grpc("app/g", 2, of_gateway(vec![service()]));
    assert_eq!(to(&world), ["UnknownService"; 3]);
    let key = ObjectKey::new("depot", "grant");
    let grant = ReferenceGrant {
        from: vec![(
            "gateway.networking.k8s.io".into(),
            "GRPCRoute".into(),
            "app".into(),
        )],
        to: vec![("".into(), "Service".into(), None)],
    };
    world.grants.insert(key.clone(), parsed(&key, 1, grant));
    assert_eq!(to(&world), ["UnknownService", "UnknownService", FAR]);
    let mut world = World::new();
    world.http("app/h", 1, own(vec![service(), hostname()]));
    assert_eq!(to(&world), [FAR, FAR]);
}

#[test]
fn routes_with_and_without_port_are_one_list_and_namespaces_are_two() {
    let at_port = |port, rules| route(reference("Service", "app", "web", Some(port)), rules);
    let mut world = World::new();
    world.http("app/any", 1, own(vec![named("all", HttpMatch::default())]));
    world.http(
        "app/port",
        2,
        at_port(80, vec![named("port", prefix("/p"))]),
    );
    world.http(
        "app/other",
        2,
        at_port(81, vec![named("other", prefix("/o"))]),
    );
    world.http("client/c", 0, own(vec![named("consumer", prefix("/c"))]));
    assert_eq!(names(&world.routes()), ["port", "all"]);
}
