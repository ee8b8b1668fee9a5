//! PeerAuthentications.

use super::*;
/// Name of what is converted from PeerAuthentication `a/w`.
const CONVERTED: &str = "a/converted_peer_authentication_w";

#[test]
fn modes_are_resolved_before_they_are_converted() {
    type Groups = Vec<Vec<Vec<L4Match>>>;
    let own = |mode: &str, ports: &str| {
        let ports = match ports {
            "" => String::new(),
            ports => format!(", portLevelMtls: {{{ports}}}"),
        };
        let spec =
            format!("selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: {mode}}}{ports}");
        peer("a", "w", &spec)
    };
    let mesh = |mode: &str| peer("istio-system", "m", &format!("mtls: {{mode: {mode}}}"));
    let ns = |mode: &str| peer("a", "ns", &format!("mtls: {{mode: {mode}}}"));
    let except = |port: u16| -> Groups {
        let exempt = L4Match {
            not_destination_ports: vec![port],
            ..L4Match::default()
        };
        vec![vec![vec![plaintext()], vec![exempt]]]
    };
    let strict_port = |port: u16| L4Match {
        destination_ports: vec![port],
        ..plaintext()
    };
    let only = |port: u16| -> Groups { vec![vec![vec![strict_port(port)]]] };
    // Objects; references of the pod; content of the converted policy, if any.
    let cases: Vec<(String, Option<&str>, Option<Groups>)> = vec![
        (mesh("STRICT"), Some(STATIC), None),
        (mesh("PERMISSIVE"), None, None),
        (mesh("STRICT") + &ns("PERMISSIVE"), None, None),
        (mesh("STRICT") + &ns("UNSET"), Some(STATIC), None),
        (ns("STRICT"), Some(STATIC), None),
        (ns("STRICT") + &own("DISABLE", ""), None, None),
        (
            own("STRICT", "8080: {mode: PERMISSIVE}"),
            Some(CONVERTED),
            Some(except(8080)),
        ),
        (own("STRICT", "8080: {mode: STRICT}"), Some(STATIC), None),
        (
            own("PERMISSIVE", "9090: {mode: STRICT}"),
            Some(CONVERTED),
            Some(only(9090)),
        ),
        (
            own("UNSET", "9090: {mode: STRICT}"),
            Some(CONVERTED),
            Some(only(9090)),
        ),
        (
            own(
                "DISABLE",
                "9090: {mode: STRICT}, 9091: {mode: STRICT}, 9092: {mode: DISABLE}",
            ),
            Some(CONVERTED),
            Some(vec![
                vec![vec![strict_port(9090)]],
                vec![vec![strict_port(9091)]],
            ]),
        ),
        (
            mesh("STRICT") + &own("UNSET", "8080: {mode: DISABLE}"),
            Some(CONVERTED),
            Some(except(8080)),
        ),
        (
            mesh("STRICT") + &ns("UNSET") + &own("UNSET", "8080: {mode: PERMISSIVE}"),
            Some(CONVERTED),
            Some(except(8080)),
        ),
        (
            mesh("STRICT") + &own("PERMISSIVE", "9090: {mode: STRICT}"),
            Some(CONVERTED),
            Some(only(9090)),
        ),
    ];
    for (yaml, reference, converted) in cases {
        let world = world(&(yaml.clone() + &pod("a")));
        assert_eq!(listed(&world, "a/web"), Vec::from_iter(reference), "{yaml}");
        let row = world.authorizations.get(CONVERTED);
        assert_eq!(row.map(|row| row.groups.clone()), converted, "{yaml}");
        assert!(row.is_none_or(|row| row.deny && row.scope == PolicyScope::Selector));
        assert_eq!(
            world.authorizations[STATIC].groups,
            [vec![vec![plaintext()]]],
            "{yaml}"
        );
        // Whatever a workload lists exists: ztunnel skips names that it does not know.
        for name in listed(&world, "a/web") {
            assert!(world.authorizations.contains_key(&name), "{name} {yaml}");
        }
    }
}

#[test]
fn without_peer_authentication_there_is_no_static_policy() {
    let world = world(&pod("a"));
    assert!(world.authorizations.is_empty());
    assert_eq!(listed(&world, "a/web"), Vec::<String>::new());
}

