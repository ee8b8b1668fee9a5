#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const AUDIENCES: [&str; 1] = ["istio-ca"];

struct World {
    dir: tempfile::TempDir,
    now: Arc<AtomicU64>,
    issuer: DevIssuer,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(NOW));
    let issuer = DevIssuer::load_or_create(dir.path(), clock(&now)).unwrap();
    World { dir, now, issuer }
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Arc::new(move || UNIX_EPOCH + Duration::from_secs(now.load(Ordering::Relaxed)))
}

fn request(pod: Option<&PodRef>) -> TokenRequest<'_> {
    TokenRequest {
        ns: "app",
        sa: "web",
        pod,
        audience: "istio-ca",
        ttl: Duration::from_secs(3600),
    }
}

fn pod() -> PodRef {
    PodRef {
        name: "web-0".into(),
        uid: "u0".into(),
    }
}

fn review(issuer: &DevIssuer, token: &Token) -> Review {
    let audiences = AUDIENCES.map(str::to_owned);
    futures::executor::block_on(issuer.review(token, &audiences)).unwrap()
}

/// A token of anybody's making.
fn forged(header: &Header, claims: &Value, key: &EncodingKey) -> Token {
    Token::new(&jsonwebtoken::encode(header, claims, key).unwrap()).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "ambientd",
        "sub": "system:serviceaccount:app:web",
        "aud": ["istio-ca"],
        "exp": NOW + 3600, "iat": NOW, "nbf": NOW,
        "kubernetes.io": {"namespace": "app", "serviceaccount": {"name": "web"}},
    })
}

#[test]
fn token_is_reviewed_as_an_api_server_would() {
    let world = world();
    let token = world.issuer.issue(&request(Some(&pod()))).unwrap();
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        review(&world.issuer, &token),
        Review {
            authenticated: true,
            error: String::new(),
            username: "system:serviceaccount:app:web".to_owned(),
            groups: words(&[
                "system:serviceaccounts",
                "system:serviceaccounts:app",
                "system:authenticated"
            ]),
            audiences: words(&["istio-ca"]),
            extra: [
                (EXTRA_POD_NAME.to_owned(), words(&["web-0"])),
                (EXTRA_POD_UID.to_owned(), words(&["u0"])),
            ]
            .into(),
            expires: Some(UNIX_EPOCH + Duration::from_secs(NOW + 3600)),
        }
    );
    let unbound = world.issuer.issue(&request(None)).unwrap();
    assert!(review(&world.issuer, &unbound).extra.is_empty());
}

#[test]
fn bad_tokens_are_refused() {
    let world = world();
    let own = {
        let path = world.dir.path().join("tokens/signing-key.der");
        EncodingKey::from_ec_der(&fs::read(path).unwrap())
    };
    let es256 = Header::new(Algorithm::ES256);
    let with = |path: &str, value: Value| {
        let mut claims = claims();
        *claims.pointer_mut(path).unwrap() = value;
        forged(&es256, &claims, &own)
    };
    let good = forged(&es256, &claims(), &own);
    assert!(review(&world.issuer, &good).authenticated);

    let stranger = tempfile::tempdir().unwrap();
    let other = DevIssuer::load_or_create(stranger.path(), clock(&world.now)).unwrap();
    let public = world.issuer_public();
    let text = good.expose();
    let (body, signature) = text.rsplit_once('.').unwrap();
    let (_, payload) = body.split_once('.').unwrap();
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let none_signed = format!("eyJhbGciOiJub25lIn0.{payload}.{signature}");
    let cut = &text[..text.len() - 4];
    let raw = |text: &str| Token::new(text).unwrap();
    let mine = "not a token of this issuer";
    let cases = [
        ("alg none", raw(&none), mine),
        ("alg none, signed", raw(&none_signed), mine),
        (
            "HMAC with the public key",
            forged(
                &Header::new(Algorithm::HS256),
                &claims(),
                &EncodingKey::from_secret(&public),
            ),
            mine,
        ),
        ("other key", other.issue(&request(None)).unwrap(), mine),
        ("other issuer", with("/iss", json!("kubernetes")), mine),
        ("no issuer", with("/iss", Value::Null), mine),
        ("cut", raw(cut), mine),
        ("no signature", raw(body), mine),
        ("garbage", raw("a.b.c"), mine),
        ("many dots", raw(&".".repeat(1000)), mine),
        ("expired", with("/exp", json!(NOW)), "the token has expired"),
        ("negative end", with("/exp", json!(-1)), mine),
        ("endless", with("/exp", json!("never")), mine),
        (
            "not yet",
            with("/nbf", json!(NOW + 1)),
            "the token is not valid yet",
        ),
        (
            "from the future",
            with("/iat", json!(NOW + 1)),
            "the token is not valid yet",
        ),
        (
            "other audience",
            with("/aud", json!(["api"])),
            "the token is for another audience",
        ),
        (
            "no audience",
            with("/aud", json!([])),
            "the token is for another audience",
        ),
        (
            "other subject",
            with("/sub", json!("system:serviceaccount:app:admin")),
            "the claims of the token contradict each other",
        ),
        ("no account", with("/kubernetes.io", json!({})), mine),
    ];
    for (case, token, error) in cases {
        let expected = Review {
            error: error.to_owned(),
            ..Review::default()
        };
        assert_eq!(review(&world.issuer, &token), expected, "{case}");
    }
}

