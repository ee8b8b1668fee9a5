//! TLS that a waypoint opens itself. Source: spec/policy-and-traffic.md §7.6;
//! spec/envoy-config.md §3.8, §7.1.

use model::input::{ClientTls, TlsMode};
use model::secret::CA_SUFFIX;
use model::{MeshRow, ObjectKey, Str};

use super::Seen;
use crate::ir::{Direction, TlsAuthority, TlsCertificate, UpstreamTlsIr};

/// Scheme of resource names of Secrets in the proxy's namespace.
const KUBERNETES: &str = "kubernetes://";
const CONFIG_MAP: &str = "configmap://";

/// How connections to endpoints are opened, inside the tunnel where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// As plain bytes.
    Plain,
    /// With TLS.
    Tls(UpstreamTlsIr),
    /// Not at all, for what was asked for cannot be done.
    Refused(Refusal),
}

/// Why connections are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The settings cannot be applied as written; it was said when they were read.
    Invalid,
    /// MUTUAL without a certificate of the client.
    NoCertificate,
    /// Files of the waypoint, named by a rule that may not.
    Files,
    /// `ISTIO_MUTUAL` to a host outside the mesh that a route leads to.
    Outside,
}

/// What a BackendTLSPolicy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// TLS; that `h2` is offered is up to the cluster.
    Tls(UpstreamTlsIr),
    /// Nothing that is safe.
    Refused,
}

impl Backend {
    pub(super) fn opening(self, h2: bool) -> Opening {
        match self {
            Self::Tls(tls) => Opening::Tls(UpstreamTlsIr { h2, ..tls }),
            Self::Refused => Opening::Refused(Refusal::Invalid),
        }
    }
}

/// Whether TLS settings are about files.
pub(crate) fn uses_files(tls: &ClientTls) -> bool {
    let authorities = [&tls.ca_certificates, &tls.ca_crl];
    let own = [&tls.client_certificate, &tls.private_key];
    match tls.mode {
        TlsMode::Simple => authorities.iter().any(|path| !path.is_empty()),
        TlsMode::Mutual => authorities.iter().chain(&own).any(|path| !path.is_empty()),
        TlsMode::Disable | TlsMode::IstioMutual | TlsMode::Refuse => false,
    }
}

/// Whether rules of a namespace may name files of a waypoint. Whoever writes another one could
/// present the waypoint's own key to an endpoint of his choice, and a file that is not there
/// costs the cluster, for which an earlier one without TLS then stays in use.
pub(crate) fn may_use_files(ns: &str, waypoint: &ObjectKey, mesh: &MeshRow) -> bool {
    *ns == *waypoint.ns || *ns == *mesh.root_namespace
}

/// What TLS settings of a rule mean for connections to a service.
pub(crate) fn opening(
    tls: Option<&ClientTls>,
    rule: Option<&ObjectKey>,
    seen: &Seen<'_>,
    http: bool,
    http2: bool,
) -> Opening {
    let Some(tls) = tls else {
        return Opening::Plain;
    };
    let permitted = rule.is_some_and(|rule| may_use_files(&rule.ns, seen.waypoint, seen.mesh));
    if uses_files(tls) && !permitted {
        return Opening::Refused(Refusal::Files);
    }
    let certificate = match tls.mode {
        TlsMode::Disable => return Opening::Plain,
        TlsMode::IstioMutual => {
            // In the mesh the tunnel is mutual TLS already.
            return if seen.direction == Direction::Outbound && seen.service.external {
                Opening::Refused(Refusal::Outside)
            } else {
                Opening::Plain
            };
        }
        TlsMode::Refuse => return Opening::Refused(Refusal::Invalid),
        TlsMode::Simple => None,
        TlsMode::Mutual => match certificate(tls) {
            None => return Opening::Refused(Refusal::NoCertificate),
            some => some,
        },
    };
    let (sni, subject_alt_names) = names(tls, seen, http);
    Opening::Tls(UpstreamTlsIr {
        sni,
        subject_alt_names,
        insecure: tls.insecure_skip_verify,
        authority: authority(tls),
        certificate,
        h2: http2,
    })
}

/// The name that is asked for, and those that are accepted: where a rule has none, those of the
/// ServiceEntry; none stands for the name that is asked for. No name to ask for stands for the
/// host of the request, which bytes have not: external hosts then go by their own name.
fn names(tls: &ClientTls, seen: &Seen<'_>, http: bool) -> (Str, Vec<Str>) {
    let service = seen.service;
    let host = &service.key.hostname;
    let nameable = !http && service.external && !host.starts_with('*');
    let sni = if tls.sni.is_empty() && nameable {
        host.clone()
    } else {
        tls.sni.clone()
    };
    if tls.insecure_skip_verify {
        return (sni, Vec::new());
    }
    let lists = [&tls.subject_alt_names, &service.subject_alt_names];
    let given = lists.into_iter().find(|names| !names.is_empty());
    (sni, given.cloned().unwrap_or_default())
}

fn authority(tls: &ClientTls) -> TlsAuthority {
    let name = tls.credential_name.as_str();
    if name.starts_with(CONFIG_MAP) {
        return TlsAuthority::Secret(with_suffix(name));
    }
    if let Some(secret) = secret_name(tls) {
        return TlsAuthority::Secret(with_suffix(&arcstr::format!("{KUBERNETES}{secret}")));
    }
    if tls.ca_certificates.is_empty() {
        return TlsAuthority::System;
    }
    let revoked = Some(tls.ca_crl.clone()).filter(|path| !path.is_empty());
    TlsAuthority::File(tls.ca_certificates.clone(), revoked)
}

/// Names of authorities end so, whatever holds them.
fn with_suffix(name: &str) -> Str {
    if name.ends_with(CA_SUFFIX) {
        return Str::from(name);
    }
    arcstr::format!("{name}{CA_SUFFIX}")
}

fn certificate(tls: &ClientTls) -> Option<TlsCertificate> {
    if let Some(secret) = secret_name(tls) {
        return Some(TlsCertificate::Secret(arcstr::format!(
            "{KUBERNETES}{secret}"
        )));
    }
    let files = [&tls.client_certificate, &tls.private_key];
    files
        .iter()
        .all(|path| !path.is_empty())
        .then(|| TlsCertificate::Files(tls.client_certificate.clone(), tls.private_key.clone()))
}

/// The Secret that certificates come from, if it is one.
pub(crate) fn secret_name(tls: &ClientTls) -> Option<&str> {
    let name = tls.credential_name.as_str();
    let name = name.strip_prefix(KUBERNETES).unwrap_or(name);
    (!name.is_empty() && !name.contains("://")).then_some(name)
}
