//! Who gets which certificate over the wire, and what others are told.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authn::{Authenticator, AuthenticatorConfig, Peer, Review, ReviewError, Token, TokenReviewer};
use http::HeaderMap;
use model::Str;
use prometheus::Registry;
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use proto::value::Kind;
use proto::{Struct, Value};
use rcgen::KeyPair;
use tonic::{Code, Status};

use super::support::{MemoryStore, authority, csr_pem, openssl_verify, secs};
use super::{DAY, HOUR, id, now};
use crate::cert::{sign_root, to_pem};
use crate::key::PrivateKey;
use crate::service::{CaMetrics, ExpiryMetrics, Limits, NodeAuthorizer, PodFacts, ServiceConfig};
use crate::{
    Authority, CertificateService, RootPolicy, Signer, SignerParts, TtlPolicy, peer_spiffe_id,
};

const ZTUNNEL: &str = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
const ALICE: &str = "spiffe://cluster.local/ns/a/sa/alice";

/// Tokens read `ns:sa:pod:uid`.
struct Reviewer;

impl TokenReviewer for Reviewer {
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> Pin<Box<dyn Future<Output = Result<Review, ReviewError>> + Send + 'a>> {
        let parts: Vec<&str> = token.expose().split('.').collect();
        let mut review = Review {
            audiences: audiences.to_vec(),
            ..Review::default()
        };
        if let [ns, sa, pod, uid] = parts[..] {
            review.authenticated = true;
            review.username = format!("system:serviceaccount:{ns}:{sa}");
            review.groups = vec!["system:serviceaccounts".to_owned()];
            let key = |name: &str| format!("authentication.kubernetes.io/pod-{name}");
            if pod != "none" {
                review.extra = BTreeMap::from([
                    (key("name"), vec![pod.to_owned()]),
                    (key("uid"), vec![uid.to_owned()]),
                ]);
            }
        }
        Box::pin(std::future::ready(Ok(review)))
    }
}

struct Nodes {
    pods: BTreeMap<(&'static str, &'static str), PodFacts>,
    running: BTreeSet<(&'static str, &'static str, &'static str)>,
}

impl NodeAuthorizer for Nodes {
    fn pod(&self, ns: &str, name: &str) -> Option<PodFacts> {
        let find = |((n, p), facts): (&(&str, &str), &PodFacts)| {
            (*n == ns && *p == name).then(|| facts.clone())
        };
        self.pods.iter().find_map(find)
    }

