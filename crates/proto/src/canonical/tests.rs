#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{Any, json::to_json, type_url, workload};

const METADATA: &str = "type.googleapis.com/envoy.config.core.v3.Metadata";

/// Text by key, by namespace, by filter.
type Filters = Vec<(String, Namespaces)>;
type Namespaces = Vec<(String, Vec<(String, String)>)>;

fn field(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(number, WireType::LengthDelimited, body, &mut out);
    out
}

fn entry(number: u32, key: &str, value: &[u8]) -> Vec<u8> {
    field(
        number,
        &[field(1, key.as_bytes()), field(2, value)].concat(),
    )
}

fn packed(url: &str, value: Vec<u8>) -> Vec<u8> {
    Any {
        type_url: url.to_owned(),
        value,
    }
    .encode_to_vec()
}

/// A `Struct` of strings.
fn text_struct(pairs: &[(String, String)]) -> Vec<u8> {
    pairs
        .iter()
        .flat_map(|(key, text)| entry(1, key, &field(3, text.as_bytes())))
        .collect()
}

/// A route configuration with maps at three depths: `typed_per_filter_config`
/// holds `Any`s of `Metadata`, whose `filter_metadata` holds `Struct`s.
fn routes(filters: &[(String, Namespaces)]) -> Vec<u8> {
    let mut out = field(1, b"routes");
    for (filter, namespaces) in filters {
        let metadata = namespaces
            .iter()
            .flat_map(|(namespace, pairs)| entry(1, namespace, &text_struct(pairs)))
            .collect();
        out.extend(entry(16, filter, &packed(METADATA, metadata)));
    }
    out.extend(field(2, &field(1, b"host")));
    out
}

/// The same filters twice, the second time in another order at each level.
fn two_orders() -> impl Strategy<Value = (Filters, Filters)> {
    let pairs = proptest::collection::btree_map("[a-c]{0,2}", "[a-z]{0,3}", 0..5);
    let namespaces = proptest::collection::btree_map("[a-c]{0,2}", pairs, 0..4);
    let filters = proptest::collection::btree_map("[a-c]{0,2}", namespaces, 0..4);
    (filters, any::<u64>()).prop_map(|(filters, seed)| {
        let sorted: Filters = filters
            .into_iter()
            .map(|(filter, namespaces)| {
                let namespaces = namespaces
                    .into_iter()
                    .map(|(namespace, pairs)| (namespace, pairs.into_iter().collect()));
                (filter, namespaces.collect())
            })
            .collect();
        let mut other = sorted.clone();
        rotate(&mut other, seed);
        for (_, namespaces) in &mut other {
            rotate(namespaces, seed >> 8);
            for (_, pairs) in namespaces {
                rotate(pairs, seed >> 16);
            }
        }
        (sorted, other)
    })
}

fn rotate<T>(items: &mut [T], by: u64) {
    if let Some(by) = (by as usize).checked_rem(items.len()) {
        items.rotate_left(by);
    }
    if by & 0x80 == 0 {
        items.reverse();
    }
}

proptest! {
    #[test]
    fn shuffled_map_entries_give_the_same_bytes_and_the_same_message((one, two) in two_orders()) {
        let (one, two) = (routes(&one), routes(&two));
        let canonical = canonicalize(type_url::ROUTE, &one).unwrap();
        prop_assert_eq!(&canonical, &canonicalize(type_url::ROUTE, &two).unwrap());
        prop_assert_eq!(&canonical, &canonicalize(type_url::ROUTE, &canonical).unwrap());
        prop_assert_eq!(canonical.len(), two.len());
        prop_assert_eq!(
            to_json(type_url::ROUTE, &canonical).unwrap(),
            to_json(type_url::ROUTE, &two).unwrap()
        );
    }

    #[test]
    fn garbage_is_an_error_or_a_fixed_point(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(once) = canonicalize(type_url::LISTENER, &bytes) {
            prop_assert_eq!(&once, &canonicalize(type_url::LISTENER, &once).unwrap());
        }
    }

    #[test]
    fn one_damaged_byte_never_panics(
        (filters, _) in two_orders(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = routes(&filters);
        let at = at.index(bytes.len());
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        let _ = canonicalize(type_url::ROUTE, &bytes);
        let _ = to_json(type_url::ROUTE, &bytes);
    }
}

#[test]
fn the_last_of_two_equal_keys_wins_as_in_decoders() {
    let list = |port| workload::PortList {
        ports: vec![workload::Port {
            service_port: port,
            ..Default::default()
        }],
    };
    let first = entry(22, "ns/a", &list(1).encode_to_vec());
    let last = entry(22, "ns/a", &list(2).encode_to_vec());
    assert_eq!(
        canonicalize(type_url::WORKLOAD, &[first, last.clone()].concat()).unwrap(),
        last
    );
}

#[test]
fn entries_of_two_maps_stay_where_each_map_began() {
    let services = |key: &str| entry(22, key, &[]);
    let name = field(1, b"w");
    let uid = field(20, b"u");
    let input = [&services("b"), &name, &services("a"), &uid]
        .map(|part| &part[..])
        .concat();
    let output = [&services("a"), &services("b"), &name, &uid]
        .map(|part| &part[..])
        .concat();
    assert_eq!(canonicalize(type_url::WORKLOAD, &input).unwrap(), output);
}

#[test]
fn unknown_fields_and_payloads_of_unknown_type_are_kept() {
    let unknown = field(900, b"\xff\xff");
    let payload = packed("type.googleapis.com/nobody.Knows", vec![0xff]);
    let extension = field(26, &[field(1, b"e"), field(2, &payload)].concat());
    let input = [unknown, extension].concat();
    assert_eq!(canonicalize(type_url::WORKLOAD, &input).unwrap(), input);
}

#[test]
fn nesting_without_end_is_refused() {
    let mut bytes = Vec::new();
    for _ in 0..=DEPTH_MAX + 1 {
        bytes = packed("type.googleapis.com/google.protobuf.Any", bytes);
    }
    assert!(matches!(
        canonicalize("google.protobuf.Any", &bytes),
        Err(Error::TooDeep(_))
    ));
}

#[test]
fn a_cut_message_is_an_error() {
    let bytes = routes(&[("f".to_owned(), vec![("n".to_owned(), Vec::new())])]);
    let cut = bytes.split_last().unwrap().1;
    assert!(matches!(
        canonicalize(type_url::ROUTE, cut),
        Err(Error::Malformed(_))
    ));
}
