#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use http::HeaderValue;
use parking_lot::Mutex;

use super::*;
use crate::ReviewError;

const NOW: u64 = 1_800_000_000;

/// Answers what it is told to, and counts.
#[derive(Default)]
struct Reviewer {
    answer: Mutex<Option<Result<Review, ReviewError>>>,
    asked: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    takes: Duration,
}

impl TokenReviewer for Reviewer {
    fn review<'a>(
        &'a self,
        _: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Review, ReviewError>> {
        assert_eq!(audiences, ["istio-ca"]);
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_under_way.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.answer.lock().clone().unwrap_or_else(|| Ok(good()))
        })
    }
}

fn good() -> Review {
    let extra = [(EXTRA_POD_NAME, "ztunnel-x"), (EXTRA_POD_UID, "u1")];
    Review {
        authenticated: true,
        error: String::new(),
        username: "system:serviceaccount:istio-system:ztunnel".to_owned(),
        groups: vec![GROUP.to_owned()],
        audiences: vec!["istio-ca".to_owned()],
        extra: extra
            .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
            .into(),
        expires: Some(at(NOW + 3600)),
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

struct World {
    local: Arc<Reviewer>,
    remote: Arc<Reviewer>,
    now: Arc<AtomicU64>,
    authenticator: Authenticator,
}

fn world(takes: Duration) -> World {
    let local = Arc::new(Reviewer {
        takes,
        ..Reviewer::default()
    });
    let remote = Arc::new(Reviewer::default());
    let now = Arc::new(AtomicU64::new(NOW));
    let clock = Arc::clone(&now);
    let config = AuthenticatorConfig {
        reviewer: Arc::clone(&local) as _,
        cluster_ids: vec!["Kubernetes".to_owned(), "alias".to_owned()],
        remotes: [("far".to_owned(), Arc::clone(&remote) as _)].into(),
        audiences: vec!["istio-ca".to_owned()],
        trust_domain: Arc::new(|| Str::from("mesh@corp")),
        clock: Arc::new(move || at(clock.load(Ordering::Relaxed))),
    };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    World {
        local,
        remote,
        now,
        authenticator: Authenticator::new(config, metrics),
    }
}

fn peer(identity: Option<SpiffeId>) -> Peer {
    Peer {
        addr: SocketAddr::from(([10, 0, 0, 1], 1)),
        identity,
        secure: true,
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn caller() -> Caller {
    Caller {
        // `@` must not appear in an identity.
        identity: SpiffeId::new("mesh.corp", "istio-system", "ztunnel"),
        proof: Proof::Token {
            pod: Some(PodRef {
                name: Str::from("ztunnel-x"),
                uid: Str::from("u1"),
            }),
        },
    }
}

impl World {
    async fn ask(&self, pairs: &[(&'static str, &str)]) -> Result<Caller, AuthnError> {
        let headers = headers(pairs);
        self.authenticator.authenticate(&peer(None), &headers).await
    }

    fn asked(&self) -> (usize, usize) {
        let count = |reviewer: &Reviewer| reviewer.asked.load(Ordering::Relaxed);
        (count(&self.local), count(&self.remote))
    }

    fn failures(&self, reason: &str) -> u64 {
        let failures = &self.authenticator.metrics.failures;
        failures.with_label_values(&[reason]).get()
    }
}

#[tokio::test]
async fn certificate_counts_before_a_token_and_names_no_pod() {
    let world = world(Duration::ZERO);
    let identity = SpiffeId::new("cluster.local", "a", "b");
    let headers = headers(&[("authorization", "Bearer t")]);
    let found = world
        .authenticator
        .authenticate(&peer(Some(identity.clone())), &headers)
        .await;
    assert_eq!(
        found,
        Ok(Caller {
            identity,
            proof: Proof::Certificate
        })
    );
    assert_eq!(world.asked(), (0, 0));
}

#[tokio::test]
async fn only_an_exact_prefix_is_a_token() {
    let none = Err(AuthnError::NoCredentials);
    let bad = Err(AuthnError::MalformedToken);
    let long = format!("Bearer {}", "x".repeat(20_000));
    let cases: [(&[&str], Result<Caller, AuthnError>); 10] = [
        (&["Bearer t"], Ok(caller())),
        (&[], none.clone()),
        (&["bearer t"], none.clone()),
        (&["Basic t"], none.clone()),
        (&["Bearert"], none.clone()),
        (&["Istio t"], none.clone()),
        (&["Bearer "], bad.clone()),
        (&["Bearer  t"], bad.clone()),
        (&[&long], bad),
        (
            &["Basic x", "bearer y", "Bearer t", "Bearer u"],
            Ok(caller()),
        ),
    ];
    for (values, expected) in cases {
        let world = world(Duration::ZERO);
        let pairs: Vec<_> = values.iter().map(|v| ("authorization", *v)).collect();
        assert_eq!(world.ask(&pairs).await, expected, "{values:.40?}");
    }
    let world = world(Duration::ZERO);
    let istio = headers(&[("authorization", "Istio t")]);
    let by_http = world
        .authenticator
        .authenticate_http(&peer(None), &istio)
        .await;
    assert_eq!(by_http, Ok(caller()));
}

#[tokio::test]
async fn cluster_id_chooses_the_reviewer_and_an_unknown_one_has_none() {
    let unknown = |id: &str| Err(AuthnError::UnknownCluster(id.to_owned()));
    let cases = [
        (&[][..], Ok(caller()), (1, 0)),
        (&["Kubernetes"], Ok(caller()), (1, 0)),
        (&["alias"], Ok(caller()), (1, 0)),
        (&[""], Ok(caller()), (1, 0)),
        (&["far"], Ok(caller()), (0, 1)),
        (&["other"], unknown("other"), (0, 0)),
        (&["KUBERNETES"], unknown("KUBERNETES"), (0, 0)),
        (&["far", "far"], Ok(caller()), (1, 0)),
        (&["other", "far"], Ok(caller()), (1, 0)),
        (&["\u{e9}"], unknown("\u{fffd}"), (0, 0)),
    ];
    for (ids, expected, asked) in cases {
        let world = world(Duration::ZERO);
        let mut pairs = vec![("authorization", "Bearer t")];
        pairs.extend(ids.iter().map(|id| (CLUSTER_ID, *id)));
        assert_eq!(world.ask(&pairs).await, expected, "{ids:?}");
        assert_eq!(world.asked(), asked, "{ids:?}");
    }
}

#[tokio::test]
async fn review_must_be_of_a_service_account_and_for_us() {
    type Change = fn(&mut Review);
    let rejected = |why: &str| AuthnError::Rejected(why.to_owned());
    let cases: [(&str, Change, AuthnError); 14] = [
        (
            "error beside authenticated",
            |r| r.error = "expired".to_owned(),
            rejected("expired"),
        ),
        (
            "not authenticated",
            |r| r.authenticated = false,
            rejected("not authenticated"),
        ),
        ("no audience", |r| r.audiences.clear(), AuthnError::Audience),
        (
            "other audience",
            |r| r.audiences = vec!["https://kubernetes.default.svc".to_owned()],
            AuthnError::Audience,
        ),
        (
            "human",
            |r| r.groups = vec!["system:masters".to_owned()],
            AuthnError::NotServiceAccount,
        ),
        (
            "no group",
            |r| r.groups.clear(),
            AuthnError::NotServiceAccount,
        ),
        (
            "three parts",
            |r| r.username = "system:serviceaccount:a".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "five parts",
            |r| r.username = "system:serviceaccount:a:b:c".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "other kind",
            |r| r.username = "system:node:a:b".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "other system",
            |r| r.username = "x:serviceaccount:a:b".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "empty namespace",
            |r| r.username = "system:serviceaccount::b".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "empty account",
            |r| r.username = "system:serviceaccount:a:".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "path in a namespace",
            |r| r.username = "system:serviceaccount:a/sa/b:c".to_owned(),
            AuthnError::NotServiceAccount,
        ),
        (
            "upper case",
            |r| r.username = "system:serviceaccount:A:b".to_owned(),
            AuthnError::NotServiceAccount,
        ),
    ];
    for (case, change, expected) in cases {
        let world = world(Duration::ZERO);
        let mut review = good();
        change(&mut review);
        *world.local.answer.lock() = Some(Ok(review));
        let found = world.ask(&[("authorization", "Bearer t")]).await;
        assert_eq!(found, Err(expected.clone()), "{case}");
        assert_eq!(world.failures(expected.reason()), 1, "{case}");
        // A refusal is not remembered.
        *world.local.answer.lock() = None;
        let found = world.ask(&[("authorization", "Bearer t")]).await;
        assert_eq!(found, Ok(caller()), "{case}");
    }
}

#[tokio::test]
async fn good_token_is_remembered_for_seconds_but_not_past_its_end() {
    let world = world(Duration::ZERO);
    let token = [("authorization", "Bearer t")];
    let ask_at = async |seconds: u64| {
        world.now.store(seconds, Ordering::Relaxed);
        world.ask(&token).await.unwrap();
        world.asked().0
    };
    assert_eq!(ask_at(NOW).await, 1);
    assert_eq!(ask_at(NOW + 9).await, 1);
    assert_eq!(ask_at(NOW + 10).await, 2);
    // The clock went back.
    assert_eq!(ask_at(NOW).await, 3);
    *world.local.answer.lock() = Some(Ok(Review {
        expires: Some(at(NOW + 102)),
        ..good()
    }));
    assert_eq!(ask_at(NOW + 100).await, 4);
    assert_eq!(ask_at(NOW + 101).await, 4);
    assert_eq!(ask_at(NOW + 102).await, 5);
    // One without an end is reviewed each time.
    *world.local.answer.lock() = Some(Ok(Review {
        expires: None,
        ..good()
    }));
    assert_eq!(ask_at(NOW + 200).await, 6);
    assert_eq!(ask_at(NOW + 200).await, 7);
    // Another token and another cluster are others.
    *world.local.answer.lock() = None;
    assert_eq!(ask_at(NOW + 300).await, 8);
    world.ask(&[("authorization", "Bearer u")]).await.unwrap();
    world
        .ask(&[("authorization", "Bearer t"), (CLUSTER_ID, "far")])
        .await
        .unwrap();
    assert_eq!(world.asked(), (9, 1));
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let cache = Cache::default();
    let account = Account {
        ns: Str::from("a"),
        sa: Str::from("b"),
        pod: None,
    };
    for number in 0..=crate::cache::ENTRIES_MAX as u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        cache.keep(key, account.clone(), at(NOW + 5), at(NOW));
        assert!(cache.len() <= crate::cache::ENTRIES_MAX);
    }
    let mut last = [0; 32];
    last[..8].copy_from_slice(&(crate::cache::ENTRIES_MAX as u64).to_le_bytes());
    assert_eq!(cache.find(&last, at(NOW)), Some(account));
}

#[tokio::test(start_paused = true)]
async fn reviewer_that_fails_or_never_answers_lets_nobody_in_and_nobody_wait() {
    let slow = world(Duration::from_secs(3600));
    let began = tokio::time::Instant::now();
    let found = slow.ask(&[("authorization", "Bearer t")]).await;
    assert_eq!(found, Err(AuthnError::ReviewTimeout));
    assert_eq!(began.elapsed(), REVIEW_TIMEOUT);

    let broken = world(Duration::ZERO);
    *broken.local.answer.lock() = Some(Err(ReviewError("no route".to_owned())));
    let found = broken.ask(&[("authorization", "Bearer t")]).await;
    assert_eq!(found, Err(AuthnError::ReviewFailed("no route".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn reviews_at_once_are_bounded() {
    let world = world(Duration::from_secs(1));
    let tokens: Vec<String> = (0..200).map(|n| format!("Bearer {n}")).collect();
    let asks = tokens.iter().map(|token| async {
        let headers = headers(&[("authorization", token.as_str())]);
        world
            .authenticator
            .authenticate(&peer(None), &headers)
            .await
    });
    let found = futures::future::join_all(asks).await;
    assert!(found.iter().all(Result::is_ok));
    let most = world.local.most_under_way.load(Ordering::Relaxed);
    assert_eq!(most, REVIEWS_MAX);
}

#[test]
fn nothing_shows_a_token() {
    let token = Token::new("secret").unwrap();
    assert_eq!(format!("{token:?}"), "Token(6 bytes)");
    for text in ["", "a b", "a\n", "\u{e9}", &"x".repeat(16 * 1024 + 1)] {
        let error = Token::new(text).unwrap_err();
        assert_eq!(error, AuthnError::MalformedToken);
    }
}
