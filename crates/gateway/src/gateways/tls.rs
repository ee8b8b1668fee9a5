//! How a listener speaks TLS. Source: spec/gateway-api.md §3.4, §3.7; spec/envoy-config.md §6.5.

use model::gateway::{
    Defect, Defects, LABEL_GATEWAY_PORT, ListenerProtocol, NETWORK_PORT, OPTION_CIPHER_SUITES,
    OPTION_PROTOCOL, OPTION_TERMINATE_MODE, TlsMode, TlsRow,
};
use model::input::{FrontendValidation, ListenerTls};
use model::labels::LABEL_NETWORK;
use model::{Finding, ObjectKey, Severity, Str};

use super::Candidate;
use super::judge::Site;
use super::references::{NOT_PERMITTED, References, Referrer, authority_name, certificate_name};

/// Most certificates of a listener: one of each kind of key.
const CERTIFICATES_MAX: usize = 2;
/// Value of [`OPTION_PROTOCOL`] that leads connections where their SNI says.
const AUTO_PASSTHROUGH: &str = "auto-passthrough";

/// Ciphers that proxies know, as options name them.
const CIPHERS: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// What became of `tls` of a listener.
#[derive(Default)]
pub(super) struct Found {
    pub(super) row: Option<TlsRow>,
    pub(super) defects: Defects,
    pub(super) is_valid: bool,
}

impl Found {
    fn of(row: TlsRow) -> Self {
        Self {
            row: Some(row),
            defects: Defects::default(),
            is_valid: true,
        }
    }

    /// It cannot be opened.
    fn unusable(defect: Defect) -> Self {
        Self {
            defects: Defects {
                programmed: Some(defect),
                ..Defects::default()
            },
            ..Self::default()
        }
    }

    /// It cannot be opened because of what it refers to.
    fn unresolved(defect: Defect, is_of_authority: bool) -> Self {
        let no_authority = is_of_authority || defect.reason == NOT_PERMITTED;
        Self {
            defects: Defects {
                accepted: no_authority
                    .then(|| Defect::new("NoValidCACertificate", defect.message.clone())),
                programmed: Some(Defect::new("Invalid", defect.message.clone())),
                resolved_refs: Some(defect),
            },
            ..Self::default()
        }
    }
}

fn invalid(message: impl Into<Str>) -> Found {
    Found::unusable(Defect::new("Invalid", message))
}

/// What becomes of `tls` of a listener whose protocol wants it.
pub(super) fn of(
    site: &Site<'_>,
    candidate: &Candidate<'_>,
    references: &mut References<'_, '_>,
) -> Found {
    let Some(tls) = candidate.listener.tls.as_ref() else {
        return without(candidate);
    };
    if let Some(mode) = &tls.unknown_mode {
        return invalid(format!("There is no TLS mode {mode:?}"));
    }
    if tls.passthrough {
        if candidate.protocol != ListenerProtocol::Tls {
            return invalid(format!(
                "{} cannot be passed through: its requests are inside TLS",
                candidate.protocol
            ));
        }
        if is_automatic(site, candidate, tls) {
            return automatic(tls);
        }
        return Found::of(bare(TlsMode::Passthrough, tls));
    }
    if let Some(found) = unknown_ciphers(candidate, tls, references) {
        return found;
    }
    match option(tls, OPTION_TERMINATE_MODE) {
        Some("ISTIO_SIMPLE") => Found::of(bare(TlsMode::IstioSimple, tls)),
        Some("ISTIO_MUTUAL") => Found::of(bare(TlsMode::IstioMutual, tls)),
        None => terminating(site, candidate, tls, None, references),
        Some("MUTUAL") => terminating(site, candidate, tls, Some(TlsMode::Mutual), references),
        Some("OPTIONAL_MUTUAL") => {
            let strictness = Some(TlsMode::OptionalMutual);
            terminating(site, candidate, tls, strictness, references)
        }
        // Who meant to ask for certificates must not get a listener that asks for none.
        Some(word) => invalid(format!(
            "Option {OPTION_TERMINATE_MODE} has no value {word:?}"
        )),
    }
}

