//! Identities against a real API server: tokens, the root in a Secret, the webhook.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;
#[path = "e2e_kube_identity/root.rs"]
mod root;
#[path = "e2e_kube_identity/rotation.rs"]
mod rotation;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ambientd::identity::{self, ServingNames, SnapshotNodes};
use ambientd::webhook;
use anyhow::{Context as _, ensure};
use authn::{Authenticator, AuthenticatorConfig, Peer};
use ca::{Authority, CertificateService, Source, TtlPolicy};
use http::HeaderMap;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use kube_io::review::ApiReviewer;
use kube_io::webhooks::WebhookPatcher;
use kube_io::{Leadership, Term};
use model::{ObjectKey, PodFact, Str};
use prometheus::Registry;
use proto::auth::IstioCertificateRequest;
use proto::value::Kind as ValueKind;
use proto::{Struct, Value};
use snapshot::Snapshot;
use testkit::cluster::Cluster;
use testkit::wait;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use common::{SOON, SYSTEM, apply_definitions};

async fn control_plane() -> Cluster {
    let cluster = common::control_plane().await.expect("a cluster");
    cluster.kubectl(&["create", "namespace", SYSTEM]).unwrap();
    cluster
}

fn authority() -> Arc<Authority> {
    Arc::new(Authority::new("cluster.local", TtlPolicy::default()).unwrap())
}

// === Tokens ===

const WORKLOADS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: app}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: app}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: db, namespace: app}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: gone, namespace: app}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
";

fn node(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

fn pod(ns: &str, name: &str, sa: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}}}\n\
         spec:\n  serviceAccountName: {sa}\n  nodeName: {node}\n  \
         tolerations: [{{operator: Exists}}]\n  containers: [{{name: a, image: a}}]\n"
    )
}

/// A token of an account, bound to a pod.
fn token(cluster: &Cluster, ns: &str, sa: &str, pod: &str) -> String {
    let pod = format!("--bound-object-name={pod}");
    common::token_with(cluster, ns, sa, &["--bound-object-kind=Pod", &pod]).unwrap()
}

struct Callers {
    service: CertificateService,
    authenticator: Arc<Authenticator>,
    now: Arc<AtomicU64>,
}

