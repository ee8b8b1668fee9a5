//! The workloads alone, made when somebody asks.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::ResourceMap;

/// Addresses and the workloads among them.
type Step = (ResourceMap, ResourceMap);

/// The resources of type `istio.workload.Workload` of one snapshot. Costs nothing until
/// somebody subscribes, and then as much as changed since somebody last looked.
#[derive(Debug, Default)]
pub struct LazyWorkloads {
    own: OnceLock<ResourceMap>,
    /// What was computed last, shared by all generations, so that the next generation
    /// shares its structure. Held while computing: others would compute the same.
    last: Arc<Mutex<Step>>,
}

impl LazyWorkloads {
    /// The workloads of these addresses, which must be those of the same snapshot.
    pub(crate) fn of(&self, addresses: &ResourceMap) -> &ResourceMap {
        self.own.get_or_init(|| {
            let mut last = self.last.lock();
            let (from, workloads) = &mut *last;
            let diff = from.diff(addresses);
            for resource in &diff.changed {
                match resource.to_workload() {
                    Some(workload) => workloads.insert(Arc::new(workload)),
                    None => workloads.remove(resource.name()),
                };
            }
            for name in &diff.removed {
                workloads.remove(name);
            }
            *from = addresses.clone();
            workloads.clone()
        })
    }
}

/// For the next generation: nothing computed yet, the last result shared.
impl Clone for LazyWorkloads {
    fn clone(&self) -> Self {
        Self {
            own: OnceLock::new(),
            last: Arc::clone(&self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::Str;
    use prost::Message as _;
    use proto::workload::{Address, Workload, address};

    use super::*;
    use crate::{AddressFacts, AddressKind, EncodedResource};

    fn workload(name: &str, content: &str) -> EncodedResource {
        let message = Workload {
            uid: content.to_owned(),
            ..Workload::default()
        };
        let message = Address {
            r#type: Some(address::Type::Workload(message)),
        };
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            ..AddressFacts::service()
        };
        EncodedResource::address(Str::from(name), &message.encode_to_vec(), vec![], facts, 0)
    }

    #[test]
    fn generations_share_what_did_not_change_and_leave_services_out() {
        let service = EncodedResource::address(
            Str::from("ns/host"),
            b"\x12\x00",
            Vec::new(),
            AddressFacts::service(),
            0,
        );
        let mut addresses: ResourceMap = [workload("a", "1"), workload("b", "1"), service]
            .into_iter()
            .collect();
        let first = LazyWorkloads::default();
        let before = first.of(&addresses).clone();
        assert_eq!(before.len(), 2);
        assert!(first.of(&addresses).is_same(&before), "computed once");

        let same = first.clone();
        assert!(same.of(&addresses).is_same(&before), "nothing changed");

        addresses.insert(Arc::new(workload("a", "2")));
        addresses.remove("ns/host");
        let second = first.clone();
        let after = second.of(&addresses);
        assert!(Arc::ptr_eq(
            after.get("b").unwrap(),
            before.get("b").unwrap()
        ));
        assert_eq!(before.diff(after).changed.len(), 1);
        assert_eq!(first.of(&addresses), &before, "a snapshot never changes");
    }
}
