//! The authority: what signs now, and what its clients trust.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{SpiffeId, Str};
use tokio::sync::watch;

use crate::bundle::TrustBundle;
use crate::cert::{CLOCK_SKEW, Leaf, San};
use crate::csr::Csr;
use crate::domains::TrustDomains;
use crate::issue::Issued;
use crate::key::PrivateKey;
use crate::signer::Signer;
use crate::{CaError, SignError};

/// Life of the serving certificate, before it is clamped to the signer's.
/// Source: spec/control-plane.md §1.2.
const SERVER_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Names on one serving certificate.
const SERVER_NAMES_MAX: usize = 256;
/// A common name, characters (X.520).
const COMMON_NAME_MAX: usize = 64;

/// How long workload certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlPolicy {
    default: Duration,
    max: Duration,
}

impl Default for TtlPolicy {
    /// 24 hours, at most 90 days.
    fn default() -> Self {
        Self {
            default: Duration::from_secs(24 * 3600),
            max: Duration::from_secs(2160 * 3600),
        }
    }
}

// === impl TtlPolicy ===

impl TtlPolicy {
    /// `default` for requests that name no life, `max` for those that do
    /// (`DEFAULT_WORKLOAD_CERT_TTL`, `MAX_WORKLOAD_CERT_TTL`).
    ///
    /// # Errors
    /// [`CaError::Name`] for lives that no certificate can have.
    pub fn new(default: Duration, max: Duration) -> Result<Self, CaError> {
        if default.as_secs() == 0 || default > max || max > SERVER_TTL {
            return Err(CaError::Name(format!(
                "certificate lives: default {default:?} must be positive, not above the maximum {max:?}, and that not above ten years"
            )));
        }
        Ok(Self { default, max })
    }

    /// The life for a request: zero and below ask for the default, and more than
    /// the maximum is refused rather than clamped.
    ///
    /// # Errors
    /// [`SignError::Ttl`].
    pub fn resolve(&self, asked_secs: i64) -> Result<Duration, SignError> {
        match u64::try_from(asked_secs) {
            Err(_) | Ok(0) => Ok(self.default),
            Ok(secs) if secs <= self.max.as_secs() => Ok(Duration::from_secs(secs)),
            Ok(_) => Err(SignError::Ttl {
                asked_secs,
                max_secs: self.max.as_secs(),
            }),
        }
    }
}

/// How far the roots of a running authority may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootPolicy {
    /// Not at all.
    Fixed,
    /// Old and new roots must be equal, or one bundle contain the other
    /// (`ISTIO_MULTIROOT_MESH`).
    Overlapping,
    /// As overlapping, and a root may be replaced by one over the same key and name:
    /// our own root, which is renewed and rotated step by step.
    Renewable,
}

/// Signs certificates with the signer of the moment.
///
/// The signer is swapped whole. Signing holds no lock: it works on the signer that
/// it found.
#[derive(Debug)]
pub struct Authority {
    /// What the process began with.
    first: Str,
    domains: watch::Sender<Arc<TrustDomains>>,
    ttl: TtlPolicy,
    signer: watch::Sender<Option<Arc<Signer>>>,
    crl: watch::Sender<Arc<str>>,
}

// === impl Authority ===

impl Authority {
    /// An authority that signs nothing until a signer is installed.
    ///
    /// # Errors
    /// [`CaError::Name`] for a trust domain that cannot stand in an identity.
    pub fn new(trust_domain: &str, ttl: TtlPolicy) -> Result<Self, CaError> {
        check_trust_domain(trust_domain)?;
        let first = Str::from(trust_domain);
        let domains = Arc::new(TrustDomains::new(first.clone(), []));
        Ok(Self {
            first,
            domains: watch::Sender::new(domains),
            ttl,
            signer: watch::Sender::new(None),
            crl: watch::Sender::new(Arc::from("")),
        })
    }

    /// The trust domain of every identity that is certified now.
    pub fn trust_domain(&self) -> Str {
        self.domains.borrow().own().clone()
    }

    /// Follows the trust domain and its aliases.
    pub fn watch_trust_domains(&self) -> watch::Receiver<Arc<TrustDomains>> {
        self.domains.subscribe()
    }

