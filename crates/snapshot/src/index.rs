//! Which addresses go by a name, belong to a service or live on a node.

use std::sync::Arc;

use imbl::OrdSet;
use model::Str;

use crate::{EncodedResource, ResourceMap};

/// Pairs of a key and a resource name. A clone is O(1).
type Pairs = OrdSet<(Str, Str)>;

/// The ways to addresses beside their names, for on-demand clients. A clone is O(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressIndex {
    aliases: Pairs,
    services: Pairs,
    nodes: Pairs,
}

impl AddressIndex {
    /// The index of these addresses, built anew.
    pub fn of(addresses: &ResourceMap) -> Self {
        let mut index = Self::default();
        for resource in addresses.iter() {
            index.replace(None, Some(resource));
        }
        index
    }

    /// Names of the resources with this alias, sorted.
    pub fn with_alias(&self, alias: &str) -> impl Iterator<Item = &Str> {
        values(&self.aliases, alias)
    }

    /// Names of the workloads of a service, sorted.
    pub fn of_service(&self, service: &str) -> impl Iterator<Item = &Str> {
        values(&self.services, service)
    }

    /// Names of the workloads on a node, sorted.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Str> {
        values(&self.nodes, node)
    }

    /// Takes one version of a resource out and another one in.
    fn replace(&mut self, old: Option<&EncodedResource>, new: Option<&EncodedResource>) {
        let facts = |resource: Option<&'_ EncodedResource>| {
            let facts = resource.and_then(EncodedResource::facts);
            let services = facts.map(|f| f.services.to_vec()).unwrap_or_default();
            let node = facts.map(|f| f.node.clone());
            let nodes: Vec<Str> = node.into_iter().filter(|node| !node.is_empty()).collect();
            let aliases = resource.map(|r| r.aliases().to_vec()).unwrap_or_default();
            [aliases, services, nodes]
        };
        let Some(name) = new.or(old).map(EncodedResource::name) else {
            return;
        };
        let all = [&mut self.aliases, &mut self.services, &mut self.nodes];
        for ((pairs, old), new) in all.into_iter().zip(facts(old)).zip(facts(new)) {
            if old == new {
                continue;
            }
            for key in old {
                pairs.remove(&(key, name.clone()));
            }
            for key in new {
                pairs.insert((key, name.clone()));
            }
        }
    }
}

fn values<'a>(pairs: &'a Pairs, key: &str) -> impl Iterator<Item = &'a Str> {
    let key = Str::from(key);
    pairs
        .range((key.clone(), Str::new())..)
        .take_while(move |(at, _)| *at == key)
        .map(|(_, name)| name)
}

/// Addresses with their index, which always agree.
#[derive(Clone, Debug, Default)]
pub struct AddressTable {
    resources: ResourceMap,
    index: AddressIndex,
}

impl AddressTable {
    /// Workloads and services by name.
    pub fn resources(&self) -> &ResourceMap {
        &self.resources
    }

    /// The other ways to them.
    pub fn index(&self) -> &AddressIndex {
        &self.index
    }

    /// As [`ResourceMap::insert`].
    pub fn insert(&mut self, resource: EncodedResource) -> bool {
        let old = self.resources.get(resource.name()).cloned();
        self.index.replace(old.as_deref(), Some(&resource));
        self.resources.insert(Arc::new(resource))
    }

    /// As [`ResourceMap::remove`].
    pub fn remove(&mut self, name: &str) -> bool {
        let old = self.resources.get(name).cloned();
        self.index.replace(old.as_deref(), None);
        self.resources.remove(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;
    use crate::{AddressFacts, AddressKind};

    const NAMES: [&str; 3] = ["a", "b", "c"];
    const KEYS: [&str; 4] = ["", "k", "k1", "l"];

    fn address(name: &str, alias: &str, service: &str, node: &str) -> EncodedResource {
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            node: Str::from(node),
            unhealthy: false,
            services: Box::from([Str::from(service)]),
        };
        let payload = format!("{alias} {service} {node}");
        let aliases = vec![Str::from(alias)];
        EncodedResource::address(Str::from(name), payload.as_bytes(), aliases, facts, 0)
    }

    fn texts<'a>(names: impl Iterator<Item = &'a Str>) -> Vec<&'a str> {
        names.map(Str::as_str).collect()
    }

    #[test]
    fn each_way_leads_to_exactly_what_goes_by_its_key() {
        let mut table = AddressTable::default();
        table.insert(address("a", "/10.0.0.1", "ns/s", "n"));
        table.insert(address("b", "/10.0.0.10", "ns/s", ""));
        table.insert(address("c", "/10.0.0.1", "ns/s2", "n2"));
        let index = table.index();
        assert_eq!(texts(index.with_alias("/10.0.0.1")), ["a", "c"]);
        assert_eq!(texts(index.of_service("ns/s")), ["a", "b"]);
        assert_eq!(texts(index.on_node("n")), ["a"]);
        assert_eq!(texts(index.on_node("")), [""; 0], "no node is not a node");
    }

    proptest! {
        #[test]
        fn an_index_kept_up_to_date_equals_one_built_anew(
            ops in prop::collection::vec((0..3_usize, prop::option::weighted(0.7, (0..4_usize, 0..4_usize, 0..4_usize))), 0..40),
        ) {
            let mut table = AddressTable::default();
            for (name, content) in ops {
                match content {
                    Some((a, s, n)) => { table.insert(address(NAMES[name], KEYS[a], KEYS[s], KEYS[n])); }
                    None => { table.remove(NAMES[name]); }
                }
            }
            prop_assert_eq!(table.index(), &AddressIndex::of(table.resources()));
        }
    }
}