/// What leads connections where their SNI says is for mutual TLS between sidecars, which name
/// services so; nothing in an ambient mesh does, and whoever else could would go past policies.
fn automatic(tls: &ListenerTls) -> Found {
    let message = "It is to lead TLS connections where their server name says, which only sidecars make use of, and those this mesh does not have";
    Found {
        row: Some(bare(TlsMode::AutoPassthrough, tls)),
        is_valid: true,
        ..Found::unusable(Defect::new("Invalid", message))
    }
}

/// A listener of a Gateway is just not built; one of a ListenerSet is refused.
fn without(candidate: &Candidate<'_>) -> Found {
    if !candidate.is_of_set() {
        return Found {
            is_valid: true,
            ..Found::default()
        };
    }
    let message = arcstr::format!("A listener with protocol {} needs tls", candidate.protocol);
    Found {
        defects: Defects {
            accepted: Some(Defect::new("UnsupportedProtocol", message.clone())),
            programmed: Some(Defect::new("Invalid", message)),
            resolved_refs: None,
        },
        ..Found::default()
    }
}

fn bare(mode: TlsMode, tls: &ListenerTls) -> TlsRow {
    TlsRow {
        mode,
        credentials: Vec::new(),
        authority: None,
        accepts_untrusted: false,
        cipher_suites: cipher_suites(tls),
    }
}

fn option<'l>(tls: &'l ListenerTls, name: &str) -> Option<&'l str> {
    tls.options.get(name).map(Str::as_str)
}

fn cipher_suites(tls: &ListenerTls) -> Vec<Str> {
    let written = option(tls, OPTION_CIPHER_SUITES).unwrap_or_default();
    let words = written.split(',').map(str::trim);
    let mut out: Vec<Str> = Vec::new();
    for word in words.filter(|word| CIPHERS.contains(word)) {
        if !out.iter().any(|known| known == word) {
            out.push(Str::from(word));
        }
    }
    out
}

/// Tells of ciphers that are left out. Where none is left the listener is not opened: with the
/// usual ones it would take clients that it was meant to refuse.
fn unknown_ciphers(
    candidate: &Candidate<'_>,
    tls: &ListenerTls,
    references: &mut References<'_, '_>,
) -> Option<Found> {
    let written = option(tls, OPTION_CIPHER_SUITES).unwrap_or_default();
    let words = written.split(',').map(str::trim);
    let unknown: Vec<&str> = words
        .filter(|word| !word.is_empty() && !CIPHERS.contains(word))
        .collect();
    if unknown.is_empty() {
        return None;
    }
    if cipher_suites(tls).is_empty() {
        return Some(invalid(format!(
            "Option {OPTION_CIPHER_SUITES} names no cipher suite that proxies know"
        )));
    }
    let shown = unknown
        .iter()
        .take(3)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let finding = Finding::new(
        "gw-cipher-unknown",
        Severity::Warning,
        candidate.owner.clone(),
        arcstr::format!(
            "Proxies do not know cipher suites {shown} and offer the others of the list"
        ),
        "Use the names of OpenSSL, such as ECDHE-RSA-AES128-GCM-SHA256",
    );
    let at = format!("spec.listeners[{}].tls.options", candidate.index);
    references.notes.push(finding.at(at));
    None
}

/// Whether the SNI of connections names the service that they are for.
fn is_automatic(site: &Site<'_>, candidate: &Candidate<'_>, tls: &ListenerTls) -> bool {
    if option(tls, OPTION_PROTOCOL) == Some(AUTO_PASSTHROUGH) {
        return true;
    }
    let port = site.meta.label(LABEL_GATEWAY_PORT);
    let port = port.map_or(Some(NETWORK_PORT), |text| text.parse().ok());
    site.meta.label(LABEL_NETWORK).is_some() && port == Some(candidate.port)
}