    /// Certifies identities of `own` from now on, and accepts certificates of it, of its
    /// aliases, and of the trust domain that the process began with: those were issued
    /// before. Returns whether anything changed. Nothing is ever certified under an alias.
    ///
    /// # Errors
    /// [`CaError::Name`] for a trust domain that cannot stand in an identity; all stays as
    /// it is.
    ///
    /// Source: spec/control-plane.md §5.1, §10 row 75.
    pub fn set_trust_domains(&self, own: &str, aliases: &[Str]) -> Result<bool, CaError> {
        check_trust_domain(own)?;
        let others = aliases.iter().chain([&self.first]).cloned();
        let domains = TrustDomains::new(own.into(), others);
        Ok(self.domains.send_if_modified(|current| {
            let is_new = **current != domains;
            if is_new {
                *current = Arc::new(domains);
            }
            is_new
        }))
    }

    /// Installs a signer. The first one is always taken; a later one only if the
    /// policy allows the change of roots. Returns whether anything changed.
    ///
    /// # Errors
    /// [`CaError::RootChange`]; the signer in use stays.
    pub fn install(&self, signer: Signer, policy: RootPolicy) -> Result<bool, CaError> {
        let mut result = Ok(true);
        self.signer.send_if_modified(|current| {
            if let Some(current) = current {
                if current.is_same(&signer) {
                    result = Ok(false);
                    return false;
                }
                if let Err(refused) = check_change(current.bundle(), signer.bundle(), policy) {
                    result = Err(refused);
                    return false;
                }
            }
            *current = Some(Arc::new(signer));
            true
        });
        result
    }

    /// Replaces the text of the revocation lists; empty for none.
    pub fn install_crl(&self, pem: &str) {
        self.crl.send_if_modified(|current| {
            let is_new = **current != *pem;
            if is_new {
                *current = Arc::from(pem);
            }
            is_new
        });
    }

    /// The signer in use.
    ///
    /// # Errors
    /// [`SignError::NotReady`] when none is installed.
    pub fn signer(&self) -> Result<Arc<Signer>, SignError> {
        self.signer.borrow().clone().ok_or(SignError::NotReady)
    }

