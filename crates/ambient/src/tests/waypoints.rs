//! Claims about waypoints and what is bound to them. Source: spec/workload-discovery.md §8.

use model::derived::{BoundWaypoint, InboundBinding, WaypointFor};
use model::input::AllowedNamespaces;
use model::{GatewayAddress, Kind, NamespacedHostname, ObjectKey, WaypointRow};

use super::world::{World, world, world_with};

const HBONE: &str = "{name: mesh, port: 15008, protocol: HBONE}";
const ADDRESS: &str = "addresses: [{type: IPAddress, value: 10.9.9.9}, {type: Hostname, value: wp.a.svc.cluster.local}]";

/// Gateway `ns/wp` of the waypoint class.
fn gateway(ns: &str, metadata: &str, listeners: &str, status: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{namespace: {ns}, name: wp, {metadata}}}\nspec: {{gatewayClassName: istio-waypoint, listeners: [{listeners}]}}\nstatus: {{{status}}}\n"
    )
}

/// Service, pod and namespace of `a`, each with labels.
fn objects(namespace: &str, service: &str, pod: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, labels: {{{namespace}}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: a, name: web, labels: {{{service}}}}}\nspec: {{clusterIP: 10.9.0.1, ports: [{{port: 80}}]}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: a, name: web, labels: {{{pod}}}}}\nspec: {{serviceAccountName: web, containers: [{{name: c, image: i}}]}}\nstatus: {{podIP: 10.0.0.1}}\n"
    )
}

fn bound(waypoint: Option<&BoundWaypoint>) -> Option<String> {
    waypoint.map(|bound| bound.key.to_string())
}

/// Waypoints of the service and of the pod.
fn bindings(world: &World) -> (Option<String>, Option<String>) {
    let service = world.service("a/web").waypoint.as_ref();
    (
        bound(service),
        bound(world.pod("a/web").waypoint.as_deref()),
    )
}

#[test]
fn a_gateway_is_a_waypoint_with_every_field() {
    let yaml = gateway("a", "", HBONE, ADDRESS)
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: p2, labels: {gateway.networking.k8s.io/gateway-name: wp}}\nspec: {serviceAccountName: wp, containers: []}\n"
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: p1, labels: {gateway.networking.k8s.io/gateway-name: wp}}\nspec: {serviceAccountName: wp, containers: []}\n"
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: failed, labels: {gateway.networking.k8s.io/gateway-name: wp}}\nspec: {serviceAccountName: old, containers: []}\nstatus: {phase: Failed}\n"
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: b, name: p1, labels: {gateway.networking.k8s.io/gateway-name: wp}}\nspec: {serviceAccountName: other, containers: []}\n";
    let world = world(&yaml);
    let expected = WaypointRow {
        key: ObjectKey::new("a", "wp"),
        class: "istio-waypoint".into(),
        controller: Some(model::GatewayController::Waypoint),
        ready: true,
        address: Some(GatewayAddress::Hostname(NamespacedHostname::new(
            "a",
            "wp.a.svc.cluster.local",
        ))),
        serves: WaypointFor::Service,
        allowed: AllowedNamespaces::Same,
        listener: Some("mesh".into()),
        takes: vec![Kind::HttpRoute, Kind::GrpcRoute],
        service_accounts: vec!["wp".into()],
        binding: None,
        forwards_identity: false,
    };
    assert_eq!(world.waypoints["a/wp"], expected);
    assert_eq!(world.codes(), Vec::<String>::new());
}

#[test]
fn a_class_object_says_who_controls_and_what_is_served() {
    let class = |controller: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: istio-waypoint, labels: {{istio.io/waypoint-for: all}}}}\nspec: {{controllerName: {controller}}}\n"
        )
    };
    let ours = world(&(gateway("a", "", HBONE, ADDRESS) + &class("istio.io/mesh-controller")));
    let row = &ours.waypoints["a/wp"];
    assert_eq!((row.is_mesh_class(), row.serves), (true, WaypointFor::All));
    let foreign = world(
        &(gateway("a", "labels: {istio.io/waypoint-for: x}", HBONE, "")
            + &class("example.com/other")),
    );
    let row = &foreign.waypoints["a/wp"];
    assert_eq!(
        (row.is_mesh_class(), row.serves, row.ready),
        (false, WaypointFor::None, false)
    );
    assert_eq!(foreign.codes(), Vec::<String>::new());
}