async fn callers(client: &kube::Client) -> Callers {
    let mut snapshot = Snapshot::default();
    let pods: Api<Pod> = Api::all(client.clone());
    for pod in pods.list(&kube::api::ListParams::default()).await.unwrap() {
        let spec = pod.spec.as_ref().unwrap();
        let text = |text: &Option<String>| Str::from(text.clone().unwrap_or_default());
        let fact = PodFact {
            uid: Str::from(pod.uid().unwrap()),
            service_account: text(&spec.service_account_name),
            node: text(&spec.node_name),
            gateway: None,
        };
        let key = ObjectKey::new(pod.namespace().unwrap(), pod.name_any());
        snapshot.pods.set(&key, Some(Arc::new(fact)));
    }
    // Real time, moved on by what tests add: reviews are remembered for seconds.
    let now = Arc::new(AtomicU64::new(0));
    let added = Arc::clone(&now);
    let clock: authn::Clock =
        Arc::new(move || SystemTime::now() + Duration::from_secs(added.load(Ordering::Relaxed)));
    let registry = Registry::new();
    let config = AuthenticatorConfig {
        reviewer: Arc::new(ApiReviewer::new(client.clone())),
        cluster_ids: vec!["Kubernetes".to_owned()],
        remotes: BTreeMap::new(),
        audiences: vec!["istio-ca".to_owned()],
        trust_domain: Arc::new(|| Str::from("cluster.local")),
        clock: Arc::clone(&clock),
    };
    let metrics = authn::Metrics::register(&registry).unwrap();
    let authenticator = Arc::new(Authenticator::new(config, metrics));
    let authority = Arc::new(Authority::new("cluster.local", TtlPolicy::default()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let source = Source::select(None, false, false, dir.path()).unwrap();
    source.start(&authority, SystemTime::now()).unwrap();
    let (_, snapshots) = watch::channel(Some(Arc::new(snapshot)));
    let service = CertificateService::new(ca::ServiceConfig {
        authority,
        authenticator: Arc::clone(&authenticator),
        trusted: "istio-system/ztunnel".parse().unwrap(),
        nodes: Arc::new(SnapshotNodes(snapshots)),
        limits: ca::service::Limits::default(),
        metrics: ca::service::CaMetrics::register(&registry).unwrap(),
        clock,
    });
    Callers {
        service,
        authenticator,
        now,
    }
}

fn arriving(token: &str) -> (Peer, HeaderMap) {
    let peer = Peer {
        addr: SocketAddr::from(([10, 0, 0, 1], 40000)),
        identity: None,
        secure: true,
    };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    (peer, headers)
}

impl Callers {
    /// Who a token is of, or why nobody.
    async fn who(&self, token: &str) -> Result<String, String> {
        let (peer, headers) = arriving(token);
        let caller = self.authenticator.authenticate(&peer, &headers).await;
        caller
            .map(|caller| caller.identity.to_string())
            .map_err(|error| error.reason().to_owned())
    }

    /// The identity of the certificate that a token gets for somebody.
    async fn certified(&self, token: &str, wanted: &str) -> Result<String, tonic::Code> {
        let params = rcgen::CertificateParams::default();
        let key = rcgen::KeyPair::generate().unwrap();
        let kind = Some(ValueKind::StringValue(wanted.to_owned()));
        let fields = [("ImpersonatedIdentity".to_owned(), Value { kind })];
        let request = IstioCertificateRequest {
            csr: params.serialize_request(&key).unwrap().pem().unwrap(),
            validity_duration: 0,
            metadata: Some(Struct {
                fields: fields.into(),
            }),
        };
        let (peer, headers) = arriving(token);
        let answer = self.service.create(&peer, &headers, request).await;
        let chain = answer.map_err(|status| status.code())?.cert_chain;
        let body: String = chain[0]
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
        Ok(ca::peer_spiffe_id(&der).unwrap().to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_tokens_of_real_pods_say_who_calls_and_for_whom() {
    let cluster = control_plane().await;
    let objects = [
        WORKLOADS.to_owned(),
        node("n1"),
        node("n2"),
        pod("app", "web-1", "web", "n1"),
        pod("app", "db-2", "db", "n2"),
        pod("app", "gone-1", "gone", "n1"),
        pod("app", "leaving-1", "web", "n1"),
        pod(SYSTEM, "ztunnel-1", "ztunnel", "n1"),
    ];
    cluster.apply(&objects.concat()).unwrap();
    let client = cluster.client().await.unwrap();
    let callers = callers(&client).await;
    let web = "spiffe://cluster.local/ns/app/sa/web";
    let db = "spiffe://cluster.local/ns/app/sa/db";
    let of_web = token(&cluster, "app", "web", "web-1");
    assert_eq!(callers.who(&of_web).await.as_deref(), Ok(web));

    let create = |args: &[&str]| {
        let args = [&["create", "token", "web", "-n", "app"], args].concat();
        cluster.kubectl(&args).unwrap().trim().to_owned()
    };
    for (case, text) in [
        ("the audience of the API server", create(&[])),
        ("another audience", create(&["--audience=vault"])),
        ("cut off", of_web[..of_web.len() - 8].to_owned()),
        ("garbage", "a.b.c".to_owned()),
    ] {
        let found = callers.who(&text).await.unwrap_err();
        assert!(
            matches!(found.as_str(), "rejected" | "audience"),
            "{case}: {found}"
        );
    }

    // Bound to no pod, it is good for its account and never for others.
    let unbound = create(&["--audience=istio-ca"]);
    assert_eq!(callers.who(&unbound).await.as_deref(), Ok(web));

    let of_leaving = token(&cluster, "app", "web", "leaving-1");
    let of_gone = token(&cluster, "app", "gone", "gone-1");
    assert!(callers.who(&of_leaving).await.is_ok() && callers.who(&of_gone).await.is_ok());
    cluster
        .kubectl(&[
            "delete",
            "pod",
            "leaving-1",
            "-n",
            "app",
            "--force",
            "--grace-period=0",
        ])
        .unwrap();
    cluster
        .kubectl(&["delete", "serviceaccount", "gone", "-n", "app"])
        .unwrap();
    // What was remembered of them ends within seconds.
    callers.now.fetch_add(11, Ordering::Relaxed);
    for text in [&of_leaving, &of_gone] {
        let refused = wait::until("its token is refused", SOON, || async {
            callers.now.fetch_add(11, Ordering::Relaxed);
            let who = callers.who(text).await;
            ensure!(who == Err("rejected".to_owned()), "{who:?}");
            Ok(())
        });
        refused.await.unwrap();
    }

    let of_ztunnel = token(&cluster, SYSTEM, "ztunnel", "ztunnel-1");
    let refused = Err(tonic::Code::Unauthenticated);
    for (case, text, wanted, expected) in [
        ("own", &of_web, "", Ok(web.to_owned())),
        ("ztunnel, same node", &of_ztunnel, web, Ok(web.to_owned())),
        ("ztunnel, another node", &of_ztunnel, db, refused.clone()),
        (
            "ztunnel, foreign trust domain",
            &of_ztunnel,
            "spiffe://x/ns/app/sa/web",
            refused.clone(),
        ),
        ("not a node account", &of_web, db, refused.clone()),
        ("bound to no pod", &unbound, db, refused),
    ] {
        assert_eq!(callers.certified(text, wanted).await, expected, "{case}");
    }
}

// === The webhook ===

fn configuration(host: &str, port: u16) -> String {
    format!(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{name: istio-validator-istio-system, labels: {{istio.io/rev: default}}}}
webhooks:
- name: rev.validation.istio.io
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  timeoutSeconds: 5
  clientConfig: {{url: "https://{host}:{port}/validate"}}
  rules:
  - apiGroups: [security.istio.io, networking.istio.io]
    apiVersions: ["*"]
    resources: ["*"]
    operations: [CREATE, UPDATE]
"#
    )
}

fn virtual_service(name: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}, namespace: default}}\nspec:\n  hosts: [a.example.com]\n  http:\n  \
         - route: [{{destination: {{host: a}}}}]\n    {more}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_is_told_by_the_webhook() {
    let cluster = control_plane().await;
    let client = cluster.client().await.unwrap();
    apply_definitions(&cluster).unwrap();

    let authority = authority();
    let dir = tempfile::tempdir().unwrap();
    let source = Source::select(None, false, false, dir.path()).unwrap();
    source.start(&authority, SystemTime::now()).unwrap();
    let host = cluster.host_ip();
    let names = ServingNames {
        names: Vec::new(),
        ips: vec![host.parse().unwrap()],
        ..ServingNames::default()
    };
    let (_tls, config) = watch::channel(identity::serving(&authority, &names).unwrap());
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let metrics = webhook::Metrics::register(&Registry::new()).unwrap();
    tokio::spawn(webhook::serve(listener, config, metrics, stop.clone()));

    cluster.apply(&configuration(host, port)).unwrap();
    let (_terms, terms) = watch::channel(Some(Term {
        transitions: 1,
        until: tokio::time::Instant::now() + Duration::from_secs(3600),
    }));
    let (_roots, roots) = watch::channel(authority.bundle().unwrap().pem().to_owned());
    let patcher = WebhookPatcher {
        client,
        leadership: Leadership::new(terms),
        revision: String::new(),
        system_namespace: SYSTEM.to_owned(),
        fail_closed: true,
        roots,
        reports: None,
    };
    tokio::spawn(kube_io::webhooks::run(patcher, stop.clone()));
    let look = "jsonpath={.webhooks[0].failurePolicy}";
    let name = "istio-validator-istio-system";
    let args = ["get", "validatingwebhookconfiguration", name, "-o", look];
    let bound = cluster.wait_for(&args, SOON, |policy| {
        ensure!(policy == "Fail", "{policy}");
        Ok(())
    });
    bound.await.context("the self-test").unwrap();

    cluster
        .apply(&virtual_service("good", "timeout: 1s"))
        .unwrap();
    let bad = virtual_service("bad", "retries: {attempts: 1, retryOn: \"5xx, reset\"}");
    let error = format!("{:#}", cluster.apply(&bad).unwrap_err());
    for part in [
        "rev.validation.istio.io",
        "denied the request",
        "spec.http[0].retries.retryOn",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let suspicious = virtual_service("odd", "fault: {abort: {httpStatus: 500}}");
    let args = ["apply", "--warnings-as-errors", "-f", "-"];
    let error = format!(
        "{:#}",
        cluster.kubectl_with(&args, &suspicious).unwrap_err()
    );
    assert!(error.contains("Warning: vs-fault-no-percentage"), "{error}");
    // The Gateway of the self-test was never created.
    let gateways = cluster.kubectl(&["get", "gateways.networking.istio.io", "-A", "-o", "name"]);
    assert_eq!(gateways.unwrap(), "");
    stop.cancel();
}