#[test]
fn the_oldest_peer_authentication_of_a_level_wins() {
    let at = |name: &str, time: &str, mode: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{namespace: a, name: {name}, creationTimestamp: \"{time}\"}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let yaml = at("a-young", "2021-01-01T00:00:00Z", "PERMISSIVE")
        + &at("old", "2020-01-01T00:00:00Z", "STRICT")
        + &pod("a");
    assert_eq!(listed(&world(&yaml), "a/web"), [STATIC]);
}

#[test]
fn what_peer_authentication_cannot_do_is_told() {
    let selector = "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}";
    let ignored = world(&(peer("istio-system", "p", selector) + &pod("istio-system")));
    assert_eq!(listed(&ignored, "istio-system/web"), Vec::<String>::new());
    assert_eq!(
        ignored.codes(),
        ["pa-root-selector PeerAuthentication istio-system/p"]
    );
    let disabled = world(&(peer("a", "p", "mtls: {mode: DISABLE}") + &pod("a")));
    assert_eq!(
        disabled.codes(),
        ["pa-disable-ambient PeerAuthentication a/p"]
    );
    let unreadable = world(&(peer("a", "p", "mtls: {mode: NONSENSE}") + &pod("a") + &pod("b")));
    assert_eq!(listed(&unreadable, "a/web"), [STATIC]);
    assert_eq!(listed(&unreadable, "b/web"), Vec::<String>::new());
    assert_eq!(
        unreadable.codes(),
        ["pa-invalid-strict PeerAuthentication a/p"]
    );
    let found = &unreadable.findings[0];
    assert!(
        found.message.contains("namespace a is"),
        "{}",
        found.message
    );
    assert_eq!(found.field, "spec.mtls.mode");
    assert!(found.message.contains("NONSENSE"), "{}", found.message);
}

#[test]
fn an_unreadable_peer_authentication_of_the_mesh_opens_nothing() {
    let yaml = peer("istio-system", "p", "mtls: {mode: STRCIT}")
        + &peer("istio-system", "q", "mtls: {mode: PERMISSIVE}")
        + &peer("b", "p", "mtls: {mode: PERMISSIVE}")
        + &pod("a")
        + &pod("b")
        + &pod("istio-system");
    let world = world(&yaml);
    assert_eq!(listed(&world, "a/web"), [STATIC]);
    assert_eq!(listed(&world, "istio-system/web"), [STATIC]);
    assert_eq!(listed(&world, "b/web"), Vec::<String>::new());
    let found = &world.findings[0];
    assert_eq!(found.code, "pa-invalid-strict");
    assert!(found.message.contains("the mesh, "), "{}", found.message);
}

#[test]
fn the_younger_of_two_peer_authentications_of_one_scope_is_told() {
    let selector = "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}";
    // Specs of a and b, told.
    let cases = [
        ("mtls: {mode: STRICT}", "mtls: {mode: PERMISSIVE}", true),
        (selector, selector, true),
        ("mtls: {mode: STRICT}", selector, false),
    ];
    for (first, second, told) in cases {
        let world = world(&(peer("a", "one", first) + &peer("a", "two", second)));
        let expected = told.then(|| "pa-duplicate-scope PeerAuthentication a/two".to_owned());
        assert_eq!(world.codes(), Vec::from_iter(expected), "{first} {second}");
    }
}

#[test]
fn ports_of_services_in_peer_authentication_are_told() {
    let ports = |port: u16| {
        peer(
            "a",
            "p",
            &format!(
                "selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: STRICT}}, portLevelMtls: {{{port}: {{mode: PERMISSIVE}}}}"
            ),
        )
    };
    let told = "pa-port-is-service-port PeerAuthentication a/p";
    // 80 is the service's port, 8080 that of the pods, 9999 nobody's.
    for (port, code) in [(80, Some(told)), (8080, None), (9999, None)] {
        let found = world(&(behind() + &ports(port)));
        assert_eq!(found.codes(), Vec::from_iter(code), "{port}");
        let named = behind().replace("targetPort: 8080", "targetPort: main");
        let unsure = world(&(named + &ports(port)));
        assert_eq!(unsure.codes(), Vec::<String>::new(), "{port}");
    }
}