#[test]
fn the_shape_of_a_waypoint_is_checked() {
    let other = "{name: web, port: 80, protocol: HTTP}";
    // Listeners, codes.
    let cases: [(String, &[&str]); 3] = [
        (HBONE.to_owned(), &[]),
        (
            format!("{other}, {HBONE}"),
            &["wp-listener-shape Gateway a/wp"],
        ),
        (
            other.to_owned(),
            &[
                "wp-listener-shape Gateway a/wp",
                "wp-listener-shape Gateway a/wp",
            ],
        ),
    ];
    for (listeners, codes) in cases {
        let world = world(&gateway("a", "", &listeners, ADDRESS));
        assert_eq!(world.codes(), codes, "{listeners}");
    }
}

const USE: &str = "istio.io/use-waypoint: wp";

#[test]
fn objects_are_bound_by_their_own_label_else_by_that_of_their_namespace() {
    let wp = || Some("a/wp".to_owned());
    // Waypoint labels; labels of namespace, service, pod; waypoints of service and pod; codes.
    let cases = [
        ("", "", "", "", (None, None), vec![]),
        ("", USE, "", "", (wp(), None), vec![]),
        (
            "istio.io/waypoint-for: all",
            USE,
            "",
            "",
            (wp(), wp()),
            vec![],
        ),
        (
            "istio.io/waypoint-for: all",
            USE,
            "",
            "istio.io/use-waypoint: none",
            (wp(), None),
            vec![],
        ),
        (
            "istio.io/waypoint-for: all",
            USE,
            "",
            "istio.io/use-waypoint: \"#none\"",
            (wp(), None),
            vec![],
        ),
        (
            "istio.io/waypoint-for: all",
            USE,
            "istio.io/use-waypoint: none",
            "",
            (None, wp()),
            vec![],
        ),
        (
            "istio.io/waypoint-for: all",
            "istio.io/use-waypoint: none",
            "",
            "",
            (None, None),
            vec![],
        ),
        (
            "",
            USE,
            "istio.io/use-waypoint: gone",
            "",
            (None, None),
            vec!["wp-missing Service a/web"],
        ),
        (
            "",
            "istio.io/use-waypoint: gone",
            "",
            "",
            (None, None),
            vec!["wp-missing Namespace a"],
        ),
        (
            "",
            "",
            "",
            USE,
            (None, None),
            vec!["wp-for-mismatch Pod a/web"],
        ),
        (
            "istio.io/waypoint-for: workload",
            "",
            USE,
            "",
            (None, None),
            vec!["wp-for-mismatch Service a/web"],
        ),
        (
            "istio.io/waypoint-for: workload",
            USE,
            "",
            "",
            (None, wp()),
            vec!["wp-for-mismatch Namespace a"],
        ),
        (
            "istio.io/waypoint-for: none",
            USE,
            "",
            "",
            (None, None),
            vec!["wp-for-mismatch Namespace a"],
        ),
        (
            "",
            "",
            "istio.io/use-waypoint: wp.a",
            "",
            (None, None),
            vec!["wp-label-qualified Service a/web"],
        ),
        (
            "",
            "",
            "istio.io/use-waypoint: a.wp",
            "",
            (None, None),
            vec!["wp-label-qualified Service a/web"],
        ),
        (
            "",
            "",
            "istio.io/use-waypoint: a/wp",
            "",
            (None, None),
            vec!["wp-label-qualified Service a/web"],
        ),
        (
            "",
            USE,
            "gateway.istio.io/managed: istio.io-mesh-controller",
            "",
            (None, None),
            vec![],
        ),
        (
            "",
            USE,
            "gateway.istio.io/managed: other",
            "",
            (wp(), None),
            vec![],
        ),
        (
            "istio.io/waypoint-for: all",
            USE,
            "",
            "gateway.networking.k8s.io/gateway-name: wp",
            (wp(), None),
            vec![],
        ),
        (
            "istio.io/waypoint-for: all",
            USE,
            "",
            "gateway.networking.k8s.io/gateway-name: x",
            (wp(), wp()),
            vec![],
        ),
    ];
    for (labels, namespace, service, pod, expected, codes) in cases {
        let yaml = objects(namespace, service, pod)
            + &gateway("a", &format!("labels: {{{labels}}}"), HBONE, ADDRESS);
        let world = world(&yaml);
        let case = format!("{labels} | {namespace} | {service} | {pod}");
        assert_eq!(bindings(&world), expected, "{case}");
        assert_eq!(world.codes(), codes, "{case}");
    }
}

