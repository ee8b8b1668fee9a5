//! Which classes of proxies are connected, and what they refuse.

use std::collections::{BTreeMap, BTreeSet};

use model::ProxyClass;
use model::rejection::Rejection;
use tokio::sync::{Mutex, mpsc};

/// Classes at once of one gateway. Most of what makes a class is what nodes say of themselves,
/// so whoever holds the gateway's identity can take them all, and costs the gateway alone. There
/// is room for its instances in eight zones, with two versions and two forms during an upgrade.
const CLASSES_PER_GATEWAY_MAX: usize = 64;
/// Classes at once.
const CLASSES_MAX: usize = 4096;

/// Rejections of one class that are reported.
const REJECTIONS_MAX: usize = 256;

/// What is told of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The first proxy of a class connected (`true`), or its last one left (`false`).
    Interest(ProxyClass, bool),
    /// What proxies of a class refuse now: the complete list.
    Rejected(ProxyClass, Vec<Rejection>),
}

/// Counts the streams of each class and reports the first and the last, and what they refuse.
pub(super) struct Interests {
    /// Held while reporting, so that reports of one class keep their order.
    counts: Mutex<BTreeMap<ProxyClass, usize>>,
    /// Per class and stream, where there is anything.
    rejections: Mutex<BTreeMap<ProxyClass, BTreeMap<u64, Vec<Rejection>>>>,
    reports: mpsc::Sender<Report>,
}

impl Interests {
    pub(super) fn new(reports: mpsc::Sender<Report>) -> Self {
        Self {
            counts: Mutex::default(),
            rejections: Mutex::default(),
            reports,
        }
    }

    /// Counts one more; false, and nothing done, when there are too many classes.
    pub(super) async fn raise(&self, class: ProxyClass) -> bool {
        let mut counts = self.counts.lock().await;
        if !counts.contains_key(&class) {
            let same = |other: &&ProxyClass| other.gateway == class.gateway;
            let of_gateway = counts.keys().filter(same).count();
            if counts.len() >= CLASSES_MAX || of_gateway >= CLASSES_PER_GATEWAY_MAX {
                return false;
            }
        }
        let count = counts.entry(class.clone()).or_default();
        *count += 1;
        if *count == 1 {
            // An error means that the process is ending.
            let _ = self.reports.send(Report::Interest(class, true)).await;
        }
        true
    }

    /// Tells what a stream refuses now; nothing once it ends.
    pub(super) async fn reject(&self, class: &ProxyClass, stream: u64, list: Vec<Rejection>) {
        let mut all = self.rejections.lock().await;
        let of_class = all.entry(class.clone()).or_default();
        let changed = if list.is_empty() {
            of_class.remove(&stream).is_some()
        } else {
            of_class.insert(stream, list.clone()) != Some(list)
        };
        let together: BTreeSet<&Rejection> = of_class.values().flatten().collect();
        let told = together.into_iter().take(REJECTIONS_MAX).cloned().collect();
        if of_class.is_empty() {
            all.remove(class);
        }
        if changed {
            let _ = self
                .reports
                .send(Report::Rejected(class.clone(), told))
                .await;
        }
    }

    pub(super) async fn lower(&self, class: ProxyClass) {
        let mut counts = self.counts.lock().await;
        let Some(count) = counts.get_mut(&class) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            counts.remove(&class);
            let _ = self.reports.send(Report::Interest(class, false)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{ObjectKey, Str};

    use super::*;

    #[tokio::test]
    async fn one_gateway_cannot_have_classes_without_end() {
        let (reports, mut received) = mpsc::channel(2 * CLASSES_PER_GATEWAY_MAX);
        let interests = Interests::new(reports);
        let class = |gateway: &str, network: usize| ProxyClass {
            network: Str::from(network.to_string()),
            ..ProxyClass::waypoint(ObjectKey::new("ns", gateway))
        };
        for network in 0..CLASSES_PER_GATEWAY_MAX {
            assert!(interests.raise(class("a", network)).await);
        }
        assert!(!interests.raise(class("a", 99)).await);
        interests.lower(class("a", 99)).await;
        assert!(interests.raise(class("a", 0)).await, "it is there already");
        assert!(interests.raise(class("b", 99)).await);
        interests.lower(class("a", 1)).await;
        assert!(interests.raise(class("a", 99)).await);
        drop(interests);
        let mut told = 0;
        while received.recv().await.is_some() {
            told += 1;
        }
        assert_eq!(told, CLASSES_PER_GATEWAY_MAX + 3);
    }

    #[tokio::test]
    async fn a_gateway_in_many_zones_is_upgraded() {
        use model::derived::Locality;
        use model::proxy::{IpFamilies, StringFactory};

        let (reports, _received) = mpsc::channel(64);
        let interests = Interests::new(reports);
        for zone in 0..8 {
            for strings in [StringFactory::EnvoyPlain, StringFactory::EnvoyHashable] {
                for families in [IpFamilies::V4, IpFamilies::Dual] {
                    let class = ProxyClass {
                        strings,
                        families,
                        locality: Locality {
                            region: Str::from("r"),
                            zone: Str::from(zone.to_string()),
                            subzone: Str::new(),
                        },
                        ..ProxyClass::waypoint(ObjectKey::new("ns", "a"))
                    };
                    assert!(interests.raise(class).await);
                }
            }
        }
    }
}
