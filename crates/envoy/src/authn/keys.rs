//! Which key sets Envoy takes. It refuses the whole listener for one in which it finds no usable
//! key, so a set must have one that it certainly reads. Source: tried with Envoy 1.40;
//! spec/policy-and-traffic.md §2.2.

use std::collections::BTreeSet;
use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

const RSA_BYTES_MIN: usize = 128;
const RSA_BYTES_MAX: usize = 1_024;
const ED25519_BYTES: usize = 32;

/// Judges a key set.
///
/// # Errors
/// What is wrong with it, as a clause.
pub(crate) fn check(text: &str) -> Result<(), &'static str> {
    serde_json::from_str::<Distinct>(text).map_err(|_| "it is not valid JSON")?;
    let value: Value = serde_json::from_str(text).map_err(|_| "it is not valid JSON")?;
    let keys = value.get("keys").ok_or("it has no keys")?;
    let keys = keys.as_array().ok_or("keys is no list")?;
    let objects = keys.iter().filter_map(Value::as_object);
    if objects.into_iter().any(is_usable) {
        Ok(())
    } else {
        Err("it has no key of a kind that can be used")
    }
}

/// Whether Envoy certainly reads this key.
fn is_usable(key: &Map<String, Value>) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if key.get("alg").is_some_and(|alg| !alg.is_string()) {
        return false;
    }
    let alg = text("alg");
    let bytes = |name| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    match text("kty") {
        Some("RSA") => {
            let known = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
            let (Some(n), Some(e)) = (bytes("n"), bytes("e")) else {
                return false;
            };
            let odd = n.last().is_some_and(|last| last % 2 == 1);
            alg.is_none_or(|alg| known.contains(&alg))
                && (RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&n.len())
                && n.first().is_some_and(|first| *first >= 0x80)
                && odd
                && (e == [3] || e == [1, 0, 1])
        }
        Some("EC") => is_point(text("crv"), alg, bytes("x"), bytes("y")),
        Some("OKP") => {
            text("crv") == Some("Ed25519")
                && alg.is_none_or(|alg| alg == "EdDSA")
                && bytes("x").is_some_and(|x| x.len() == ED25519_BYTES)
        }
        Some("oct") => {
            alg.is_none_or(|alg| ["HS256", "HS384", "HS512"].contains(&alg))
                && bytes("k").is_some_and(|k| !k.is_empty())
        }
        _ => false,
    }
}

/// Whether the coordinates are those of a point on the curve.
fn is_point(
    curve: Option<&str>,
    alg: Option<&str>,
    x: Option<Vec<u8>>,
    y: Option<Vec<u8>>,
) -> bool {
    let (rules, size, known): (&'static dyn VerificationAlgorithm, usize, &str) = match curve {
        Some("P-256") => (&ECDSA_P256_SHA256_FIXED, 32, "ES256"),
        Some("P-384") => (&ECDSA_P384_SHA384_FIXED, 48, "ES384"),
        Some("P-521") => (&ECDSA_P521_SHA512_FIXED, 66, "ES512"),
        _ => return false,
    };
    let (Some(x), Some(y)) = (x, y) else {
        return false;
    };
    let mut point = vec![4];
    point.extend(x.iter().chain(&y));
    alg.is_none_or(|alg| alg == known)
        && (x.len(), y.len()) == (size, size)
        && ParsedPublicKey::new(rules, &point).is_ok()
}

/// Any JSON whose objects have no name twice, which Envoy's parser refuses.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctVisitor)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_unit<E: Error>(self) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Distinct, A::Error> {
        while items.next_element::<Distinct>()?.is_some() {}
        Ok(Distinct)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Distinct, A::Error> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name twice"));
            }
            fields.next_value::<Distinct>()?;
        }
        Ok(Distinct)
    }
}

#[cfg(test)]
mod tests;
