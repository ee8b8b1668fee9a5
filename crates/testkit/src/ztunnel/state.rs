//! What a ztunnel holds: everything by name, with the versions it was sent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use prost::Message as _;
use proto::discovery::DeltaDiscoveryResponse;
use proto::security::Authorization;
use proto::type_url::{ADDRESS, AUTHORIZATION};
use proto::workload::{Address, Service, Workload, address};

/// The mesh as one client sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshState {
    /// Workloads by uid.
    pub workloads: BTreeMap<String, Workload>,
    /// Services by `namespace/hostname`.
    pub services: BTreeMap<String, Service>,
    /// Policies by `namespace/name`.
    pub policies: BTreeMap<String, Authorization>,
    versions: BTreeMap<String, BTreeMap<String, String>>,
}

impl MeshState {
    /// Takes in a response: all updates, then all removals.
    ///
    /// # Errors
    /// When a resource is not what its type says; the others are taken in.
    pub fn apply(&mut self, response: &DeltaDiscoveryResponse) -> anyhow::Result<()> {
        let type_url = response.type_url.as_str();
        let mut refused = Vec::new();
        for resource in &response.resources {
            let bytes = resource.resource.as_ref().map(|any| any.value.as_slice());
            let done = bytes
                .context("no content")
                .and_then(|bytes| self.upsert(type_url, &resource.name, bytes));
            match done {
                Ok(()) => {
                    let versions = self.versions.entry(type_url.to_owned()).or_default();
                    versions.insert(resource.name.clone(), resource.version.clone());
                }
                Err(error) => refused.push(format!("{}: {error:#}", resource.name)),
            }
        }
        for name in &response.removed_resources {
            self.remove(type_url, name);
        }
        if refused.is_empty() {
            Ok(())
        } else {
            bail!(refused.join("; "))
        }
    }

    fn upsert(&mut self, type_url: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        match type_url {
            ADDRESS => match Address::decode(bytes)?
                .r#type
                .context("neither of the kinds")?
            {
                address::Type::Workload(workload) => {
                    anyhow::ensure!(workload.uid == name, "its uid is {:?}", workload.uid);
                    for addr in &workload.addresses {
                        ip(addr).context("an address of neither 4 nor 16 bytes")?;
                    }
                    self.workloads.insert(name.to_owned(), workload);
                }
                address::Type::Service(service) => {
                    let own = format!("{}/{}", service.namespace, service.hostname);
                    anyhow::ensure!(own == name, "it calls itself {own:?}");
                    self.services.insert(own, service);
                }
            },
            AUTHORIZATION => {
                self.policies
                    .insert(name.to_owned(), Authorization::decode(bytes)?);
            }
            other => bail!("a type that was not asked for: {other}"),
        }
        Ok(())
    }

    fn remove(&mut self, type_url: &str, name: &str) {
        if let Some(versions) = self.versions.get_mut(type_url) {
            versions.remove(name);
        }
        if type_url == AUTHORIZATION {
            self.policies.remove(name);
        } else if self.workloads.remove(name).is_none() {
            self.services.remove(name);
        }
    }

    /// The versions held of a type, as a reconnecting client sends them.
    pub fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        self.versions.get(type_url).cloned().unwrap_or_default()
    }

    /// The service with this VIP.
    pub fn service_by_vip(&self, vip: IpAddr) -> Option<&Service> {
        self.services
            .values()
            .find(|s| s.addresses.iter().any(|a| ip(&a.address) == Some(vip)))
    }

    /// The workload with this address; pods before others, host-network ones never.
    pub fn workload_by_ip(&self, addr: IpAddr) -> Option<&Workload> {
        let mut with_addr = self
            .workloads
            .values()
            .filter(|w| w.network_mode == 0)
            .filter(|w| w.addresses.iter().any(|a| ip(a) == Some(addr)));
        let first = with_addr.clone().next();
        with_addr.find(|w| w.uid.contains("//Pod/")).or(first)
    }
}

/// The address in 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
