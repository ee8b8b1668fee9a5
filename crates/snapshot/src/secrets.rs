//! Certificates and keys, and who may have them.
//!
//! Kept apart from everything that debug views show: nothing here lists, prints or serialises
//! contents, and the only way to one is [`Snapshot::secret`], which judges its caller each time.
//! Source: spec/envoy-config.md §7; spec/control-plane.md §2.11.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use model::secret::{CA_SUFFIX, CredentialGrants, Material, MaterialKey};
use model::{Finding, ObjectKey, Severity, SpiffeId, Str};
use proto::type_url;

use crate::encoded::{EncodedResource, field_size, put};
use crate::snapshot::Snapshot;

/// `Secret.name`: field 1, delimited.
const SECRET_NAME: u8 = 1 << 3 | 2;
/// Longest name or namespace of an object, bytes.
const NAME_BYTES_MAX: usize = 253;

/// Whether an account may read the Secrets of its namespace. A port: with Kubernetes, an access
/// review behind a short cache; without, see [`GatewayAccounts`].
pub trait SecretAccess: fmt::Debug + Send + Sync {
    /// Whether the account may list the Secrets of its own namespace.
    fn may_list_secrets(&self, account: &SpiffeId) -> bool;
}

/// Whether the answer to a secret of this name depends on [`SecretAccess`].
pub fn needs_access(name: &str) -> bool {
    let parsed = Name::parse(name);
    matches!(parsed, Some(Name::Kubernetes { name, .. }) if !name.ends_with(CA_SUFFIX))
}

/// What is known without a Kubernetes API: an account may if instances of a Gateway of its
/// namespace run under it.
#[derive(Clone, Copy)]
pub struct GatewayAccounts<'s>(pub &'s Snapshot);

impl fmt::Debug for GatewayAccounts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayAccounts")
    }
}

impl SecretAccess for GatewayAccounts<'_> {
    fn may_list_secrets(&self, account: &SpiffeId) -> bool {
        let from = ObjectKey::new(account.ns.clone(), Str::new());
        let gateways = self.0.waypoints.range(from..);
        gateways
            .take_while(|(key, _)| key.ns == account.ns)
            .any(|(_, row)| row.service_accounts.contains(&account.sa))
    }
}

/// Certificates and keys of all objects, and what Gateways may refer to. A clone is O(1).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretStore {
    materials: OrdMap<MaterialKey, Arc<Material>>,
    grants: OrdMap<ObjectKey, Arc<CredentialGrants>>,
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore")
            .field("materials_count", &self.materials.len())
            .field("gateways_count", &self.grants.len())
            .finish_non_exhaustive()
    }
}

// === impl SecretStore ===

impl SecretStore {
    /// Replaces or removes what an object has to serve.
    pub fn put_material(&mut self, key: MaterialKey, material: Option<Arc<Material>>) {
        match material {
            Some(material) => self.materials.insert(key, material),
            None => self.materials.remove(&key),
        };
    }

    /// Replaces or removes what a Gateway may refer to.
    pub fn put_grants(&mut self, gateway: ObjectKey, grants: Option<Arc<CredentialGrants>>) {
        match grants {
            Some(grants) => self.grants.insert(gateway, grants),
            None => self.grants.remove(&gateway),
        };
    }

    /// Certificates that have ended at a time, seconds since the epoch. They are served all
    /// the same: what ends is better seen than a handshake without any.
    pub fn expired(&self, now_s: i64) -> Vec<Finding> {
        let ended = self.materials.iter().filter(|(_, material)| {
            material.is_of_concern && material.expires_s.is_some_and(|end| end < now_s)
        });
        ended
            .map(|(key, _)| {
                Finding::new(
                    "secret-expired",
                    Severity::Warning,
                    key.object_ref(),
                    "The certificate has ended. Proxies are given it, and clients that check refuse it",
                    "Renew the certificate",
                )
                .at("data")
            })
            .collect()
    }

    /// The first of these that exists, with what it holds.
    fn first(&self, keys: impl IntoIterator<Item = MaterialKey>) -> Option<&Arc<Material>> {
        let mut keys = keys.into_iter();
        keys.find_map(|key| self.materials.get(&key))
    }
}