    fn runs(&self, ns: &str, service_account: &str, node: &str) -> bool {
        self.running
            .iter()
            .any(|at| *at == (ns, service_account, node))
    }
}

fn pod(uid: &str, sa: &str, node: &str) -> PodFacts {
    PodFacts {
        uid: uid.into(),
        service_account: sa.into(),
        node: node.into(),
    }
}

fn nodes() -> Nodes {
    Nodes {
        pods: BTreeMap::from([
            (("istio-system", "zt-1"), pod("u1", "ztunnel", "node-1")),
            (("istio-system", "zt-2"), pod("u2", "ztunnel", "node-2")),
            (("istio-system", "odd"), pod("u3", "other", "node-1")),
            (("istio-system", "floating"), pod("u4", "ztunnel", "")),
            (("a", "alice-1"), pod("u5", "alice", "node-1")),
        ]),
        running: BTreeSet::from([
            ("istio-system", "ztunnel", "node-1"),
            ("a", "alice", "node-1"),
            ("a", "floating", ""),
        ]),
    }
}

struct Fixture {
    service: CertificateService,
    metrics: CaMetrics,
    registry: Registry,
}

fn fixture_with(authority: Authority, trusted: &str, limits: Limits) -> Fixture {
    fixture_over(authority, trusted, limits, Arc::new(nodes()))
}

fn fixture_over(
    authority: Authority,
    trusted: &str,
    limits: Limits,
    nodes: Arc<dyn NodeAuthorizer>,
) -> Fixture {
    let registry = Registry::new();
    let metrics = CaMetrics::register(&registry).unwrap();
    let config = AuthenticatorConfig {
        reviewer: Arc::new(Reviewer),
        cluster_ids: vec!["Kubernetes".to_owned()],
        remotes: BTreeMap::new(),
        audiences: vec!["istio-ca".to_owned()],
        trust_domain: Arc::new(|| Str::from("cluster.local")),
        clock: Arc::new(SystemTime::now),
    };
    let authenticator = Authenticator::new(config, authn::Metrics::register(&registry).unwrap());
    let service = CertificateService::new(ServiceConfig {
        authority: Arc::new(authority),
        authenticator: Arc::new(authenticator),
        trusted: trusted.parse().unwrap(),
        nodes,
        limits,
        metrics: metrics.clone(),
        clock: Arc::new(SystemTime::now),
    });
    Fixture {
        service,
        metrics,
        registry,
    }
}

fn fixture(trusted: &str) -> Fixture {
    let authority = authority(&MemoryStore::default(), now());
    fixture_with(authority, trusted, Limits::default())
}

/// How a request arrives.
#[derive(Clone, Copy, Debug)]
enum From {
    Token(&'static str),
    Certificate(&'static str),
    Nobody,
    Plaintext(&'static str),
}

fn request(metadata: &[(&str, Kind)]) -> IstioCertificateRequest {
    let fields = metadata
        .iter()
        .map(|(key, kind)| {
            let kind = Some(kind.clone());
            ((*key).to_owned(), Value { kind })
        })
        .collect();
    IstioCertificateRequest {
        csr: csr_pem(),
        validity_duration: 0,
        metadata: Some(Struct { fields }),
    }
}

fn asking(identity: &str) -> IstioCertificateRequest {
    request(&[(
        "ImpersonatedIdentity",
        Kind::StringValue(identity.to_owned()),
    )])
}

impl Fixture {
    async fn send(
        &self,
        from: From,
        request: IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let (token, identity, secure) = match from {
            From::Token(token) => (Some(token), None, true),
            From::Certificate(identity) => (None, Some(id(identity)), true),
            From::Nobody => (None, None, true),
            From::Plaintext(token) => (Some(token), None, false),
        };
        let peer = Peer {
            addr: "10.0.0.1:40000".parse().unwrap(),
            identity,
            secure,
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            headers.insert("authorization", value);
        }
        self.service.create(&peer, &headers, request).await
    }
}

/// The identity of the certificate in a response.
fn certified(response: &IstioCertificateResponse) -> String {
    let leaf = pem::parse(&response.cert_chain[0]).unwrap();
    peer_spiffe_id(leaf.contents()).unwrap().to_string()
}

const TRUSTED: &str = "istio-system/ztunnel, kube-system/ztunnel";

#[tokio::test]
async fn callers_get_their_own_identity_unless_they_ask_for_another() {
    let fixture = fixture(TRUSTED);
    let zt = From::Token("istio-system.ztunnel.zt-1.u1");
    let alice = From::Token("a.alice.alice-1.u5");
    let text = |s: &str| Kind::StringValue(s.to_owned());
    let cases = [
        ("own, by token", alice, request(&[]), ALICE),
        (
            "own, by certificate",
            From::Certificate(ALICE),
            request(&[]),
            ALICE,
        ),
        (
            "no metadata",
            alice,
            IstioCertificateRequest {
                metadata: None,
                ..request(&[])
            },
            ALICE,
        ),
        ("empty", alice, asking(""), ALICE),
        (
            "not a string",
            alice,
            request(&[("ImpersonatedIdentity", Kind::NumberValue(1.0))]),
            ALICE,
        ),
        (
            "no kind of signer",
            alice,
            request(&[("CertSigner", text(""))]),
            ALICE,
        ),
        (
            "some kind of signer",
            alice,
            request(&[("CertSigner", text("x"))]),
            ALICE,
        ),
        (
            "another key",
            alice,
            request(&[("impersonatedidentity", text(ZTUNNEL))]),
            ALICE,
        ),
        ("ztunnel for itself", zt, request(&[]), ZTUNNEL),
        ("ztunnel for its node", zt, asking(ALICE), ALICE),
    ];
    for (case, from, request, expected) in cases {
        let response = fixture.send(from, request).await;
        assert_eq!(certified(&response.unwrap()), expected, "{case}");
    }
    assert_eq!(fixture.metrics.success_cert_issuance_count.get(), 10);
}

#[tokio::test]
async fn impersonation_is_denied_opaquely_and_counted_exactly() {
    let zt = From::Token("istio-system.ztunnel.zt-1.u1");
    let cases = [
        (
            "another account",
            TRUSTED,
            From::Token("a.alice.alice-1.u5"),
            ALICE,
            "not_trusted",
        ),
        (
            "by certificate",
            TRUSTED,
            From::Certificate(ZTUNNEL),
            ALICE,
            "no_pod",
        ),
        (
            "token without pod",
            TRUSTED,
            From::Token("istio-system.ztunnel.none.none"),
            ALICE,
            "no_pod",
        ),
        ("nobody is trusted", "", zt, ALICE, "not_trusted"),
        ("not SPIFFE", TRUSTED, zt, "alice", "not_spiffe"),
        (
            "longer path",
            TRUSTED,
            zt,
            "spiffe://cluster.local/ns/a/sa/alice/x",
            "not_spiffe",
        ),
        (
            "empty parts",
            TRUSTED,
            zt,
            "spiffe://cluster.local/ns//sa/",
            "not_spiffe",
        ),
        (
            "upper case",
            TRUSTED,
            zt,
            "spiffe://cluster.local/NS/a/sa/alice",
            "not_spiffe",
        ),
        (
            "percent",
            TRUSTED,
            zt,
            "spiffe://cluster.local/ns/a/sa/%61lice",
            "not_on_node",
        ),
        (
            "another trust domain",
            TRUSTED,
            zt,
            "spiffe://other/ns/a/sa/alice",
            "trust_domain",
        ),
        (
            "unknown pod",
            TRUSTED,
            From::Token("istio-system.ztunnel.zt-9.u1"),
            ALICE,
            "unknown_pod",
        ),
        (
            "recreated pod",
            TRUSTED,
            From::Token("istio-system.ztunnel.zt-1.u0"),
            ALICE,
            "pod_uid",
        ),
        (
            "pod of another account",
            TRUSTED,
            From::Token("istio-system.ztunnel.odd.u3"),
            ALICE,
            "pod_account",
        ),
        (
            "pod without node",
            TRUSTED,
            From::Token("istio-system.ztunnel.floating.u4"),
            "spiffe://cluster.local/ns/a/sa/floating",
            "no_node",
        ),
        (
            "another node",
            TRUSTED,
            From::Token("istio-system.ztunnel.zt-2.u2"),
            ALICE,
            "not_on_node",
        ),
        (
            "nowhere",
            TRUSTED,
            zt,
            "spiffe://cluster.local/ns/a/sa/bob",
            "not_on_node",
        ),
    ];
    for (case, trusted, from, wanted, reason) in cases {
        let fixture = fixture(trusted);
        let status = fixture.send(from, asking(wanted)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{case}");
        assert_eq!(
            status.message(),
            "request impersonation authentication failure",
            "{case}"
        );
        let metrics = &fixture.metrics;
        assert_eq!(
            metrics.refused.with_label_values(&[reason]).get(),
            1,
            "{case}"
        );
        assert_eq!(metrics.authentication_failure_count.get(), 1, "{case}");
        assert_eq!(metrics.success_cert_issuance_count.get(), 0, "{case}");
    }
}

#[tokio::test]
async fn strangers_learn_nothing() {
    let fixture = fixture(TRUSTED);
    for from in [
        From::Nobody,
        From::Token("bad"),
        From::Plaintext("a.alice.alice-1.u5"),
    ] {
        let status = fixture.send(from, request(&[])).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{from:?}");
        assert_eq!(status.message(), "request authenticate failure", "{from:?}");
    }
    assert_eq!(fixture.metrics.authentication_failure_count.get(), 3);
    assert_eq!(fixture.metrics.csr_count.get(), 3);
}

#[tokio::test]
async fn refusals_have_the_codes_that_clients_act_on() {
    let fixture = fixture(TRUSTED);
    let with = |csr: &str, validity_duration| IstioCertificateRequest {
        csr: csr.to_owned(),
        validity_duration,
        metadata: None,
    };
    let good = csr_pem();
    let cases = [
        ("garbage", with("x", 0), Code::InvalidArgument, "CSR_ERROR"),
        (
            "too large",
            with(&"A".repeat(65 * 1024), 0),
            Code::InvalidArgument,
            "CSR_ERROR",
        ),
        (
            "too long",
            with(&good, i64::MAX),
            Code::InvalidArgument,
            "TTL_ERROR",
        ),
    ];
    for (case, request, code, label) in cases {
        let errors = fixture
            .metrics
            .csr_sign_err_count
            .with_label_values(&[label]);
        let before = errors.get();
        let from = From::Token("a.alice.alice-1.u5");
        let status = fixture.send(from, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{case}");
        assert!(
            status.message().starts_with("CSR signing error ("),
            "{case}"
        );
        assert_eq!(errors.get(), before + 1, "{case}");
    }
    let empty = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    let unready = fixture_with(empty, "", Limits::default());
    let status = unready
        .send(From::Certificate(ALICE), request(&[]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&unready.registry.gather())
        .unwrap();
    assert!(text.contains(r#"citadel_server_csr_sign_err_count{error="CA_NOT_READY"} 1"#));
}

#[tokio::test]
async fn who_asks_too_much_is_shed_and_others_are_not() {
    let one = NonZeroU32::MIN;
    let limits = Limits {
        caller_per_second: one,
        caller_burst: NonZeroU32::new(2).unwrap(),
        ..Limits::default()
    };
    let fixture = fixture_with(authority(&MemoryStore::default(), now()), TRUSTED, limits);
    let (one_node, other_node) = (
        From::Token("istio-system.ztunnel.zt-1.u1"),
        From::Token("istio-system.ztunnel.zt-2.u2"),
    );
    for _ in 0..2 {
        fixture.send(one_node, request(&[])).await.unwrap();
    }
    let status = fixture.send(one_node, request(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    let pushback: u32 = pushback.to_str().unwrap().parse().unwrap();
    assert!((500..1000).contains(&pushback), "{pushback}");
    // One account, another pod: another caller.
    fixture.send(other_node, request(&[])).await.unwrap();
}

/// One whose signatures take milliseconds.
fn rsa_authority() -> Authority {
    let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let key = PrivateKey::from_pem(pair.serialize_pem().into()).unwrap();
    let (from, to) = (now() - HOUR, now() + DAY);
    let root = to_pem(&sign_root("O=x".parse().unwrap(), &key, None, from, to).unwrap());
    let parts = SignerParts {
        cert_pem: root.clone(),
        key_pem: key.pem().clone(),
        chain_pem: String::new(),
        bundle_pem: root,
    };
    let authority = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    let signer = Signer::new(parts, now()).unwrap();
    authority.install(signer, RootPolicy::Renewable).unwrap();
    authority
}

#[tokio::test]
async fn the_queue_before_signing_is_bounded() {
    let limits = Limits {
        concurrent: 1,
        waiting: 1,
        ..Limits::default()
    };
    // Signatures on P-256 take no longer than a place in the queue would, and wait for nobody.
    let fixture = Arc::new(fixture_with(rsa_authority(), TRUSTED, limits));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                let from = From::Certificate(ALICE);
                tokio::time::timeout(Duration::from_secs(60), fixture.send(from, request(&[])))
                    .await
            })
        })
        .collect();
    let mut served = 0;
    for task in tasks {
        match task.await.unwrap().expect("nothing hangs") {
            Ok(_) => served += 1,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
    }
    let shed = fixture.metrics.refused.with_label_values(&["queue"]).get();
    assert!(served >= 1 && shed >= 1, "{served} served, {shed} shed");
    assert_eq!(served + shed, 64);
}

const OLD_ALICE: &str = "spiffe://old.example/ns/a/sa/alice";

#[tokio::test]
async fn nothing_is_certified_under_an_alias() {
    let authority = authority(&MemoryStore::default(), now());
    let aliases = ["old.example".into()];
    authority
        .set_trust_domains("cluster.local", &aliases)
        .unwrap();
    let fixture = fixture_with(authority, TRUSTED, Limits::default());
    let zt = From::Token("istio-system.ztunnel.zt-1.u1");
    let cases = [
        ("its own", From::Certificate(OLD_ALICE), request(&[])),
        ("asked for by a node", zt, asking(OLD_ALICE)),
        (
            "asked for by its bearer",
            From::Certificate(OLD_ALICE),
            asking(ALICE),
        ),
    ];
    for (case, from, request) in cases {
        let status = fixture.send(from, request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{case}");
    }
    assert_eq!(fixture.metrics.success_cert_issuance_count.get(), 0);
    assert_eq!(fixture.metrics.authentication_failure_count.get(), 3);
    let response = fixture.send(From::Certificate(ALICE), request(&[])).await;
    assert_eq!(certified(&response.unwrap()), ALICE);
}

#[tokio::test]
async fn identities_follow_the_trust_domain_of_the_mesh() {
    let authority = authority(&MemoryStore::default(), now());
    let domains = authority.watch_trust_domains();
    let accepts = |td: &str| domains.borrow().accepts(td);
    let set = |own: &str, aliases: &[Str]| authority.set_trust_domains(own, aliases).unwrap();
    assert!(set("new.example", &["old.example".into()]));
    assert!(!set("new.example", &["old.example".into()]), "no change");
    // Certificates from before the change live on until the process ends.
    for (td, accepted) in [
        ("new.example", true),
        ("old.example", true),
        ("cluster.local", true),
        ("", false),
        ("New.example", false),
        ("new.example.", false),
    ] {
        assert_eq!(accepts(td), accepted, "{td}");
    }
    for bad in ["", "A", "a/b", "a b", "a@b"] {
        assert!(authority.set_trust_domains(bad, &[]).is_err(), "{bad}");
    }
    assert_eq!(authority.trust_domain(), "new.example");
    let fixture = fixture_with(authority, TRUSTED, Limits::default());
    let new = "spiffe://new.example/ns/a/sa/alice";
    let response = fixture.send(From::Certificate(new), request(&[])).await;
    assert_eq!(certified(&response.unwrap()), new);
    let status = fixture.send(From::Certificate(ALICE), request(&[])).await;
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn pod_that_is_not_known_yet_is_found_at_the_next_try() {
    struct Late(std::sync::atomic::AtomicBool);
    impl NodeAuthorizer for Late {
        fn pod(&self, ns: &str, name: &str) -> Option<PodFacts> {
            nodes().pod(ns, name)
        }
        fn runs(&self, ns: &str, sa: &str, node: &str) -> bool {
            self.0.load(std::sync::atomic::Ordering::Relaxed) && nodes().runs(ns, sa, node)
        }
    }
    let late = Arc::new(Late(false.into()));
    let zt = From::Token("istio-system.ztunnel.zt-1.u1");
    let nodes = Arc::clone(&late) as Arc<dyn NodeAuthorizer>;
    let authority = authority(&MemoryStore::default(), now());
    let fixture = fixture_over(authority, TRUSTED, Limits::default(), nodes);
    let status = fixture.send(zt, asking(ALICE)).await.unwrap_err();
    // The code that ztunnel tries again after.
    assert_eq!(status.code(), Code::Unauthenticated);
    late.0.store(true, std::sync::atomic::Ordering::Relaxed);
    let response = fixture.send(zt, asking(ALICE)).await;
    assert_eq!(certified(&response.unwrap()), ALICE);
}

#[tokio::test]
async fn chains_of_the_service_verify_for_clients_and_servers() {
    let authority = authority(&MemoryStore::default(), SystemTime::now());
    let roots = authority.bundle().unwrap().pem().to_owned();
    let fixture = fixture_with(authority, TRUSTED, Limits::default());
    let zt = From::Token("istio-system.ztunnel.zt-1.u1");
    for (from, request) in [
        (From::Certificate(ALICE), request(&[])),
        (zt, asking(ALICE)),
    ] {
        let response = fixture.send(from, request).await.unwrap();
        let verified = openssl_verify(&response.cert_chain, &roots, SystemTime::now());
        assert_ne!(verified, Some(false), "{from:?}");
        assert_eq!(response.cert_chain.last(), Some(&roots));
    }
}

#[test]
fn expiry_is_told_as_of_the_moment_of_asking() {
    let registry = Registry::new();
    let authority = Arc::new(authority(&MemoryStore::default(), now()));
    let hours = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let later = Arc::clone(&hours);
    let clock = Arc::new(move || {
        let hours = later.load(std::sync::atomic::Ordering::Relaxed);
        now() + Duration::from_secs(hours * 3600)
    });
    ExpiryMetrics::register(&registry, Arc::clone(&authority), clock).unwrap();
    let gauge = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.unwrap().get_metric()[0].get_gauge().get_value() as i64
    };
    let root = secs(authority.bundle().unwrap().not_after());
    assert_eq!(gauge("citadel_server_root_cert_expiry_timestamp"), root);
    for hour in [0, 5] {
        hours.store(hour, std::sync::atomic::Ordering::Relaxed);
        let left = gauge("citadel_server_root_cert_expiry_seconds");
        assert_eq!(left, root - secs(now()) - hour.cast_signed() * 3600);
    }
    assert_eq!(gauge("citadel_server_cert_chain_expiry_timestamp"), 0);
}
