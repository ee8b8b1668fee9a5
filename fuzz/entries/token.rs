//! A token of anybody's making opens nothing; one of our own key opens only what a token of
//! the issuer could say.
//!
//! The bytes are first a credential as they are. Then their first line is the header and the
//! rest the claims of a token that is signed with the issuer's own key: as if whoever made
//! it held the key but not our word.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authn::{Authenticator, AuthenticatorConfig, DevIssuer, Metrics, Peer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

const NOW: u64 = 1_800_000_000;

struct World {
    authenticator: Authenticator,
    key: EncodingKey,
    runtime: tokio::runtime::Runtime,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let now = || UNIX_EPOCH + Duration::from_secs(NOW);
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Fn() -> SystemTime + Send + Sync> = Arc::new(now);
        let issuer = DevIssuer::load_or_create(dir.path(), Arc::clone(&clock)).unwrap();
        let key = std::fs::read(dir.path().join("tokens/signing-key.der")).unwrap();
        let config = AuthenticatorConfig {
            reviewer: Arc::new(issuer),
            cluster_ids: vec!["Kubernetes".to_owned()],
            remotes: BTreeMap::new(),
            audiences: vec!["istio-ca".to_owned()],
            trust_domain: Arc::new(|| "cluster.local".into()),
            clock,
        };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        World {
            authenticator: Authenticator::new(config, metrics),
            key: EncodingKey::from_ec_der(&key),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
        }
    })
}

pub fn run(bytes: &[u8]) {
    opens(bytes);
}

/// Whether the signed token lets somebody in.
pub fn opens(bytes: &[u8]) -> bool {
    let world = world();
    assert!(ask(world, bytes).is_none(), "nobody signed this");
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    let body = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature =
        jsonwebtoken::crypto::sign(body.as_bytes(), &world.key, Algorithm::ES256).unwrap();
    let token = format!("{body}.{signature}");
    let Some(account) = ask(world, format!("Bearer {token}").as_bytes()) else {
        return false;
    };
    let json = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let (header, claims) = (json(header), json(claims));
    assert_eq!(header["alg"], "ES256");
    assert_eq!(claims["sub"], account.as_str());
    assert!(claims["exp"].as_f64().unwrap() > NOW as f64);
    assert!(claims["aud"].to_string().contains("\"istio-ca\""));
    true
}

/// The account that is let in with this header.
fn ask(world: &World, value: &[u8]) -> Option<String> {
    let mut headers = http::HeaderMap::new();
    let value = http::HeaderValue::from_bytes(value).ok()?;
    headers.insert(http::header::AUTHORIZATION, value);
    let peer = Peer {
        addr: ([10, 0, 0, 1], 1).into(),
        identity: None,
        secure: true,
    };
    let asked = world.authenticator.authenticate(&peer, &headers);
    let caller = world.runtime.block_on(asked).ok()?;
    let id = caller.identity;
    assert_eq!(id.trust_domain, "cluster.local");
    assert_eq!(id.to_string().parse().as_ref(), Ok(&id));
    Some(format!("system:serviceaccount:{}:{}", id.ns, id.sa))
}