    /// Follows the signer: whoever serves a certificate of this authority, verifies
    /// its clients or distributes its roots starts again when it changes.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Signer>>> {
        self.signer.subscribe()
    }

    /// The roots that clients must trust.
    pub fn bundle(&self) -> Option<Arc<TrustBundle>> {
        self.signer.borrow().as_ref().map(|s| s.bundle().clone())
    }

    /// Follows the revocation lists, concatenated PEM.
    pub fn watch_crl(&self) -> watch::Receiver<Arc<str>> {
        self.crl.subscribe()
    }

    /// Certifies `identity` for the key of a request: leaf, intermediates one by
    /// one, and last the whole root bundle.
    ///
    /// # Errors
    /// See [`SignError`].
    ///
    /// Source: spec/control-plane.md §4.2, §4.4, §4.5.
    pub fn sign(
        &self,
        csr: &Csr,
        identity: &SpiffeId,
        ttl_secs: i64,
        now: SystemTime,
    ) -> Result<Vec<String>, SignError> {
        let signer = self.signer()?;
        let ttl = self.ttl.resolve(ttl_secs)?;
        let uri = self
            .certifiable(identity)
            .map_err(|e| SignError::Certificate(e.to_string()))?;
        let name = csr.has_common_name().then_some(uri.as_str());
        let name = name.filter(|name| name.chars().count() <= COMMON_NAME_MAX);
        let leaf = Leaf {
            spki_der: csr.spki_der(),
            common_name: name,
            sans: &[San::Uri(&uri)],
            not_before: not_before(now),
            not_after: clamp(&signer, ttl, now)
                .map_err(|e| SignError::Certificate(e.to_string()))?,
        };
        let der = signer
            .sign_leaf(&leaf)
            .map_err(|e| SignError::Certificate(e.to_string()))?;
        Ok(signer.response(&der))
    }

    /// A certificate for a workload over a new key.
    ///
    /// # Errors
    /// [`CaError::Name`] for an identity of another trust domain or one that does
    /// not read back as itself.
    pub fn issue_workload(
        &self,
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let uri = self.certifiable(identity)?;
        self.issue(&[San::Uri(&uri)], ttl, now)
    }

    /// A serving certificate for host names and addresses, over a new key.
    ///
    /// # Errors
    /// [`CaError::Name`] when no name is given, too many, or one is no host name.
    pub fn issue_server(
        &self,
        names: &[&str],
        ips: &[IpAddr],
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if names.is_empty() && ips.is_empty() || names.len() + ips.len() > SERVER_NAMES_MAX {
            return Err(CaError::Name(
                "a serving certificate needs 1 to 256 names".to_owned(),
            ));
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
        if let Some(bad) = names
            .iter()
            .find(|n| n.is_empty() || n.len() > 253 || !n.chars().all(is_host))
        {
            return Err(CaError::Name(format!("{bad:?} is not a host name")));
        }
        let sans: Vec<San<'_>> = names
            .iter()
            .copied()
            .map(San::Dns)
            .chain(ips.iter().copied().map(San::Ip))
            .collect();
        self.issue(&sans, SERVER_TTL, now)
    }

    fn issue(&self, sans: &[San<'_>], ttl: Duration, now: SystemTime) -> Result<Issued, CaError> {
        let signer = self.signer().map_err(CaError::crypto)?;
        let key = PrivateKey::generate()?;
        let leaf = Leaf {
            spki_der: &key.public_der(),
            common_name: None,
            sans,
            not_before: not_before(now),
            not_after: clamp(&signer, ttl, now)?,
        };
        let der = signer.sign_leaf(&leaf)?;
        Ok(Issued::new(der, &signer, key))
    }

    /// The URI of an identity that this authority may certify.
    fn certifiable(&self, identity: &SpiffeId) -> Result<String, CaError> {
        let uri = identity.to_string();
        // The characters of SPIFFE, minus those segments that mean a step upwards.
        let is_plain = |part: &str| {
            part != "."
                && part != ".."
                && part.len() <= 253
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        };
        if !is_plain(&identity.ns)
            || !is_plain(&identity.sa)
            || uri.parse::<SpiffeId>().as_ref() != Ok(identity)
        {
            return Err(CaError::Name("not a workload identity".to_owned()));
        }
        let own = self.trust_domain();
        if identity.trust_domain != own {
            return Err(CaError::Name(format!(
                "{uri} is outside of the trust domain {own}"
            )));
        }
        Ok(uri)
    }
}

fn not_before(now: SystemTime) -> SystemTime {
    now.checked_sub(CLOCK_SKEW)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The end of a life that begins now, never after the signer's.
fn clamp(signer: &Signer, ttl: Duration, now: SystemTime) -> Result<SystemTime, CaError> {
    let end = signer.not_after();
    if end <= now {
        return Err(CaError::Crypto(
            "the signing certificate or its chain has expired".to_owned(),
        ));
    }
    Ok(now.checked_add(ttl).map_or(end, |asked| asked.min(end)))
}

fn check_change(old: &TrustBundle, new: &TrustBundle, policy: RootPolicy) -> Result<(), CaError> {
    let allowed = match policy {
        RootPolicy::Fixed => old.contains(new) && new.contains(old),
        RootPolicy::Overlapping => old.contains(new) || new.contains(old),
        RootPolicy::Renewable => old.contains_authorities(new) || new.contains_authorities(old),
    };
    match (allowed, policy) {
        (true, _) => Ok(()),
        (false, RootPolicy::Fixed) => Err(CaError::RootChange(
            "set ISTIO_MULTIROOT_MESH and add the new root beside the old one first",
        )),
        (false, _) => Err(CaError::RootChange(
            "neither bundle contains the other; add the new root first, then switch, then drop the old one",
        )),
    }
}

pub(crate) fn check_trust_domain(trust_domain: &str) -> Result<(), CaError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.chars().all(is_plain) {
        return Err(CaError::Name(format!(
            "{:?} is not a trust domain",
            trust_domain.chars().take(255).collect::<String>()
        )));
    }
    Ok(())
}
