//! BackendTLSPolicy. Source: spec/gateway-api.md §4.7.

use crate::Str;

use super::CertificateRef;

/// gateway.networking.k8s.io BackendTLSPolicy: how backends are spoken to over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// `targetRefs`, objects in the namespace of the policy.
    pub targets: Vec<BackendTlsTarget>,
    /// `validation.hostname`: SNI, and what the certificate must be for unless
    /// [`Self::subject_alt_names`] says otherwise.
    pub hostname: Str,
    /// `validation.caCertificateRefs`, without namespaces.
    pub authorities: Vec<CertificateRef>,
    /// `validation.wellKnownCACertificates` as written.
    pub well_known: Option<Str>,
    /// `validation.subjectAltNames`.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// Annotation `istio.io/ignore-policy-attachment` is true: it has no effect.
    pub is_ignored: bool,
}

/// A target of a [`BackendTlsPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendTlsTarget {
    /// API group.
    pub group: Str,
    /// Kind.
    pub kind: Str,
    /// Name.
    pub name: Str,
    /// `sectionName`: name of a port.
    pub section: Option<Str>,
}

/// One of `validation.subjectAltNames`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectAltName {
    /// `Hostname`, possibly a wildcard.
    Hostname(Str),
    /// `URI`.
    Uri(Str),
}
