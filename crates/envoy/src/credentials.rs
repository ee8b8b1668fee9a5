//! Certificates and keys that proxies are given by name: which Gateway may have which
//! ([`gateway::grants`]), and what there is to give ([`materials`]). Who gets what is decided when it is
//! served, see crate `snapshot`. Source: spec/envoy-config.md §7; spec/gateway-api.md §3.7, §6.4.

pub mod materials;

use flow::Index;
use model::ObjectKey;
use model::secret::{CA_SUFFIX, CredentialGrants};

/// Gateways by Secrets whose private key they may have. For the table of grants.
pub struct GrantByCertificate;

impl Index<ObjectKey, CredentialGrants> for GrantByCertificate {
    type At = ObjectKey;
    fn keys(_: &ObjectKey, row: &CredentialGrants, emit: &mut dyn FnMut(&ObjectKey)) {
        let names = row.names.iter().filter(|(name, _)| !is_authority(name));
        names.flat_map(|(_, keys)| keys).for_each(emit);
    }
}

/// Gateways by Secrets whose authorities they may have. For the table of grants.
pub struct GrantByAuthority;

impl Index<ObjectKey, CredentialGrants> for GrantByAuthority {
    type At = ObjectKey;
    fn keys(_: &ObjectKey, row: &CredentialGrants, emit: &mut dyn FnMut(&ObjectKey)) {
        let names = row.names.iter().filter(|(name, _)| is_authority(name));
        names.flat_map(|(_, keys)| keys).for_each(emit);
    }
}

/// Gateways by ConfigMaps that they trust. For the table of grants.
pub struct GrantByConfigMap;

impl Index<ObjectKey, CredentialGrants> for GrantByConfigMap {
    type At = ObjectKey;
    fn keys(_: &ObjectKey, row: &CredentialGrants, emit: &mut dyn FnMut(&ObjectKey)) {
        row.config_maps.iter().for_each(emit);
    }
}

fn is_authority(name: &str) -> bool {
    name.ends_with(CA_SUFFIX)
}

#[cfg(test)]
mod tests;
