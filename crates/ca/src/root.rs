//! Our own root: where it is kept, how it begins, how it is renewed and replaced.
//!
//! A stored root is one private key and a bundle of trusted roots; the bundle holds
//! the certificate of the key. Rotation to a new key goes through three steps, each
//! of which every client survives:
//!
//! | step | bundle | signs |
//! |---|---|---|
//! | (before) | old | old |
//! | prepare | old, new | old |
//! | switch | old, new | new |
//! | finish | new | new |
//!
//! Between two steps the operator waits until every client has the bundle of the
//! first, and before the last until every certificate of the old root has expired.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use x509_cert::name::Name;
use zeroize::Zeroizing;

use crate::CaError;
use crate::bundle::TrustBundle;
use crate::cert::{self, CLOCK_SKEW, CaCert};
use crate::key::{self, PrivateKey};
use crate::signer::{Part, Signer, SignerError, SignerParts};

mod file;

pub use file::FileStore;

/// Life of a new root: 3650 days.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A root is renewed when less than this share of its life remains, percent.
const RENEW_BELOW_PERCENT: u32 = 20;

/// What a store keeps. Keys are wiped on drop, and nothing here is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredRoot {
    /// The key that signs: PKCS#1, SEC1 or PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// The trusted roots; one of them is the certificate of the key.
    pub bundle_pem: String,
    /// The key that will sign after the switch, while a rotation is prepared.
    pub next_key_pem: Option<Zeroizing<String>>,
    /// The key that signed before the switch, until the rotation is finished.
    pub previous_key_pem: Option<Zeroizing<String>>,
}

impl StoredRoot {
    /// The certificate of the key that signs, PEM: the longest valid one of the bundle.
    /// `None` when the key or the bundle does not read, or the bundle has none of the key.
    pub fn certificate_pem(&self) -> Option<String> {
        let key = PrivateKey::from_pem(self.key_pem.clone())?;
        let bundle = TrustBundle::from_pem(&self.bundle_pem).ok()?;
        longest_of(&key, &bundle).map(|cert| cert::to_pem(&cert.der))
    }
}

/// Who created the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is the one given.
    Ours,
    /// Somebody else was faster; read theirs.
    Theirs,
}

/// Where a root is kept: files, or a Secret.
///
/// Calls may block; they are made from start-up and from blocking threads only.
pub trait RootStore: Send + Sync {
    /// Reads the root; `None` only when there never was one. Whatever is there but
    /// does not read is an error.
    ///
    /// # Errors
    /// See [`CaError`].
    fn load(&self) -> Result<Option<StoredRoot>, CaError>;

    /// Keeps a first root, whole or not at all, unless there is one.
    ///
    /// # Errors
    /// See [`CaError`].
    fn create(&self, root: &StoredRoot) -> Result<Created, CaError>;

    /// Replaces `old` by `new`.
    ///
    /// # Errors
    /// [`CaError::Conflict`] when `old` is not what is kept.
    fn replace(&self, old: &StoredRoot, new: &StoredRoot) -> Result<(), CaError>;

    /// How an error names a part, for instance its file.
    fn place(&self, part: Part) -> PathBuf;
}

/// Reads the root and makes it sign; creates it when there is none.
///
/// # Errors
/// See [`CaError`]; what is there stays as it is.
pub fn load_or_create(
    store: &dyn RootStore,
    trust_domain: &str,
    now: SystemTime,
) -> Result<Signer, CaError> {
    if let Some(root) = store.load()? {
        return signer(store, root, now);
    }
    let root = generate(trust_domain, now)?;
    match store.create(&root)? {
        Created::Ours => signer(store, root, now),
        Created::Theirs => load(store, now),
    }
}

/// Reads the root and makes it sign; never creates one.
///
/// # Errors
/// [`CaError::Incomplete`] when there is none, else see [`CaError`].
pub fn load(store: &dyn RootStore, now: SystemTime) -> Result<Signer, CaError> {
    let root = required(store)?;
    signer(store, root, now)
}

