//! `tls`: applied as written, or refusing.

use serde::Deserialize;
use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{ClientTls, TlsMode};
use crate::object::Invalid;

use super::super::read::{Doc, invalid, strs};

/// Longest server name that proxies take.
const SNI_BYTES_MAX: usize = 255;
const NAMES_COUNT_MAX: usize = 256;
const FIELDS: &[&str] = &[
    "caCertificates",
    "caCrl",
    "clientCertificate",
    "credentialName",
    "insecureSkipVerify",
    "mode",
    "privateKey",
    "sni",
    "subjectAltNames",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TlsWire {
    mode: Option<String>,
    client_certificate: Option<String>,
    private_key: Option<String>,
    ca_certificates: Option<String>,
    ca_crl: Option<String>,
    credential_name: Option<String>,
    subject_alt_names: Option<Vec<String>>,
    sni: Option<String>,
    insecure_skip_verify: Option<bool>,
}

/// TLS that refuses connections.
pub(super) fn refusing() -> ClientTls {
    ClientTls {
        mode: TlsMode::Refuse,
        ..ClientTls::default()
    }
}

/// Reads a `tls` block. A field that does not exist could be a misspelt condition, so that
/// refuses too.
pub(super) fn tls(doc: &mut Doc<'_>, value: Option<Value>, at: &str) -> Option<ClientTls> {
    let value = value.filter(|value| !value.is_null())?;
    let mut unknown = None;
    let wire = doc.fields::<TlsWire>(&value, at, FIELDS, |path| {
        unknown.get_or_insert_with(|| path.to_owned());
        true
    });
    let read = match unknown {
        Some(path) => Err(invalid(super::clip(&path), "there is no such field")),
        None => wire.and_then(|wire| settings(doc, wire, at)),
    };
    Some(read.unwrap_or_else(|what| {
        let message = arcstr::format!(
            "These TLS settings cannot be applied as written, so connections that they concern are refused rather than opened in plain text: {}",
            what.reason
        );
        doc.note(
            "dr-tls-invalid",
            Severity::Error,
            what.field,
            message,
            "Correct the field",
        );
        refusing()
    }))
}

fn settings(doc: &mut Doc<'_>, wire: TlsWire, at: &str) -> Result<ClientTls, Invalid> {
    let place = |name: &str| format!("{at}.{name}");
    let mode = match wire.mode.as_deref() {
        None | Some("" | "DISABLE") => TlsMode::Disable,
        Some("SIMPLE") => TlsMode::Simple,
        Some("MUTUAL") => TlsMode::Mutual,
        Some("ISTIO_MUTUAL") => TlsMode::IstioMutual,
        Some(_) => {
            let reason = "not DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL";
            return Err(invalid(place("mode"), reason));
        }
    };
    let text = |text: Option<String>| Str::from(text.unwrap_or_default());
    let tls = ClientTls {
        mode,
        client_certificate: text(wire.client_certificate),
        private_key: text(wire.private_key),
        ca_certificates: text(wire.ca_certificates),
        ca_crl: text(wire.ca_crl),
        credential_name: text(wire.credential_name),
        subject_alt_names: strs(wire.subject_alt_names.unwrap_or_default()),
        sni: text(wire.sni),
        insecure_skip_verify: wire.insecure_skip_verify.unwrap_or_default(),
    };
    if matches!(mode, TlsMode::Simple | TlsMode::Mutual) {
        names(&tls, at)?;
        credential(doc, &tls, at)?;
        let verifies = [
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
            ("caCertificates", !tls.ca_certificates.is_empty()),
            (
                "credentialName",
                mode == TlsMode::Simple && !tls.credential_name.is_empty(),
            ),
        ];
        if let Some((name, _)) = verifies.iter().find(|(_, given)| *given)
            && tls.insecure_skip_verify
        {
            let reason = "nothing is verified with insecureSkipVerify, which excludes this";
            return Err(invalid(place(name), reason));
        }
        if mode == TlsMode::Simple && !tls.client_certificate.is_empty() {
            doc.not_applied(
                place("clientCertificate"),
                "mode SIMPLE presents no certificate of the client",
            );
        }
    }
    Ok(tls)
}

fn names(tls: &ClientTls, at: &str) -> Result<(), Invalid> {
    if tls.sni.len() > SNI_BYTES_MAX || has_controls(&tls.sni) {
        return Err(invalid(format!("{at}.sni"), "not a server name"));
    }
    if tls.subject_alt_names.len() > NAMES_COUNT_MAX {
        let reason = arcstr::format!("more than {NAMES_COUNT_MAX} names");
        return Err(invalid(format!("{at}.subjectAltNames"), reason));
    }
    let mut names = tls.subject_alt_names.iter();
    match names.position(|name| name.is_empty() || has_controls(name)) {
        Some(i) => Err(invalid(format!("{at}.subjectAltNames[{i}]"), "not a name")),
        None => Ok(()),
    }
}

/// Where certificates come from: a Secret, or files.
fn credential(doc: &Doc<'_>, tls: &ClientTls, at: &str) -> Result<(), Invalid> {
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
        ("caCrl", &tls.ca_crl),
    ];
    if let Some((name, _)) = files.iter().find(|(_, path)| has_controls(path)) {
        return Err(invalid(format!("{at}.{name}"), "not a path"));
    }
    let name = tls.credential_name.as_str();
    if name.is_empty() {
        if !tls.ca_crl.is_empty() && tls.ca_certificates.is_empty() {
            let reason = "a revocation list needs the caCertificates that it belongs to";
            return Err(invalid(format!("{at}.caCrl"), reason));
        }
        return Ok(());
    }
    if let Some((file, _)) = files.iter().find(|(_, path)| !path.is_empty()) {
        return Err(invalid(
            format!("{at}.{file}"),
            "credentialName excludes files",
        ));
    }
    let place = format!("{at}.credentialName");
    match name.split_once("://") {
        None if is_object_name(name) => Ok(()),
        Some(("kubernetes", name)) if is_object_name(name) => Ok(()),
        Some(("configmap", rest)) => match rest.split_once('/') {
            Some((ns, name)) if *ns == *doc.meta.key.ns && is_object_name(name) => Ok(()),
            _ => Err(invalid(
                place,
                "not a ConfigMap of the rule's own namespace (configmap://namespace/name)",
            )),
        },
        _ => Err(invalid(place, "not the name of a Secret")),
    }
}

/// As Kubernetes has names of objects.
fn is_object_name(text: &str) -> bool {
    text.len() <= super::HOST_BYTES_MAX && text.split('.').all(super::is_label)
}

fn has_controls(text: &str) -> bool {
    text.chars().any(char::is_control)
}
