#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use flow::Table;
use model::derived::{AppProtocol, Distribution, Visibility, WdsProtocol};
use model::input::{Authorizer, CheckedBody, HttpAuthorizer, Resolution, TargetPort};
use model::{Kind, ObjectKey, ObjectRef};

use super::*;

fn service(ns: &str, host: &str) -> (NamespacedHostname, Option<Arc<ServiceRow>>) {
    let key = NamespacedHostname::new(ns, host);
    let port = PortRow {
        name: "grpc".into(),
        port: 9000,
        target: TargetPort::Number(9000),
        transport: Transport::Tcp,
        protocol: AppProtocol::Grpc,
        wds_protocol: WdsProtocol::default(),
    };
    let row = ServiceRow {
        key: key.clone(),
        source: ObjectRef::new(Kind::ServiceEntry, ObjectKey::new(ns, "x")),
        name: "x".into(),
        created_s: None,
        vips: Vec::new(),
        ports: vec![port],
        selector: None,
        resolution: Resolution::Static,
        external: true,
        waypoint: None,
        blocked: None,
        weighted_waypoints: Vec::new(),
        needs_waypoint: None,
        ingress_use_waypoint: false,
        visibility: Visibility::default(),
        distribution: Distribution::default(),
        publish_not_ready: false,
        persistent_session: false,
        ip_families: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: Vec::new(),
        canonical: true,
        first_of_host: true,
        is_global: false,
    };
    (key, Some(Arc::new(row)))
}

fn authorizer_at(service: &str) -> Authorizer {
    Authorizer {
        service: service.into(),
        port: 9000,
        ..Authorizer::default()
    }
}

fn asked(name: &str, kind: ProviderKind) -> Result<Asked, String> {
    let mut services = Table::new("services").with_index::<ServiceByHostname>();
    services.commit([
        service("a", "one.example"),
        service("a", "two.example"),
        service("b", "two.example"),
    ]);
    let mut mesh = MeshRow::default();
    mesh.traffic.providers = vec![ExtensionProvider {
        name: "ext".into(),
        kind,
    }];
    authorizer(name, &mesh, services.view(), &mut flow::Reads::detached())
}

#[test]
fn what_envoy_would_refuse_or_cannot_ask_is_told() {
    let good = || authorizer_at("one.example");
    let http = |http: HttpAuthorizer| Authorizer {
        http: Some(http),
        ..good()
    };
    for (authorizer, why) in [
        (good(), None),
        (authorizer_at("a/two.example"), None),
        (authorizer_at("two.example"), Some("several namespaces")),
        (authorizer_at("three.example"), Some("no service")),
        (authorizer_at("b/one.example"), Some("no service")),
        (Authorizer { port: 80, ..good() }, Some("no port 80")),
        (
            Authorizer {
                status_on_error: Some(599),
                ..good()
            },
            Some("statusOnError"),
        ),
        (
            Authorizer {
                timeout: Some(Duration::ZERO),
                ..good()
            },
            Some("timeout"),
        ),
        (
            Authorizer {
                body: Some(CheckedBody::default()),
                ..good()
            },
            Some("maxRequestBytes"),
        ),
        (
            http(HttpAuthorizer {
                path_prefix: "check".into(),
                ..HttpAuthorizer::default()
            }),
            Some("pathPrefix"),
        ),
        (
            http(HttpAuthorizer {
                request_headers: vec!["a b".into()],
                ..HttpAuthorizer::default()
            }),
            Some("no name of headers"),
        ),
        (
            http(HttpAuthorizer {
                additional_headers: vec![("host".into(), "x".into())],
                ..HttpAuthorizer::default()
            }),
            Some("cannot be added"),
        ),
        (
            http(HttpAuthorizer {
                additional_headers: vec![("x".into(), "%".repeat(8_193).into())],
                ..HttpAuthorizer::default()
            }),
            Some("too long"),
        ),
    ] {
        let found = asked(
            "ext",
            ProviderKind::Authorizer(Box::new(authorizer.clone())),
        );
        match (found, why) {
            (Ok(asked), None) => assert_eq!(asked.filter.timeout, TIMEOUT_DEFAULT),
            (Err(found), Some(why)) => assert!(found.contains(why), "{found}"),
            (found, _) => panic!("{authorizer:?}: {found:?}"),
        }
    }
}

#[test]
fn names_and_kinds_of_providers_are_judged() {
    let kind = || ProviderKind::Authorizer(Box::new(authorizer_at("one.example")));
    assert!(asked("ext", kind()).is_ok());
    for name in ["", "Ext", "-ext", "other"] {
        assert!(asked(name, kind()).is_err(), "{name}");
    }
    let zipkin = asked("ext", ProviderKind::Other("zipkin".into()));
    assert!(zipkin.unwrap_err().contains("zipkin"));
    let invalid = ProviderKind::Invalid("port".into(), "missing".into());
    assert_eq!(asked("ext", invalid).unwrap_err(), "port: missing");
}

#[test]
fn values_of_headers_are_no_commands() {
    let own = HttpAuthorizer {
        additional_headers: vec![("x".into(), "100%".into())],
        request_headers: vec!["x-*".into(), "Cookie".into()],
        ..HttpAuthorizer::default()
    };
    let authorizer = Authorizer {
        http: Some(own),
        ..authorizer_at("one.example")
    };
    let asked = asked("ext", ProviderKind::Authorizer(Box::new(authorizer))).unwrap();
    let http = asked.filter.http.unwrap();
    assert_eq!(http.additional_headers, [("x".into(), "100%%".into())]);
    assert_eq!(
        http.request_headers,
        [
            StrMatch::Prefix("x-".into()),
            StrMatch::Exact("Cookie".into())
        ]
    );
    assert_eq!(asked.filter.cluster, "outbound|9000||one.example");
}