/// Renews the certificate of the root over its key and under its name when less
/// than a fifth of its life remains. Returns whether it did.
///
/// # Errors
/// See [`CaError`]; the store is then unchanged.
///
/// Source: spec/control-plane.md §4.6.
pub fn renew_if_due(store: &dyn RootStore, now: SystemTime) -> Result<bool, CaError> {
    let old = required(store)?;
    let (key, bundle) = parse(store, &old)?;
    let current = certificate_of(store, &key, &bundle)?;
    let life = current
        .not_after
        .duration_since(current.not_before)
        .unwrap_or_default();
    let left = current.not_after.duration_since(now).unwrap_or_default();
    if left >= life * RENEW_BELOW_PERCENT / 100 {
        return Ok(false);
    }
    let der = cert::sign_root(
        current.subject.clone(),
        &key,
        current.key_id.clone(),
        now.checked_sub(CLOCK_SKEW).unwrap_or(now),
        now + ROOT_TTL,
    )?;
    let renewed = CaCert::parse(&der).map_err(CaError::Crypto)?;
    let certs = bundle
        .certs()
        .iter()
        .map(|c| if c.der == current.der { &renewed } else { c })
        .cloned()
        .collect();
    let new = StoredRoot {
        bundle_pem: TrustBundle::new(certs).pem().to_owned(),
        ..old.clone()
    };
    store.replace(&old, &new)?;
    Ok(true)
}

/// Step one of the rotation to a new key: a second root is trusted, the first one
/// still signs. The second one names the trust domain of the first (`O=`); one has to be given only
/// where that names none. Doing it again changes nothing.
///
/// # Errors
/// [`CaError::Rotation`] while an earlier rotation is unfinished, or without any trust domain;
/// [`CaError::TrustDomain`] when another one is given.
pub fn prepare(
    store: &dyn RootStore,
    trust_domain: Option<&str>,
    now: SystemTime,
) -> Result<(), CaError> {
    let old = required(store)?;
    let (key, bundle) = parse(store, &old)?;
    let trust_domain = &trust_domain_of(&certificate_of(store, &key, &bundle)?, trust_domain)?;
    if other_key(old.previous_key_pem.as_ref(), &key)?.is_some() {
        return Err(CaError::Rotation(
            "the last rotation has switched but not finished; finish it first",
        ));
    }
    let next = match other_key(old.next_key_pem.as_ref(), &key)? {
        Some(next) => next,
        None => PrivateKey::generate()?,
    };
    if bundle
        .certs()
        .iter()
        .any(|c| c.public_raw == next.public_raw())
    {
        return Ok(());
    }
    let cert = self_signed(&next, trust_domain, now)?;
    let mut certs = bundle.certs().to_vec();
    certs.push(cert);
    let new = StoredRoot {
        bundle_pem: TrustBundle::new(certs).pem().to_owned(),
        next_key_pem: Some(next.pem().clone()),
        ..old.clone()
    };
    store.replace(&old, &new)
}

/// Step two: the new root signs, both are trusted.
///
/// # Errors
/// [`CaError::Rotation`] when nothing is prepared.
pub fn switch(store: &dyn RootStore) -> Result<(), CaError> {
    let old = required(store)?;
    let (key, bundle) = parse(store, &old)?;
    let next = other_key(old.next_key_pem.as_ref(), &key)?
        .filter(|next| {
            bundle
                .certs()
                .iter()
                .any(|c| c.public_raw == next.public_raw())
        })
        .ok_or(CaError::Rotation(
            "no new root is prepared; prepare it first",
        ))?;
    let new = StoredRoot {
        key_pem: next.pem().clone(),
        next_key_pem: None,
        previous_key_pem: Some(old.key_pem.clone()),
        ..old.clone()
    };
    store.replace(&old, &new)
}

/// Step three: only the new root is trusted, and the old key is gone.
///
/// # Errors
/// [`CaError::Rotation`] when the switch has not been made.
pub fn finish(store: &dyn RootStore) -> Result<(), CaError> {
    let old = required(store)?;
    let (key, bundle) = parse(store, &old)?;
    let previous = other_key(old.previous_key_pem.as_ref(), &key)?
        .ok_or(CaError::Rotation("no rotation has switched; switch first"))?;
    let certs = bundle
        .certs()
        .iter()
        .filter(|c| c.public_raw != previous.public_raw())
        .cloned()
        .collect();
    let new = StoredRoot {
        bundle_pem: TrustBundle::new(certs).pem().to_owned(),
        next_key_pem: None,
        previous_key_pem: None,
        ..old.clone()
    };
    store.replace(&old, &new)
}

