//! PeerAuthentication.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::input::{MtlsMode, PeerAuthentication};
use crate::labels::ANNOTATION_DRY_RUN;
use crate::object::{Invalid, Labels, Parsed};

use super::wire::SelectorWire;
use super::{dry_run_field, note_selector, selector, unknown_word};
use crate::parse::read::{Doc, invalid, port};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeerWire {
    selector: Option<SelectorWire>,
    mtls: Option<MtlsWire>,
    port_level_mtls: Option<BTreeMap<String, MtlsWire>>,
}

#[derive(Deserialize)]
struct MtlsWire {
    mode: Option<String>,
}

pub(in crate::parse) fn peer_authentication(doc: Doc<'_>) -> Arc<Parsed<PeerAuthentication>> {
    const FIELDS: &[&str] = &["selector", "matchLabels", "mtls", "mode", "portLevelMtls"];
    doc.row(|doc| {
        let spec: PeerWire = doc.spec(FIELDS, |_| false)?;
        if doc.meta.annotation(ANNOTATION_DRY_RUN).is_some() {
            return Err(invalid(
                dry_run_field(),
                "only an AuthorizationPolicy can be tried out",
            ));
        }
        let selector = selector(spec.selector)?;
        let mode = mode("spec.mtls.mode", spec.mtls)?;
        let ports = port_modes(spec.port_level_mtls, selector.as_ref())?;
        note_selector(doc, selector.as_ref());
        Ok(PeerAuthentication {
            selector: selector.filter(|labels| !labels.is_empty()),
            mode,
            ports,
        })
    })
}

/// Modes by port, which only a PeerAuthentication for certain workloads may have.
fn port_modes(
    wire: Option<BTreeMap<String, MtlsWire>>,
    selector: Option<&Labels>,
) -> Result<BTreeMap<u16, MtlsMode>, Invalid> {
    const FIELD: &str = "spec.portLevelMtls";
    let Some(wire) = wire else {
        return Ok(BTreeMap::new());
    };
    if wire.is_empty() {
        return Err(invalid(FIELD, "no port is given; leave it out"));
    }
    if selector.is_none_or(Labels::is_empty) {
        return Err(invalid(
            FIELD,
            "ports can only be set together with a selector that names labels",
        ));
    }
    let mut ports = BTreeMap::new();
    for (key, wire) in wire {
        let at = format!("{FIELD}.{key}");
        let number: i64 = key
            .parse()
            .map_err(|_| invalid(at.as_str(), "the key is not a port"))?;
        let mode = mode(&format!("{at}.mode"), Some(wire))?;
        ports.insert(port(number, || at)?, mode);
    }
    Ok(ports)
}

fn mode(field: &str, wire: Option<MtlsWire>) -> Result<MtlsMode, Invalid> {
    match wire.and_then(|wire| wire.mode).as_deref() {
        None | Some("" | "UNSET") => Ok(MtlsMode::Unset),
        Some("DISABLE") => Ok(MtlsMode::Disable),
        Some("PERMISSIVE") => Ok(MtlsMode::Permissive),
        Some("STRICT") => Ok(MtlsMode::Strict),
        Some(word) => Err(unknown_word(
            field,
            word,
            "UNSET, DISABLE, PERMISSIVE or STRICT",
        )),
    }
}