#[test]
fn a_waypoint_that_is_not_ready_is_told_on_itself_and_on_who_names_it() {
    let yaml = objects("", USE, "") + &gateway("a", "", HBONE, "");
    let world = world(&yaml);
    assert_eq!(bindings(&world), (None, None));
    assert_eq!(
        world.codes(),
        ["wp-not-ready Gateway a/wp", "wp-not-ready Service a/web"]
    );
}

#[test]
fn a_listener_decides_which_namespaces_attach() {
    let from = "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra";
    let listener = |allowed: &str| {
        format!(
            "{{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {{namespaces: {{{allowed}}}}}}}"
        )
    };
    // allowedRoutes.namespaces, admitted.
    let cases = [
        ("", false),
        ("from: Same", false),
        ("from: All", true),
        (
            "from: Selector, selector: {matchLabels: {mesh: \"yes\"}}",
            true,
        ),
        (
            "from: Selector, selector: {matchLabels: {mesh: \"no\"}}",
            false,
        ),
    ];
    for (allowed, admitted) in cases {
        let yaml =
            objects("mesh: \"yes\"", from, "") + &gateway("infra", "", &listener(allowed), ADDRESS);
        let world = world(&yaml);
        let expected = admitted.then(|| "infra/wp".to_owned());
        assert_eq!(bindings(&world), (expected, None), "{allowed}");
        let codes: &[&str] = if admitted {
            &[]
        } else {
            &["wp-attachment-denied Service a/web"]
        };
        assert_eq!(world.codes(), codes, "{allowed}");
    }
}

#[test]
fn instances_take_the_inbound_binding_of_their_waypoint() {
    // Annotation, tunnel of the instance.
    let cases = [
        (
            "PROXY/15088",
            Some(InboundBinding {
                proxy: true,
                port: 15088,
            }),
        ),
        (
            "PROXY",
            Some(InboundBinding {
                proxy: true,
                port: 0,
            }),
        ),
        (
            "NONE/x",
            Some(InboundBinding {
                proxy: false,
                port: 0,
            }),
        ),
        ("HTTP/80", None),
        ("PROXY/1/2", None),
    ];
    for (text, expected) in cases {
        let metadata =
            format!("annotations: {{ambient.istio.io/waypoint-inbound-binding: {text}}}");
        let yaml = objects(USE, "", "gateway.networking.k8s.io/gateway-name: wp")
            + &gateway("a", &metadata, HBONE, ADDRESS);
        let world = world(&yaml);
        assert_eq!(world.pod("a/web").application_tunnel, expected, "{text}");
        assert_eq!(world.pod("a/web").waypoint, None, "{text}");
    }
}

#[test]
fn pods_of_a_gateway_that_has_no_address_yet_pass_no_other_waypoint() {
    let label = "gateway.networking.k8s.io/gateway-name: starting";
    let starting = gateway("a", "", HBONE, "").replace("name: wp", "name: starting");
    let waypoint = gateway("a", "labels: {istio.io/waypoint-for: all}", HBONE, ADDRESS);
    let bound_to = |yaml: String| bound(world(&yaml).pod("a/web").waypoint.as_deref());
    let without = objects(USE, "", label) + &waypoint;
    assert_eq!(bound_to(without.clone()), Some("a/wp".to_owned()));
    assert_eq!(bound_to(without + &starting), None);
}