/// The trust domain that a root names, which is also the one given if there is one.
fn trust_domain_of(root: &CaCert, given: Option<&str>) -> Result<String, CaError> {
    match (root.organization(), given) {
        (Some(root), Some(given)) if root != given => Err(CaError::TrustDomain {
            root,
            given: given.to_owned(),
        }),
        (Some(root), _) => Ok(root),
        (None, Some(given)) => Ok(given.to_owned()),
        (None, None) => Err(CaError::Rotation(
            "the root names no trust domain; say with --trust-domain which one the new root names",
        )),
    }
}

/// A key of a rotation, unless it is the one that signs: then a step was interrupted
/// between two files, and the key has had its turn or has not lost it yet.
fn other_key(
    text: Option<&Zeroizing<String>>,
    signing: &PrivateKey,
) -> Result<Option<PrivateKey>, CaError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let key = PrivateKey::from_pem(text.clone()).ok_or(CaError::Rotation(
        "the next or previous key of the rotation does not parse; restore it",
    ))?;
    Ok((key.public_raw() != signing.public_raw()).then_some(key))
}

fn required(store: &dyn RootStore) -> Result<StoredRoot, CaError> {
    store.load()?.ok_or_else(|| CaError::Incomplete {
        path: store.place(Part::Key),
    })
}

fn generate(trust_domain: &str, now: SystemTime) -> Result<StoredRoot, CaError> {
    let key = PrivateKey::generate()?;
    let cert = self_signed(&key, trust_domain, now)?;
    Ok(StoredRoot {
        key_pem: key.pem().clone(),
        bundle_pem: TrustBundle::new(vec![cert]).pem().to_owned(),
        next_key_pem: None,
        previous_key_pem: None,
    })
}

/// A root over a key. Its common name is its own, so that two roots of one trust
/// domain differ for verifiers that look issuers up by name alone.
fn self_signed(key: &PrivateKey, trust_domain: &str, now: SystemTime) -> Result<CaCert, CaError> {
    crate::authority::check_trust_domain(trust_domain)?;
    let [a, b, c, d, ..] = key::serial()?;
    let mark = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
    let subject: Name = format!("CN=root {mark},O={trust_domain}")
        .parse()
        .map_err(CaError::crypto)?;
    let not_before = now.checked_sub(CLOCK_SKEW).unwrap_or(now);
    let der = cert::sign_root(subject, key, None, not_before, now + ROOT_TTL)?;
    CaCert::parse(&der).map_err(CaError::Crypto)
}

fn parse(store: &dyn RootStore, root: &StoredRoot) -> Result<(PrivateKey, TrustBundle), CaError> {
    let key = PrivateKey::from_pem(root.key_pem.clone()).ok_or_else(|| {
        CaError::corrupt(
            &store.place(Part::Key),
            "not a private key in PEM form (PKCS#1, SEC1 or PKCS#8)",
        )
    })?;
    let bundle = TrustBundle::from_pem(&root.bundle_pem)
        .map_err(|e| CaError::corrupt(&store.place(Part::Roots), e))?;
    Ok((key, bundle))
}

/// The certificate of the key: the longest valid one of the bundle.
fn certificate_of(
    store: &dyn RootStore,
    key: &PrivateKey,
    bundle: &TrustBundle,
) -> Result<CaCert, CaError> {
    longest_of(key, bundle).ok_or_else(|| {
        CaError::corrupt(
            &store.place(Part::Roots),
            "does not belong to the private key beside it",
        )
    })
}

fn longest_of(key: &PrivateKey, bundle: &TrustBundle) -> Option<CaCert> {
    let of_key = bundle.certs().iter();
    let of_key = of_key.filter(|c| c.public_raw == key.public_raw());
    of_key.max_by_key(|c| c.not_after).cloned()
}

fn signer(store: &dyn RootStore, root: StoredRoot, now: SystemTime) -> Result<Signer, CaError> {
    let (key, bundle) = parse(store, &root)?;
    let cert = certificate_of(store, &key, &bundle)?;
    let parts = SignerParts {
        cert_pem: cert::to_pem(&cert.der),
        key_pem: root.key_pem.clone(),
        chain_pem: String::new(),
        bundle_pem: root.bundle_pem.clone(),
    };
    Signer::new(parts, now).map_err(|e| match e {
        SignerError::Unfit { part, reason } => CaError::corrupt(&store.place(part), reason),
        SignerError::Expired(part) => CaError::Expired {
            path: store.place(part),
        },
    })
}
