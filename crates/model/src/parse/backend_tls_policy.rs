//! BackendTLSPolicy. Source: spec/gateway-api.md §4.7.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::Str;
use crate::finding::Severity;
use crate::input::{BackendTlsPolicy, BackendTlsTarget, SubjectAltName};
use crate::object::{Invalid, Parsed};

use super::gateway::{Reference, certificate};
use super::read::{Doc, at_most};

const ANNOTATION_IGNORE: &str = "istio.io/ignore-policy-attachment";

const TARGETS_COUNT_MAX: usize = 16;
const AUTHORITIES_COUNT_MAX: usize = 8;
const NAMES_COUNT_MAX: usize = 5;

const FIELDS: &[&str] = &[
    "caCertificateRefs",
    "group",
    "hostname",
    "kind",
    "name",
    "options",
    "sectionName",
    "subjectAltNames",
    "targetRefs",
    "type",
    "uri",
    "validation",
    "wellKnownCACertificates",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    target_refs: Vec<Target>,
    validation: Validation,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
    section_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    hostname: String,
    ca_certificate_refs: Option<Vec<Reference>>,
    #[serde(rename = "wellKnownCACertificates")]
    well_known: Option<String>,
    subject_alt_names: Option<Vec<Name>>,
}

#[derive(Deserialize)]
struct Name {
    r#type: String,
    hostname: Option<String>,
    uri: Option<String>,
}

pub(super) fn backend_tls_policy(doc: Doc<'_>) -> Arc<Parsed<BackendTlsPolicy>> {
    doc.row(|doc| {
        let spec: Spec = doc.spec(FIELDS, |_| false)?;
        at_most(&spec.target_refs, TARGETS_COUNT_MAX, "spec.targetRefs")?;
        if spec.options.is_some_and(|options| !options.is_empty()) {
            doc.not_applied("spec.options", "connections are made without these options");
        }
        let validation = spec.validation;
        let authorities = validation.ca_certificate_refs.unwrap_or_default();
        let at = "spec.validation.caCertificateRefs";
        at_most(&authorities, AUTHORITIES_COUNT_MAX, at)?;
        let names = validation.subject_alt_names.unwrap_or_default();
        let subject_alt_names = subject_alt_names(doc, names)?;
        let ignore = doc.meta.annotation(ANNOTATION_IGNORE);
        Ok(BackendTlsPolicy {
            targets: spec.target_refs.into_iter().map(target).collect(),
            hostname: Str::from(validation.hostname),
            authorities: authorities.into_iter().map(certificate).collect(),
            well_known: validation
                .well_known
                .filter(|word| !word.is_empty())
                .map(Str::from),
            subject_alt_names,
            is_ignored: ignore.is_some_and(|text| text.eq_ignore_ascii_case("true")),
        })
    })
}

fn target(wire: Target) -> BackendTlsTarget {
    BackendTlsTarget {
        group: Str::from(wire.group),
        kind: Str::from(wire.kind),
        name: Str::from(wire.name),
        section: wire
            .section_name
            .filter(|name| !name.is_empty())
            .map(Str::from),
    }
}

/// A name that cannot be read is left out with a note: the others still count, and if there is no
/// other, the host name does.
fn subject_alt_names(doc: &mut Doc<'_>, wire: Vec<Name>) -> Result<Vec<SubjectAltName>, Invalid> {
    at_most(&wire, NAMES_COUNT_MAX, "spec.validation.subjectAltNames")?;
    let mut out = Vec::new();
    for (i, name) in wire.into_iter().enumerate() {
        let text = |value: Option<String>| value.filter(|text| !text.is_empty()).map(Str::from);
        let found = match name.r#type.as_str() {
            "Hostname" => text(name.hostname).map(SubjectAltName::Hostname),
            "URI" => text(name.uri).map(SubjectAltName::Uri),
            _ => None,
        };
        match found {
            Some(found) => out.push(found),
            None => doc.note(
                "btls-subject-unusable",
                Severity::Error,
                arcstr::format!("spec.validation.subjectAltNames[{i}]"),
                "This name is of no known type or has no value, so certificates are not accepted for it",
                "Write type: Hostname with hostname, or type: URI with uri",
            ),
        }
    }
    Ok(out)
}