#[test]
fn ingress_uses_the_waypoint_only_when_bound_and_asked_to() {
    let ingress = |value: &str| format!("istio.io/ingress-use-waypoint: \"{value}\"");
    // Labels of namespace and service, expected.
    let cases = [
        (USE.to_owned(), String::new(), false),
        (format!("{USE}, {}", ingress("true")), String::new(), true),
        (
            format!("{USE}, {}", ingress("true")),
            ingress("nonsense"),
            false,
        ),
        (USE.to_owned(), ingress("T"), true),
        (String::new(), ingress("true"), false),
    ];
    for (namespace, service, expected) in cases {
        let yaml = objects(&namespace, &service, "") + &gateway("a", "", HBONE, ADDRESS);
        let world = world(&yaml);
        assert_eq!(
            world.service("a/web").ingress_use_waypoint,
            expected,
            "{namespace} {service}"
        );
    }
}

#[test]
fn a_headless_service_behind_a_waypoint_is_told_so() {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web, labels: {istio.io/use-waypoint: wp}}\nspec: {clusterIP: None, ports: [{port: 80}]}\n".to_owned()
        + &gateway("a", "", HBONE, ADDRESS);
    assert_eq!(world(&yaml).codes(), ["wp-headless Service a/web"]);
}

/// The traffic of service and pod is refused, and by the name of which waypoint.
fn blocked(world: &World) -> (Option<String>, Option<String>) {
    let name = |blocked: &Option<NamespacedHostname>| blocked.as_ref().map(ToString::to_string);
    let pod = world.pod("a/web");
    (name(&world.service("a/web").blocked), name(&pod.blocked))
}

#[test]
fn a_reference_that_binds_nothing_refuses_traffic_when_that_is_asked_for() {
    let nowhere = || Some("a/wp.a.waypoint.invalid".to_owned());
    let gone = || Some("a/gone.a.waypoint.invalid".to_owned());
    let mode = |word: &str| format!("ambientd.io/waypoint-missing: {word}");
    let gone_label = "istio.io/use-waypoint: gone";
    // Switch; labels of namespace, service, pod, Gateway; its status; refused of service and pod.
    let cases = [
        (
            false,
            String::new(),
            gone_label,
            gone_label,
            "",
            ADDRESS,
            (None, None),
        ),
        (
            true,
            String::new(),
            gone_label,
            gone_label,
            "",
            ADDRESS,
            (gone(), gone()),
        ),
        (
            true,
            mode("bypass"),
            gone_label,
            gone_label,
            "",
            ADDRESS,
            (None, None),
        ),
        (
            false,
            mode("fail-closed"),
            gone_label,
            gone_label,
            "",
            ADDRESS,
            (gone(), gone()),
        ),
        (
            false,
            mode("other"),
            gone_label,
            "",
            "",
            ADDRESS,
            (gone(), None),
        ),
        // A name that is qualified binds nothing either.
        (
            true,
            String::new(),
            "istio.io/use-waypoint: wp.a",
            "",
            "",
            ADDRESS,
            (Some("a/wp.a.a.waypoint.invalid".to_owned()), None),
        ),
        // Not ready, and what it would serve is known: the pod was never to pass it.
        (true, USE.to_owned(), "", "", "", "", (nowhere(), None)),
        (
            true,
            USE.to_owned(),
            "",
            "",
            "istio.io/waypoint-for: all",
            "",
            (nowhere(), nowhere()),
        ),
        (
            true,
            USE.to_owned(),
            "",
            "",
            "istio.io/waypoint-for: workload",
            "",
            (None, nowhere()),
        ),
        // Missing: nobody knows what it would serve.
        (
            true,
            gone_label.to_owned(),
            "",
            "",
            "",
            ADDRESS,
            (gone(), gone()),
        ),
        (
            true,
            gone_label.to_owned(),
            "istio.io/use-waypoint: none",
            "istio.io/use-waypoint: none",
            "",
            ADDRESS,
            (None, None),
        ),
        // The wrong kind of traffic: refused when asked for here, silent when inherited.
        (true, String::new(), "", USE, "", ADDRESS, (None, nowhere())),
        (
            true,
            USE.to_owned(),
            "",
            "",
            "istio.io/waypoint-for: workload",
            ADDRESS,
            (None, None),
        ),
        (
            true,
            String::new(),
            USE,
            "",
            "istio.io/waypoint-for: workload",
            ADDRESS,
            (nowhere(), None),
        ),
        // Bound without an address that could be used.
        (
            true,
            String::new(),
            USE,
            "",
            "",
            "addresses: [{value: x}]",
            (nowhere(), None),
        ),
        // As it should be.
        (
            true,
            USE.to_owned(),
            "",
            "",
            "istio.io/waypoint-for: all",
            ADDRESS,
            (None, None),
        ),
        // Parts of gateways.
        (
            true,
            gone_label.to_owned(),
            "gateway.istio.io/managed: istio.io-mesh-controller",
            "gateway.networking.k8s.io/gateway-name: wp",
            "",
            ADDRESS,
            (None, None),
        ),
    ];
    for (denies, namespace, service, pod, labels, status, expected) in cases {
        let yaml = objects(&namespace, service, pod)
            + &gateway("a", &format!("labels: {{{labels}}}"), HBONE, status);
        let features = model::derived::Features {
            waypoint_missing_denies: denies,
            ..model::derived::Features::default()
        };
        let world = world_with(&yaml, features);
        let case = format!("{denies} | {namespace} | {service} | {pod} | {labels} | {status}");
        assert_eq!(blocked(&world), expected, "{case}");
    }
}

