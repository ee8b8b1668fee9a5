//! Secret and ConfigMap. No message of this module may show a value, and serde's messages do, so
//! they are read by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::Str;
use crate::object::{Invalid, Labels, Parsed};
use crate::secret::{
    CONFIG_MAP_KEYS, ConfigMap, OVERLAY_KEYS, SECRET_BYTES_MAX, SECRET_KEYS, Secret, SecretBytes,
    SecretData,
};

use super::clip;
use super::read::{Doc, invalid};

pub(super) fn secret(mut doc: Doc<'_>) -> Arc<Parsed<Secret>> {
    // `kubectl apply` leaves a copy of the whole object there.
    doc.meta.annotations = Labels::new();
    doc.row(|doc| {
        let ty = match doc.top("type") {
            None | Some(Value::Null) => Str::new(),
            Some(Value::String(text)) => clip(text),
            Some(_) => return Err(invalid("type", "expected a string")),
        };
        let mut data = values(doc, "data", &SECRET_KEYS, decoded)?;
        data.extend(values(doc, "stringData", &SECRET_KEYS, plain)?);
        Ok(Secret {
            ty,
            data: bounded(data)?,
        })
    })
}

pub(super) fn config_map(mut doc: Doc<'_>) -> Arc<Parsed<ConfigMap>> {
    doc.meta.annotations = Labels::new();
    doc.row(|doc| {
        let data = values(doc, "data", &CONFIG_MAP_KEYS, plain)?;
        let (overlays, other_key) = overlays(doc)?;
        let bytes: usize = overlays.values().map(|text| text.len()).sum();
        if bytes > SECRET_BYTES_MAX {
            return Err(too_large("data"));
        }
        Ok(ConfigMap {
            data: bounded(data)?,
            overlays,
            other_key,
        })
    })
}

/// The texts of overlays, and the first key that is none. A value of one that is no text costs
/// only itself: what else the object holds may be meant for somebody else.
fn overlays(doc: &Doc<'_>) -> Result<(BTreeMap<&'static str, Str>, Option<Str>), Invalid> {
    let map = match doc.top("data") {
        None | Some(Value::Null) => return Ok(Default::default()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(invalid("data", "expected a mapping of strings")),
    };
    let mut out = BTreeMap::new();
    let mut other: Option<&String> = None;
    for (key, value) in map {
        match OVERLAY_KEYS.into_iter().find(|known| known == key) {
            Some(known) => {
                let text = value.as_str().unwrap_or_default();
                out.insert(known, Str::from(text));
            }
            None if other.is_none_or(|first| key < first) => other = Some(key),
            None => {}
        }
    }
    Ok((out, other.map(|key| clip(key))))
}

/// The known keys of a part; the others are never looked at.
fn values(
    doc: &Doc<'_>,
    part: &str,
    known: &[&'static str],
    read: fn(&str) -> Option<SecretBytes>,
) -> Result<SecretData, Invalid> {
    let map = match doc.top(part) {
        None | Some(Value::Null) => return Ok(SecretData::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(invalid(part, "expected a mapping of strings")),
    };
    let mut out = SecretData::new();
    for key in known {
        let at = || arcstr::format!("{part}[{key}]");
        let text = match map.get(*key) {
            None => continue,
            // As an empty value, which replaces one of `data`.
            Some(Value::Null) => "",
            Some(Value::String(text)) => text,
            Some(_) => return Err(invalid(at(), "expected a string")),
        };
        if text.len() > SECRET_BYTES_MAX.saturating_mul(2) {
            return Err(too_large(at()));
        }
        let value = read(text).ok_or_else(|| invalid(at(), "not base64"))?;
        out.insert(key, value);
    }
    Ok(out)
}

#[allow(clippy::unnecessary_wraps, reason = "the other reader can fail")]
fn plain(text: &str) -> Option<SecretBytes> {
    Some(SecretBytes::new(text.as_bytes()))
}

fn decoded(text: &str) -> Option<SecretBytes> {
    let one_line: Zeroizing<Vec<u8>> = Zeroizing::new(
        text.bytes()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect(),
    );
    STANDARD.decode(&*one_line).ok().map(SecretBytes::new)
}

/// Without empty values, which hold nothing, and within the limit of an object.
fn bounded(mut data: SecretData) -> Result<SecretData, Invalid> {
    data.retain(|_, value| !value.is_empty());
    let bytes: usize = data.values().map(|value| value.expose().len()).sum();
    if bytes > SECRET_BYTES_MAX {
        return Err(too_large("data"));
    }
    Ok(data)
}

fn too_large(field: impl Into<Str>) -> Invalid {
    invalid(
        field,
        arcstr::format!("more than {SECRET_BYTES_MAX} bytes of values"),
    )
}
