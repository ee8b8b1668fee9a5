//! Claims about what stages see. Source: spec/workload-discovery.md §0.1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use model::object::Input;
use model::ownership::{MyTags, Revisions};
use model::parse::{Recognised, recognise};
use model::{Kind, Object, ObjectKey};
use serde_json::{Value, json};

use super::Inputs;

fn object(value: &Value) -> Object {
    match recognise(value, "test") {
        Recognised::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn upsert(value: Value) -> Input {
    Input::Upsert(object(&value))
}

/// Mesh config with selectors.
fn mesh(selectors: Value) -> Input {
    upsert(json!({"kind": "MeshConfig", "discoverySelectors": selectors}))
}

fn namespace(name: &str, labels: Value) -> Input {
    upsert(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    )
}

fn pod(ns: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": ns, "name": name}, "spec": {"containers": []}})
}

fn policy(revision: &str) -> Input {
    upsert(json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "a", "name": "p", "labels": {"istio.io/rev": revision}},
        "spec": {},
    }))
}

fn pods(inputs: &Inputs) -> Vec<String> {
    inputs.pods.iter().map(|(key, _)| key.to_string()).collect()
}

fn codes(inputs: &Inputs) -> Vec<String> {
    let one = |f: &model::Finding| format!("{} {} {}", f.code, f.object.kind, f.object.key);
    let hidden: Vec<_> = inputs.hidden(&Revisions::All).collect();
    inputs.findings().chain(&hidden).map(one).collect()
}

#[test]
fn without_selectors_every_namespace_is_seen() {
    let mut inputs = Inputs::new("".into(), "system".into());
    inputs.apply(vec![upsert(pod("a", "x"))]);
    assert_eq!(pods(&inputs), ["a/x"]);
    assert_eq!(codes(&inputs), Vec::<String>::new());
}

#[test]
fn selectors_are_ored_and_judge_the_labels_of_namespaces() {
    // Selectors, namespaces seen.
    let cases = [
        (json!([{"matchLabels": {"mesh": "on"}}]), vec!["a/x"]),
        (
            json!([{"matchLabels": {"mesh": "on"}}, {"matchLabels": {"mesh": "off"}}]),
            vec!["a/x", "b/x"],
        ),
        (
            json!([{"matchExpressions": [{"key": "mesh", "operator": "DoesNotExist"}]}]),
            vec!["c/x"],
        ),
        (json!([{}]), vec!["a/x", "b/x", "c/x"]),
        (json!([]), vec!["a/x", "b/x", "c/x", "d/x"]),
    ];
    for (selectors, seen) in cases {
        let mut inputs = Inputs::new("".into(), "system".into());
        let mut batch = vec![
            namespace("a", json!({"mesh": "on"})),
            namespace("b", json!({"mesh": "off"})),
            namespace("c", json!({})),
            mesh(selectors.clone()),
        ];
        // Namespace d does not exist.
        batch.extend(["a", "b", "c", "d"].map(|ns| upsert(pod(ns, "x"))));
        inputs.apply(batch);
        assert_eq!(pods(&inputs), seen, "{selectors}");
        assert_eq!(inputs.namespaces.len(), 3, "{selectors}");
    }
}

#[test]
fn a_hidden_object_comes_back_with_its_namespace_or_with_mesh_config() {
    let selecting = || mesh(json!([{"matchLabels": {"mesh": "on"}}]));
    let mut inputs = Inputs::new("".into(), "system".into());
    inputs.apply(vec![
        namespace("a", json!({})),
        upsert(pod("a", "x")),
        upsert(pod("a", "y")),
    ]);
    inputs.apply(vec![selecting()]);
    assert_eq!(pods(&inputs), Vec::<String>::new());
    assert_eq!(codes(&inputs), ["object-not-discovered Namespace a"]);
    inputs.apply(vec![namespace("a", json!({"mesh": "on"}))]);
    assert_eq!(pods(&inputs), ["a/x", "a/y"]);
    assert_eq!(codes(&inputs), Vec::<String>::new());
    // Hidden again, and changed while nobody looks.
    inputs.apply(vec![namespace("a", json!({}))]);
    inputs.apply(vec![
        Input::Delete(Kind::Pod, ObjectKey::new("a", "x")),
        upsert(pod("a", "z")),
    ]);
    assert_eq!(pods(&inputs), Vec::<String>::new());
    inputs.apply(vec![mesh(json!([]))]);
    assert_eq!(pods(&inputs), ["a/y", "a/z"]);
}

