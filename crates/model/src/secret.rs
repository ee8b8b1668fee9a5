//! Secrets and ConfigMaps: only the keys that certificates and keys of proxies come from.
//!
//! **Invariant**: a value leaves this module through [`SecretBytes::expose`] alone. Nothing that
//! prints, serialises or compares rows can show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use zeroize::Zeroizing;

use crate::names::ObjectKey;
use crate::{Kind, ObjectRef, Str};

/// Most bytes of all values of one object together, as an API server limits it.
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;

/// Keys of a Secret that are kept. Source: spec/envoy-config.md §7.2.
pub const SECRET_KEYS: [&str; 9] = [
    "cert",
    "key",
    "cacert",
    "crl",
    "tls.crt",
    "tls.key",
    "tls.ocsp-staple",
    "ca.crt",
    "ca.crl",
];

/// Keys of a ConfigMap that are kept.
pub const CONFIG_MAP_KEYS: [&str; 4] = ["cacert", "crl", "ca.crt", "ca.crl"];

/// Keys of a ConfigMap that customise what is created for a Gateway, kept as text.
/// Source: spec/gateway-api.md §2.7.
pub const OVERLAY_KEYS: [&str; 5] = [
    "deployment",
    "service",
    "serviceAccount",
    "horizontalPodAutoscaler",
    "podDisruptionBudget",
];

/// Bytes that nobody prints: wiped when dropped, `[redacted]` where something is formatted, and
/// without a way to be serialised.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Box<[u8]>>);

// === impl SecretBytes ===

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for who serves them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Values by key.
pub type SecretData = BTreeMap<&'static str, SecretBytes>;

/// core/v1 Secret, `stringData` merged over `data`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secret {
    /// `type`, empty when unset.
    pub ty: Str,
    /// Values of [`SECRET_KEYS`]; empty ones are left out.
    pub data: SecretData,
}

/// core/v1 ConfigMap. Public by intention, but users are known to err: kept like a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Values of [`CONFIG_MAP_KEYS`]; empty ones are left out.
    pub data: SecretData,
    /// Values of [`OVERLAY_KEYS`], YAML as it is written.
    pub overlays: BTreeMap<&'static str, Str>,
    /// The first key, shortened, that is none of [`OVERLAY_KEYS`]: one who takes the object for
    /// overlays refuses it.
    pub other_key: Option<Str>,
}

/// Where served certificates and keys come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaterialKey {
    /// A Secret.
    Secret(ObjectKey),
    /// A ConfigMap.
    ConfigMap(ObjectKey),
}

// === impl MaterialKey ===

impl MaterialKey {
    /// The object, as findings name it.
    pub fn object_ref(&self) -> ObjectRef {
        match self {
            Self::Secret(key) => ObjectRef::new(Kind::Secret, key.clone()),
            Self::ConfigMap(key) => ObjectRef::new(Kind::ConfigMap, key.clone()),
        }
    }
}

/// What an object has to serve. There is one of every Secret and ConfigMap, also where it has
/// nothing: that it exists decides which of two is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// An encoded `Secret` message without name: certificate chain and private key.
    pub certificate: Option<SecretBytes>,
    /// An encoded `Secret` message without name: authorities alone.
    pub authority: Option<SecretBytes>,
    /// When the certificate of that private key ends, seconds since the epoch.
    pub expires_s: Option<i64>,
    /// Whether somebody is to be told of its defects: a listener names it, or its type says
    /// that it is for TLS.
    pub is_of_concern: bool,
}

/// Secrets that the listeners of a Gateway verifiably refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialGrants {
    /// By the part of the resource name behind `kubernetes-gateway://`: the Secrets to look at,
    /// the first that exists counts. Names that end in `-cacert` stand for authorities alone.
    pub names: BTreeMap<Str, Vec<ObjectKey>>,
    /// ConfigMaps whose authorities its listeners trust. Anybody may have these; somebody is to
    /// be told of their defects.
    pub config_maps: BTreeSet<ObjectKey>,
    /// The service account of the proxies, where a controller deploys them: nobody else of the
    /// namespace has what they have. Source: spec/gateway-api.md §3.7.
    pub account: Option<Str>,
}

/// End of names that stand for authorities alone.
pub const CA_SUFFIX: &str = "-cacert";