/// TLS that ends here, with certificates from Secrets; `strictness` towards clients where an
/// option states it.
fn terminating(
    site: &Site<'_>,
    candidate: &Candidate<'_>,
    tls: &ListenerTls,
    strictness: Option<TlsMode>,
    references: &mut References<'_, '_>,
) -> Found {
    let certificates = certificates(candidate, tls, references);
    // Looked at whatever the certificates are, so that all that is wrong is told at once.
    let frontend = site.gateway.frontend.of_port(candidate.port);
    let frontend = frontend.filter(|_| !tls.certificates.is_empty());
    let authority = frontend.map(|wanted| {
        let at = match site.gateway.frontend.per_port.get(&candidate.port) {
            Some(_) => "spec.tls.frontend.perPort",
            None => "spec.tls.frontend.default",
        };
        (wanted, references.authorities(at, wanted))
    });
    let (secrets, flawed) = match certificates {
        Ok(found) => found,
        Err(defect) => return Found::unresolved(defect, false),
    };
    let mut row = TlsRow {
        credentials: secrets.iter().map(certificate_name).collect(),
        ..bare(strictness.unwrap_or(TlsMode::Simple), tls)
    };
    match (authority, strictness, secrets.first()) {
        (Some((_, Err(defect))), ..) => return Found::unresolved(defect, true),
        (Some((wanted, Ok(name))), ..) => {
            row.authority = Some(name);
            row.mode = strictness.unwrap_or_else(|| by_validation(wanted));
            row.accepts_untrusted = wanted.accepts_untrusted && row.mode == TlsMode::OptionalMutual;
        }
        (None, Some(_), Some(first)) => {
            let at = certificates_at(candidate);
            references.authority(&by(candidate, &at), first);
            row.authority = Some(authority_name(first));
        }
        (None, ..) => {}
    }
    let mut found = Found::of(row);
    found.defects.resolved_refs = flawed;
    found
}

fn by_validation(wanted: &FrontendValidation) -> TlsMode {
    if wanted.accepts_untrusted {
        TlsMode::OptionalMutual
    } else {
        TlsMode::Mutual
    }
}

fn by<'a>(candidate: &'a Candidate<'_>, at: &'a str) -> Referrer<'a> {
    Referrer {
        owner: &candidate.owner,
        at,
    }
}

fn certificates_at(candidate: &Candidate<'_>) -> String {
    format!("spec.listeners[{}].tls.certificateRefs", candidate.index)
}

/// The Secrets with certificates that can be served, and what is wrong with the others.
///
/// # Errors
/// What is wrong when there is none at all: the reason of the first, the words of all.
fn certificates(
    candidate: &Candidate<'_>,
    tls: &ListenerTls,
    references: &mut References<'_, '_>,
) -> Result<(Vec<ObjectKey>, Option<Defect>), Defect> {
    let at = certificates_at(candidate);
    let count = tls.certificates.len();
    if count > CERTIFICATES_MAX {
        references.refuse(
            &by(candidate, &at),
            "gw-certificate-ref",
            "A listener has at most two certificates; it is given none of these, and TLS to it fails",
            "Keep one reference for each kind of key, RSA and ECDSA",
        );
        let message =
            format!("A listener has at most {CERTIFICATES_MAX} certificates, not {count}");
        return Err(Defect::new("InvalidCertificateRef", message));
    }
    if count == 0 {
        references.refuse(
            &by(candidate, &at),
            "gw-certificate-ref",
            "A listener that ends TLS needs a certificate; it is given none, and TLS to it fails",
            "Refer to a Secret",
        );
        let message = "A listener that ends TLS needs a certificate";
        return Err(Defect::new("InvalidCertificateRef", message));
    }
    let mut good = Vec::new();
    let mut bad: Vec<Defect> = Vec::new();
    for (n, wanted) in tls.certificates.iter().enumerate() {
        let place = format!("{at}[{n}]");
        match references.certificate(&by(candidate, &place), wanted) {
            Ok(secret) if good.contains(&secret) => {}
            Ok(secret) => good.push(secret),
            Err(defect) => bad.push(defect),
        }
    }
    let joined = bad.first().map(|first| {
        let messages: Vec<&str> = bad.iter().map(|one| one.message.as_str()).collect();
        Defect::new(first.reason, messages.join("; "))
    });
    match joined {
        Some(defect) if good.is_empty() => Err(defect),
        flawed => Ok((good, flawed)),
    }
}
