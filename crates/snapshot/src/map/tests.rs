use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::type_url;

use super::*;

fn resource(name: &str, payload: &[u8]) -> EncodedResource {
    EncodedResource::new(Str::from(name), type_url::ADDRESS, payload, Vec::new())
}

fn map_of(content: &BTreeMap<String, u8>) -> ResourceMap {
    content
        .iter()
        .map(|(name, byte)| resource(name, &[*byte]))
        .collect()
}

fn naive(from: &BTreeMap<String, u8>, to: &BTreeMap<String, u8>) -> Diff {
    Diff {
        changed: to
            .iter()
            .filter(|(name, byte)| from.get(*name) != Some(byte))
            .map(|(name, byte)| Arc::new(resource(name, &[*byte])))
            .collect(),
        removed: from
            .keys()
            .filter(|name| !to.contains_key(*name))
            .map(|name| Str::from(name.as_str()))
            .collect(),
    }
}

/// Content of a map, and edits: a byte to write under a name, or none to remove it.
fn content() -> impl Strategy<Value = BTreeMap<String, u8>> {
    proptest::collection::btree_map("[a-f]{1,3}", 0u8..3, 0..200)
}

fn edits() -> impl Strategy<Value = Vec<(String, Option<u8>)>> {
    proptest::collection::vec(("[a-f]{1,3}", proptest::option::of(0u8..3)), 0..100)
}

proptest! {
    #[test]
    fn a_diff_equals_the_naive_one_along_edits_and_between_strangers(
        mut from in content(),
        edits in edits(),
    ) {
        let old = map_of(&from);
        let mut new = old.clone();
        let mut to = from.clone();
        for (name, byte) in edits {
            match byte {
                Some(byte) => {
                    let is_new = to.insert(name.clone(), byte) != Some(byte);
                    prop_assert_eq!(new.insert(Arc::new(resource(&name, &[byte]))), is_new);
                }
                None => {
                    prop_assert_eq!(new.remove(&name), to.remove(&name).is_some());
                }
            }
        }
        let rebuilt = map_of(&to);
        prop_assert_eq!(old.diff(&new), naive(&from, &to));
        prop_assert_eq!(old.diff(&rebuilt), naive(&from, &to));
        prop_assert_eq!(new.content_id(), rebuilt.content_id());
        prop_assert_eq!(new.bytes_total(), rebuilt.bytes_total());
        prop_assert_eq!(new.diff(&rebuilt), Diff::default());
        from.clear();
        prop_assert_eq!(ResourceMap::default().diff(&new), naive(&from, &to));
    }
}

#[test]
fn an_equal_resource_leaves_the_map_as_it_was() {
    let old: ResourceMap = [resource("a", b"1"), resource("b", b"1")]
        .into_iter()
        .collect();
    let mut new = old.clone();
    assert!(!new.insert(Arc::new(resource("a", b"1"))));
    assert!(new.is_same(&old));
    assert!(new.insert(Arc::new(resource("a", b"2"))));
    assert!(!new.is_same(&old));
    assert_ne!(new.content_id(), old.content_id());
}

#[test]
fn other_aliases_are_taken_over_without_being_a_change() {
    let old: ResourceMap = [resource("a", b"1")].into_iter().collect();
    let mut new = old.clone();
    let alias = vec![Str::from("/10.0.0.1")];
    let aliased = EncodedResource::new(Str::from("a"), type_url::ADDRESS, b"1", alias.clone());
    assert!(!new.insert(Arc::new(aliased)));
    assert_eq!(
        new.get("a").map(|resource| resource.aliases().to_vec()),
        Some(alias)
    );
    assert_eq!(old.diff(&new), Diff::default());
}

#[test]
fn a_map_that_became_empty_is_the_empty_map() {
    let mut map: ResourceMap = [resource("a", b"1")].into_iter().collect();
    assert!(map.remove("a"));
    assert!(!map.remove("a"));
    assert!(map.is_same(&ResourceMap::default()));
    assert_eq!((map.content_id(), map.bytes_total()), (0, 0));
}

#[test]
fn a_reconnecting_client_is_sent_only_what_it_lacks() {
    let now: ResourceMap = [
        resource("a", b"1"),
        resource("b", b"2"),
        resource("c", b"3"),
    ]
    .into_iter()
    .collect();
    let version = |payload: &[u8]| resource("", payload).version_str();
    let (a, b, old) = (version(b"1"), version(b"2"), version(b"0"));

    let stated = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
        owned.collect()
    };
    let held = now.held_by_client(&stated(&[("a", &a), ("b", &old), ("c", ""), ("gone", &b)]));
    let diff = held.diff(&now);
    let names: Vec<&str> = diff.changed.iter().map(|it| it.name().as_str()).collect();
    assert_eq!(
        (names, diff.removed),
        (vec!["b", "c"], vec![Str::from("gone")])
    );

    let c = version(b"3");
    let held = now.held_by_client(&stated(&[("a", &a), ("b", &b), ("c", &c)]));
    assert!(held.is_same(&now));

    for few in [&[("b", &b[..])][..], &[("b", &b), ("bb", &b)], &[]] {
        let held = now.held_by_client(&stated(few));
        let names: Vec<&str> = held.iter().map(|it| it.name().as_str()).collect();
        let expected: Vec<&str> = few.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, expected);
        let mut again = ResourceMap::default();
        for resource in held.iter() {
            again.insert(Arc::clone(resource));
        }
        assert_eq!(held.content_id(), again.content_id());
    }
}
