#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::SystemTime;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::*;
use crate::identity::{self, ServingNames};

struct World {
    addr: SocketAddr,
    authority: ca::Authority,
    registry: Registry,
    _tls: watch::Sender<Arc<rustls::ServerConfig>>,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let authority = ca::Authority::new("cluster.local", ca::TtlPolicy::default()).unwrap();
    let source = ca::Source::select(None, false, false, dir.path()).unwrap();
    source.start(&authority, SystemTime::now()).unwrap();
    let names = ServingNames {
        names: vec!["istiod.istio-system.svc".to_owned()],
        ips: Vec::new(),
        ..ServingNames::default()
    };
    let config = identity::serving(&authority, &names).unwrap();
    let (tls, config) = watch::channel(config);
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, config, metrics, shutdown));
    World {
        addr,
        authority,
        registry,
        _tls: tls,
        _dir: dir,
    }
}

impl World {
    /// Status and body of the answer to a request, as an API server would send it.
    async fn ask(&self, line: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.authority.bundle().unwrap().root_store())
            .with_no_client_auth();
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.unwrap();
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused does not read on.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
    }

    async fn review(&self, body: &Value) -> Value {
        let bytes = body.to_string().into_bytes();
        let (status, body) = self.ask("POST /validate", "application/json", &bytes).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn review(version: &str, operation: &str, object: &Value) -> Value {
    json!({
        "apiVersion": version, "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "operation": operation,
            "kind": {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"},
            "object": object,
        },
    })
}

fn virtual_service(rule: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"hosts": ["a"], "http": [rule]},
    })
}

fn to(host: &str) -> Value {
    json!({"route": [{"destination": {"host": host}}]})
}

#[tokio::test]
async fn what_is_no_review_is_refused_in_the_order_of_the_spec() {
    let world = world().await;
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    for (line, content_type, body, expected) in [
        ("POST /validate", form, &large[..], 400),
        ("POST /validate", form, b"", 400),
        ("POST /validate", form, b"{}", 415),
        (
            "POST /validate",
            "application/json; charset=utf-8",
            b"{}",
            415,
        ),
        ("POST /validate/x", json, b"{", 200),
        ("GET /validate", json, b"", 405),
        ("GET /ready", json, b"", 200),
        ("POST /other", json, b"{}", 404),
    ] {
        let (status, _) = world.ask(line, content_type, body).await;
        assert_eq!(status, expected, "{line} {content_type}");
    }
    for line in ["POST /inject", "POST /inject/cluster/x"] {
        let (status, body) = world.ask(line, json, b"{}").await;
        assert_eq!(status, 404);
        assert!(body.contains("no sidecars"), "{body}");
    }
    let families = world.registry.gather();
    let errors = families
        .iter()
        .find(|f| f.name() == "galley_validation_http_error");
    let counted: f64 = errors
        .unwrap()
        .get_metric()
        .iter()
        .map(|m| m.get_counter().get_value())
        .sum();
    assert!((counted - 4.0).abs() < 0.1, "{counted}");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_allowed() {
    let world = world().await;
    for body in [
        json!([]),
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}),
        review("admission.k8s.io/v2", "CREATE", &json!({})),
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "Pod", "request": {"uid": "", "operation": "CREATE"}}),
    ] {
        let answer = world.review(&body).await;
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["response"]["allowed"], false, "{body}");
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains("AdmissionReview"), "{message}");
    }
}

#[tokio::test]
async fn objects_are_judged_and_the_envelope_is_mirrored() {
    let world = world().await;
    let v1 = "admission.k8s.io/v1";
    for version in [v1, "admission.k8s.io/v1beta1"] {
        let answer = world
            .review(&review(version, "CREATE", &virtual_service(&to("b"))))
            .await;
        let expected = json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "response": {"uid": "u-1", "allowed": true},
        });
        assert_eq!(answer, expected);
    }
    let mut retries = to("b");
    retries["retries"] = json!({"attempts": 1, "retryOn": "5xx, reset"});
    let mut regex = to("b");
    regex["match"] = json!([{"uri": {"regex": "a(?=b)"}}]);
    let mut suspicious = to("b");
    suspicious["timeuot"] = json!("1s");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
    for (claim, object, message) in [
        (
            "a bad value",
            virtual_service(&retries),
            Some("spec.http[0].retries.retryOn: "),
        ),
        (
            "what RE2 cannot read",
            virtual_service(&regex),
            Some("spec.http[0].match[0].uri.regex: "),
        ),
        ("a kind of others", pod, Some("\"Pod\"")),
        ("no object", json!(null), Some("no object")),
        ("a misspelt field", virtual_service(&suspicious), None),
    ] {
        for operation in ["CREATE", "UPDATE"] {
            let answer = world.review(&review(v1, operation, &object)).await;
            let response = &answer["response"];
            assert_eq!(response["allowed"], message.is_none(), "{claim}: {answer}");
            let said = response["status"]["message"].as_str().unwrap_or_default();
            assert!(
                said.contains(message.unwrap_or_default()),
                "{claim}: {said}"
            );
        }
        let answer = world.review(&review(v1, "DELETE", &object)).await;
        assert_eq!(answer["response"]["allowed"], true, "{claim}");
    }
    let answer = world
        .review(&review(v1, "CREATE", &virtual_service(&suspicious)))
        .await;
    let warning = answer["response"]["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("spec.http[0].timeuot") && warning.contains("timeout"),
        "{warning}"
    );
}

#[tokio::test]
async fn an_invalid_object_that_is_being_deleted_can_go() {
    let world = world().await;
    let mut leaving = virtual_service(&json!({}));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut body = review("admission.k8s.io/v1", "UPDATE", &leaving);
    body["request"]["oldObject"] = virtual_service(&json!({}));
    assert_eq!(world.review(&body).await["response"]["allowed"], true);
    // Not when it is changed besides.
    body["request"]["oldObject"] = virtual_service(&to("b"));
    assert_eq!(world.review(&body).await["response"]["allowed"], false);
}