impl World {
    fn issuer_public(&self) -> Vec<u8> {
        let path = self.dir.path().join("tokens/signing-key.der");
        let key = fs::read(path).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).unwrap();
        pair.public_key().as_ref().to_vec()
    }
}

#[test]
fn token_ends_when_it_says() {
    let world = world();
    let token = world.issuer.issue(&request(None)).unwrap();
    for (seconds, good) in [(0, true), (3599, true), (3600, false)] {
        world.now.store(NOW + seconds, Ordering::Relaxed);
        let found = review(&world.issuer, &token).authenticated;
        assert_eq!(found, good, "{seconds}");
    }
}

#[test]
fn token_of_a_pod_that_is_gone_is_refused() {
    let world = world();
    let issuer = world.issuer.with_pods(Arc::new(|ns, sa, pod| {
        (ns, sa, pod.uid.as_str()) == ("app", "web", "u0")
    }));
    let gone = PodRef {
        uid: "u1".into(),
        ..pod()
    };
    for (pod, good) in [(Some(&pod()), true), (Some(&gone), false), (None, true)] {
        let token = issuer.issue(&request(pod)).unwrap();
        assert_eq!(review(&issuer, &token).authenticated, good, "{pod:?}");
    }
}

#[test]
fn key_is_made_once_and_for_nobody_else() {
    let world = world();
    let path = world.dir.path().join("tokens/signing-key.der");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let token = world.issuer.issue(&request(None)).unwrap();
    let again = || DevIssuer::load_or_create(world.dir.path(), clock(&world.now));
    assert!(review(&again().unwrap(), &token).authenticated);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(again(), Err(IssuerError::Corrupt { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for garbage in [&b""[..], b"garbage", &[0; 10_000]] {
        fs::write(&path, garbage).unwrap();
        assert!(matches!(again(), Err(IssuerError::Corrupt { .. })));
        assert_eq!(fs::read(&path).unwrap(), garbage, "it is never replaced");
    }
}

#[test]
fn what_is_no_account_gets_no_token() {
    let world = world();
    let base = request(None);
    let day = Duration::from_secs(24 * 3600);
    let cases = [
        TokenRequest {
            ns: "",
            ..base.clone()
        },
        TokenRequest {
            sa: "a:b",
            ..base.clone()
        },
        TokenRequest {
            ns: "a/b",
            ..base.clone()
        },
        TokenRequest {
            audience: "",
            ..base.clone()
        },
        TokenRequest {
            ttl: Duration::ZERO,
            ..base.clone()
        },
        TokenRequest {
            ttl: day * 366,
            ..base
        },
    ];
    for case in cases {
        let refused = world.issuer.issue(&case);
        assert!(matches!(refused, Err(IssuerError::Request(_))), "{case:?}");
    }
}