/// A resource name, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name<'n> {
    /// `kubernetes://[ns/]name[-cacert]`.
    Kubernetes { ns: Option<&'n str>, name: &'n str },
    /// `kubernetes-gateway://ns/name[-cacert]`, the part behind the scheme.
    Gateway(&'n str),
    /// `configmap://ns/name`.
    ConfigMap { ns: &'n str, name: &'n str },
}

impl<'n> Name<'n> {
    fn parse(text: &'n str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (ns, name) = match rest.split_once('/') {
            Some((ns, name)) => (Some(ns), name),
            None => (None, rest),
        };
        if !is_object_name(name) || ns.is_some_and(|ns| !is_object_name(ns)) {
            return None;
        }
        match (scheme, ns) {
            ("kubernetes", ns) => Some(Self::Kubernetes { ns, name }),
            ("kubernetes-gateway", Some(_)) => Some(Self::Gateway(rest)),
            ("configmap", Some(ns)) => Some(Self::ConfigMap { ns, name }),
            _ => None,
        }
    }
}

/// As Kubernetes has names of objects: nothing else can be one.
fn is_object_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label)
}

impl Snapshot {
    /// The secret of this name, if this caller may have it now; that it does not exist looks
    /// the same as that he may not.
    ///
    /// `caller` is the identity that the connection proved, `gateway` what the proxy serves.
    pub fn secret(
        &self,
        caller: Option<&SpiffeId>,
        gateway: Option<&ObjectKey>,
        name: &str,
        access: &dyn SecretAccess,
    ) -> Option<EncodedResource> {
        let caller = caller.filter(|caller| self.is_of_mesh(caller))?;
        let body = match Name::parse(name)? {
            Name::Kubernetes { ns, name } => self.kubernetes(caller, ns, name, access),
            Name::Gateway(name) => self.of_gateway(caller, gateway?, name),
            Name::ConfigMap { ns, name } => {
                let name = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
                let key = MaterialKey::ConfigMap(ObjectKey::new(ns, name));
                self.secrets.first([key])?.authority.as_ref()
            }
        }?;
        let body = body.expose();
        let mut payload = Vec::with_capacity(field_size(name.len()) + body.len());
        put(SECRET_NAME, name.as_bytes(), &mut payload);
        payload.extend_from_slice(body);
        let name = Str::from(name);
        Some(EncodedResource::new(
            name,
            type_url::SECRET,
            &payload,
            Vec::new(),
        ))
    }

    /// Namespaces of another trust domain are not ours, whatever they are called.
    fn is_of_mesh(&self, caller: &SpiffeId) -> bool {
        caller.trust_domain == self.mesh.trust_domain
            || self
                .mesh
                .trust_domain_aliases
                .contains(&caller.trust_domain)
    }

    /// A Secret of the caller's own namespace; its private key only for who may list Secrets.
    fn kubernetes(
        &self,
        caller: &SpiffeId,
        ns: Option<&str>,
        name: &str,
        access: &dyn SecretAccess,
    ) -> Option<&model::SecretBytes> {
        if ns.is_some_and(|ns| caller.ns != *ns) {
            return None;
        }
        let key = |name: &str| MaterialKey::Secret(ObjectKey::new(caller.ns.clone(), name));
        match name.strip_suffix(CA_SUFFIX) {
            Some(short) => {
                let found = self.secrets.first([key(name), key(short)])?;
                found.authority.as_ref()
            }
            None if access.may_list_secrets(caller) => {
                self.secrets.first([key(name)])?.certificate.as_ref()
            }
            None => None,
        }
    }

    /// A Secret that a listener of the proxy's Gateway refers to.
    fn of_gateway(
        &self,
        caller: &SpiffeId,
        gateway: &ObjectKey,
        name: &str,
    ) -> Option<&model::SecretBytes> {
        if caller.ns != gateway.ns {
            return None;
        }
        let grants = self.secrets.grants.get(gateway)?;
        if grants
            .account
            .as_ref()
            .is_some_and(|account| *account != caller.sa)
        {
            return None;
        }
        let secrets = grants.names.get(name)?;
        let keys = secrets.iter().cloned().map(MaterialKey::Secret);
        let found = self.secrets.first(keys)?;
        if name.ends_with(CA_SUFFIX) {
            found.authority.as_ref()
        } else {
            found.certificate.as_ref()
        }
    }
}

#[cfg(test)]
mod tests;