#[test]
fn findings_say_what_becomes_of_traffic() {
    let yaml = objects("", "istio.io/use-waypoint: gone", "");
    for (denies, words) in [
        (false, "directly to the pods"),
        (true, "traffic is refused"),
    ] {
        let features = model::derived::Features {
            waypoint_missing_denies: denies,
            ..model::derived::Features::default()
        };
        let world = world_with(&yaml, features);
        assert_eq!(world.codes(), ["wp-missing Service a/web"]);
        assert!(
            world.findings[0].message.contains(words),
            "{:?}",
            world.findings
        );
    }
}

#[test]
fn shares_of_a_canary_make_up_a_hundred() {
    let canary = "istio.io/use-waypoint-canary: wp, istio.io/use-waypoint-canary-namespace: b";
    let open =
        "{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}";
    // Annotation of the service, shares, codes.
    let bad = || vec!["wp-canary-invalid Service a/web".to_owned()];
    let cases = [
        ("", vec![100, 0], vec![]),
        (
            "istio.io/use-waypoint-canary-weight: \"0\"",
            vec![100, 0],
            vec![],
        ),
        (
            "istio.io/use-waypoint-canary-weight: \"30\"",
            vec![70, 30],
            vec![],
        ),
        (
            "istio.io/use-waypoint-canary-weight: \"100\"",
            vec![0, 100],
            vec![],
        ),
        (
            "istio.io/use-waypoint-canary-weight: \"101\"",
            vec![],
            bad(),
        ),
        ("istio.io/use-waypoint-canary-weight: \"-1\"", vec![], bad()),
        (
            "istio.io/use-waypoint-canary-weight: \"1.5\"",
            vec![],
            bad(),
        ),
        ("istio.io/use-waypoint-canary-weight: \"\"", vec![], bad()),
    ];
    for (annotation, expected, codes) in cases {
        let labels = format!("{USE}, {canary}}}, annotations: {{{annotation}");
        let yaml = objects("", &labels, "")
            + &gateway("a", "", HBONE, ADDRESS)
            + &gateway("b", "", open, ADDRESS);
        let world = world(&yaml);
        let service = world.service("a/web");
        let weights: Vec<u32> = service
            .weighted_waypoints
            .iter()
            .map(|w| w.weight)
            .collect();
        assert_eq!(weights, expected, "{annotation}");
        assert_eq!(bound(service.waypoint.as_ref()).as_deref(), Some("a/wp"));
        assert_eq!(world.codes(), codes, "{annotation}");
    }
}
