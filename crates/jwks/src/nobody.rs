//! A key set that no token satisfies.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::Str;

/// A fresh public key whose private half is thrown away, as a key set: EC P-256 without `kid`,
/// so that every token is measured by it, and fails. `None` when there is no randomness.
pub fn nobody() -> Option<Str> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    // An uncompressed point: a tag, x and y.
    let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    Some(arcstr::format!(
        r#"{{"keys":[{{"alg":"ES256","crv":"P-256","kty":"EC","use":"sig","x":"{x}","y":"{y}"}}]}}"#
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_call_makes_another_key_of_full_size() {
        let (a, b) = (nobody().unwrap(), nobody().unwrap());
        assert_ne!(a, b);
        let set: serde_json::Value = serde_json::from_str(&a).unwrap();
        let part = |name: &str| {
            let text = set.pointer(&format!("/keys/0/{name}")).unwrap();
            URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
        };
        assert_eq!((part("x").len(), part("y").len()), (32, 32));
    }
}
