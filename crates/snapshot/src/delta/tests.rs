#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use prost::Message;
use proto::{discovery::DeltaDiscoveryResponse, type_url};

use super::*;

fn resource(name: &str, payload: &str) -> EncodedResource {
    EncodedResource::new(
        Str::from(name),
        type_url::ADDRESS,
        payload.as_bytes(),
        Vec::new(),
    )
}

fn map(content: &[(&str, &str)]) -> ResourceMap {
    content
        .iter()
        .map(|(name, payload)| resource(name, payload))
        .collect()
}

#[test]
fn the_frames_of_a_delta_concatenate_to_a_response() {
    let from = map(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let to = map(&[("b", "1"), ("c", "2"), ("d", "1")]);
    let delta = EncodedDelta::between(&from, &to);
    let mut bytes = delta.framed().to_vec();
    bytes.extend_from_slice(&delta.removed_framed);
    assert_eq!(delta.bytes, bytes.len());

    let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
    let sent: Vec<(&str, &[u8])> = response
        .resources
        .iter()
        .map(|sent| {
            (
                sent.name.as_str(),
                &sent.resource.as_ref().unwrap().value[..],
            )
        })
        .collect();
    assert_eq!(sent, [("c", &b"2"[..]), ("d", b"1")]);
    assert_eq!(response.removed_resources, ["a"]);
    assert_eq!(&*delta.removed, [Str::from("a")]);
}

#[test]
fn clients_at_the_same_maps_share_one_delta() {
    let cache = DeltaCache::default();
    let (from, to) = (map(&[("a", "1")]), map(&[("a", "2")]));
    let first = cache.between(ResourceType::Address, &from, &to);
    let again = cache.between(ResourceType::Address, &from.clone(), &to.clone());
    assert!(Arc::ptr_eq(&first, &again));

    let full = cache.between(ResourceType::Address, &ResourceMap::default(), &to);
    let again = cache.between(ResourceType::Address, &ResourceMap::default(), &to);
    assert!(Arc::ptr_eq(&full, &again));
    let other = cache.between(ResourceType::Cluster, &from, &to);
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(cache.len(), 3);
}

#[test]
fn concurrent_clients_compute_a_delta_once() {
    let cache = DeltaCache::default();
    let to = map(&[("a", "1"), ("b", "1")]);
    let deltas: Vec<_> = std::thread::scope(|scope| {
        let ask = || cache.between(ResourceType::Address, &ResourceMap::default(), &to);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        deltas
            .windows(2)
            .all(|pair| Arc::ptr_eq(&pair[0], &pair[1]))
    );
}

#[test]
fn a_cache_forgets_the_least_recently_used_step() {
    let cache = DeltaCache::with_capacity(2);
    let empty = ResourceMap::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| map(&[(name, "1")]));
    let ask = |to| cache.between(ResourceType::Address, &empty, to);
    let (first_a, first_b) = (ask(&a), ask(&b));
    assert!(Arc::ptr_eq(&first_a, &ask(&a)));
    ask(&c);
    assert_eq!(cache.len(), 2);
    assert!(Arc::ptr_eq(&first_a, &ask(&a)));
    assert!(!Arc::ptr_eq(&first_b, &ask(&b)));
}
