//! Tokens that a key of the test signs.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

const LIFE_SECONDS: i64 = 3600;

/// The key of the issuer, and one that nobody trusts.
pub(crate) struct Keys {
    good: rcgen::KeyPair,
    other: rcgen::KeyPair,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let key = || rcgen::KeyPair::generate().unwrap();
        Self {
            good: key(),
            other: key(),
        }
    }

    /// The public half as a key set.
    pub(crate) fn jwks(&self) -> String {
        let point = self.good.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        let text = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "kid": "good", "alg": "ES256", "use": "sig",
            "x": text(x), "y": text(y),
        }] })
        .to_string()
    }

    /// A token with these claims; `$key: other` signs it with the wrong key, `$expires_in` says
    /// when it ends.
    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> String {
        let mut claims = claims.clone();
        let key = match claims.remove("$key").as_ref().and_then(Value::as_str) {
            Some("other") => &self.other,
            _ => &self.good,
        };
        let life = claims.remove("$expires_in").and_then(|life| life.as_i64());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64;
        claims.insert("exp".into(), json!(now + life.unwrap_or(LIFE_SECONDS)));
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("good".into());
        let key = EncodingKey::from_ec_der(&key.serialize_der());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}