#[test]
fn the_namespace_of_the_control_plane_is_never_hidden() {
    let mut inputs = Inputs::new("".into(), "system".into());
    inputs.apply(vec![
        mesh(json!([{"matchLabels": {"mesh": "on"}}])),
        namespace("system", json!({})),
        namespace("a", json!({})),
        upsert(pod("system", "x")),
        upsert(pod("a", "x")),
    ]);
    assert_eq!(pods(&inputs), ["system/x"]);
    inputs.apply(vec![
        namespace("system", json!({"mesh": "on"})),
        upsert(pod("system", "y")),
    ]);
    inputs.apply(vec![namespace("system", json!({}))]);
    assert_eq!(pods(&inputs), ["system/x", "system/y"]);
    assert_eq!(codes(&inputs), ["object-not-discovered Namespace a"]);
}

#[test]
fn a_complete_list_replaces_hidden_objects_too() {
    let mut inputs = Inputs::new("".into(), "system".into());
    inputs.apply(vec![
        mesh(json!([{"matchLabels": {"mesh": "on"}}])),
        namespace("a", json!({})),
        upsert(pod("a", "x")),
    ]);
    inputs.apply(vec![Input::Resync(Kind::Pod, vec![object(&pod("a", "y"))])]);
    inputs.apply(vec![namespace("a", json!({"mesh": "on"}))]);
    assert_eq!(pods(&inputs), ["a/y"]);
}

#[test]
fn objects_of_another_revision_are_seen_only_by_a_control_plane_without_one() {
    // Revision of the control plane, of the object, seen.
    let cases = [("", "x", true), ("x", "x", true), ("x", "y", false)];
    for (own, of_object, seen) in cases {
        let mut inputs = Inputs::new(own.into(), "system".into());
        inputs.apply(vec![policy(of_object)]);
        assert_eq!(
            inputs.authorization_policies.len(),
            usize::from(seen),
            "{own} {of_object}"
        );
        let told = !codes(&inputs).is_empty();
        assert_eq!(told, !seen, "{own} {of_object}");
    }
    let mut inputs = Inputs::new("x".into(), "system".into());
    let mut labelled = pod("a", "p");
    labelled["metadata"]["labels"] = json!({"istio.io/rev": "y"});
    inputs.apply(vec![upsert(labelled), policy("y")]);
    assert_eq!(pods(&inputs), ["a/p"]);
    assert_eq!(
        codes(&inputs),
        ["object-other-revision AuthorizationPolicy a/p"]
    );
    inputs.apply(vec![policy("x")]);
    assert_eq!(inputs.authorization_policies.len(), 1);
    assert_eq!(codes(&inputs), Vec::<String>::new());
}

#[test]
fn who_names_a_tag_is_told_that_only_the_revision_counts() {
    let revisions = Revisions::Of(MyTags {
        revision: "x".into(),
        tags: ["prod".into()].into(),
        is_default: false,
    });
    for (named, says_tag) in [("prod", true), ("other", false)] {
        let mut inputs = Inputs::new("x".into(), "system".into());
        let changes = inputs.apply(vec![policy(named)]);
        let at = (Kind::AuthorizationPolicy, ObjectKey::new("a", "p"));
        assert_eq!(changes.revised, [(at, true)].into());
        let all: Vec<_> = inputs.hidden(&revisions).collect();
        let [finding] = all.as_slice() else {
            panic!("{all:?}")
        };
        assert_eq!(finding.code, "object-other-revision");
        assert_eq!(
            finding.message.contains("a tag of"),
            says_tag,
            "{finding:?}"
        );
        assert!(finding.fix.contains("set it to x"), "{finding:?}");
    }
}
