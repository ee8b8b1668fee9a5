#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;

use model::names::{Kind, ObjectKey};
use model::object::Input;
use proptest::prelude::*;

use super::FileSet;

fn service(ns: &str, name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {ns}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

/// What a reader of batches ends up with: objects (with the port of Services) and finding texts.
#[derive(Debug, Default, PartialEq, Clone)]
struct Mirror {
    objects: BTreeMap<(Kind, ObjectKey), String>,
    findings: Vec<String>,
}

impl Mirror {
    fn apply(&mut self, batch: Vec<Input>) {
        for input in batch {
            match input {
                Input::Upsert(object) => {
                    let key = (object.kind(), object.meta().key.clone());
                    self.objects.insert(key, format!("{object:?}"));
                }
                Input::Delete(kind, key) => {
                    assert!(
                        self.objects.remove(&(kind, key)).is_some(),
                        "deleted what was not there"
                    );
                }
                Input::Resync(kind, objects) => {
                    self.objects.retain(|(at, _), _| *at != kind);
                    for object in objects {
                        self.apply(vec![Input::Upsert(object)]);
                    }
                }
                Input::SourceFindings(_, findings) => {
                    self.findings = findings
                        .iter()
                        .map(|f| {
                            format!(
                                "{} {} {}: {}",
                                f.code, f.object.kind, f.object.key, f.message
                            )
                        })
                        .collect();
                }
                Input::Interest(..) | Input::Jwks(..) | Input::Rejected(..) => {
                    panic!("a directory has no clients")
                }
            }
        }
    }
}

fn mirror(set: &FileSet) -> Mirror {
    let mut fresh = set.clone();
    fresh.published_findings = None;
    for slot in fresh.slots.values_mut() {
        slot.published = None;
    }
    fresh.touched.extend(set.slots.keys().cloned());
    let mut out = Mirror::default();
    out.apply(fresh.changes());
    out
}

fn keys(set: &FileSet) -> Vec<String> {
    mirror(set)
        .objects
        .keys()
        .map(|(kind, key)| format!("{kind} {key}"))
        .collect()
}

fn batch(set: &mut FileSet) -> Vec<String> {
    let show = |input: Input| match input {
        Input::Upsert(object) => format!("+{} {}", object.kind(), object.meta().key),
        Input::Delete(kind, key) => format!("-{kind} {key}"),
        Input::Resync(kind, objects) => format!("={kind} {}", objects.len()),
        Input::SourceFindings(_, findings) => {
            let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
            format!("findings {}", codes.join(","))
        }
        Input::Interest(..) | Input::Jwks(..) | Input::Rejected(..) => {
            panic!("a directory has no clients")
        }
    };
    set.changes().into_iter().map(show).collect()
}

#[test]
fn the_first_batch_is_complete_and_later_ones_hold_only_changes() {
    let mut set = FileSet::new();
    set.set("a.yaml", service("ns", "a", 80).as_bytes());
    let first = batch(&mut set);
    assert_eq!(first.len(), Kind::ALL.len() + 1);
    assert!(
        first.contains(&"=Service 1".into()) && first.contains(&"=Namespace 1".into()),
        "{first:?}"
    );
    assert!(first.contains(&"=Pod 0".into()), "{first:?}");
    assert_eq!(batch(&mut set), [""; 0]);

    set.set("a.yaml", service("ns", "a", 80).as_bytes());
    assert_eq!(batch(&mut set), [""; 0], "the same content again");
    set.set("b.yaml", service("nt", "b", 80).as_bytes());
    assert_eq!(batch(&mut set), ["+Namespace nt", "+Service nt/b"]);
    set.set("a.yaml", service("ns", "a", 81).as_bytes());
    assert_eq!(batch(&mut set), ["+Service ns/a"]);
    set.remove("b.yaml");
    assert_eq!(batch(&mut set), ["-Namespace nt", "-Service nt/b"]);
}

#[test]
fn documents_and_lists_of_a_file_are_flattened() {
    let mut set = FileSet::new();
    let text = format!(
        "---\n# nothing\n---\n{}---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: PodList\n  items:\n  - metadata: {{name: p}}\n---\n",
        service("default", "a", 80)
    );
    set.set("a.yml", text.as_bytes());
    set.set(
        "b.json",
        br#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}"#,
    );
    assert_eq!(
        keys(&set),
        [
            "Namespace default",
            "Node n",
            "Pod default/p",
            "Service default/a"
        ]
    );
    assert_eq!(mirror(&set).findings, [""; 0]);
}

#[test]
fn a_broken_file_keeps_its_last_good_objects_and_says_where() {
    let mut set = FileSet::new();
    set.set("a.yaml", b"kind: [");
    assert_eq!(keys(&set), [""; 0], "nothing was good yet");
    set.set("a.yaml", service("ns", "a", 80).as_bytes());
    for broken in [
        &b"kind: Service\n  bad: [indent"[..],
        b"\xff\xfe\xfa",
        b"a: 1\na: 2\n",
    ] {
        set.set("a.yaml", broken);
        assert_eq!(keys(&set), ["Namespace ns", "Service ns/a"]);
        let findings = mirror(&set).findings;
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].starts_with("file-unreadable File a.yaml: "),
            "{findings:?}"
        );
        assert!(
            findings[0].contains("line ") || findings[0].contains("byte "),
            "{findings:?}"
        );
    }
    set.set("a.yaml", service("ns", "b", 80).as_bytes());
    assert_eq!(
        (keys(&set), mirror(&set).findings.len()),
        (vec!["Namespace ns".into(), "Service ns/b".into()], 0)
    );
}

#[test]
fn the_first_of_duplicates_counts_until_it_is_gone() {
    let mut set = FileSet::new();
    set.set(
        "b.yaml",
        format!("{}---\n{}", service("ns", "a", 2), service("ns", "a", 3)).as_bytes(),
    );
    set.set("a.yaml", service("ns", "a", 1).as_bytes());
    let port = |set: &FileSet| {
        let found = &mirror(set).objects[&(Kind::Service, ObjectKey::new("ns", "a"))];
        (1..=3)
            .find(|port| found.contains(&format!("port: {port},")))
            .unwrap()
    };
    assert_eq!(port(&set), 1);
    assert_eq!(
        mirror(&set).findings,
        [
            "duplicate-object Service ns/a: This object is in a.yaml and again in b.yaml#1; the first counts",
            "duplicate-object Service ns/a: This object is in a.yaml and again in b.yaml#2; the first counts",
        ]
    );
    set.remove("a.yaml");
    assert_eq!(port(&set), 2);
    assert_eq!(mirror(&set).findings.len(), 1);
}

#[test]
fn namespaces_exist_while_something_names_them_and_written_ones_win() {
    let mut set = FileSet::new();
    set.set("a.yaml", service("ns", "a", 80).as_bytes());
    let namespace =
        |set: &FileSet| mirror(set).objects[&(Kind::Namespace, ObjectKey::cluster("ns"))].clone();
    assert!(namespace(&set).contains("implicit: true"));
    assert!(namespace(&set).contains("kubernetes.io/metadata.name"));
    set.set(
        "z.yaml",
        b"apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, labels: {a: b}}\n",
    );
    assert!(namespace(&set).contains("implicit: false"));
    set.remove("a.yaml");
    assert!(namespace(&set).contains("implicit: false"));
    set.remove("z.yaml");
    assert_eq!(keys(&set), [""; 0]);
}

#[test]
fn mesh_config_in_a_config_map_is_read_and_its_bad_yaml_is_an_invalid_object() {
    let map = |mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n    {mesh}\n"
        )
    };
    let key = (Kind::MeshConfig, ObjectKey::new("istio-system", "istio"));
    let mut set = FileSet::new();
    for (mesh, expected) in [
        ("trustDomain: td", "trust_domain: Some(\"td\")"),
        ("", "trust_domain: None"),
        ("trustDomain: [", "Err(Invalid { field: \"data.mesh\""),
    ] {
        set.set("m.yaml", map(mesh).as_bytes());
        assert!(
            mirror(&set).objects[&key].contains(expected),
            "{mesh}: {:?}",
            mirror(&set).objects[&key]
        );
    }
}

#[test]
fn integer_keys_and_alias_bombs_do_no_harm() {
    let mut set = FileSet::new();
    set.set("a.yaml", b"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: STRICT}}}\n");
    let found = &mirror(&set).objects[&(Kind::PeerAuthentication, ObjectKey::new("default", "a"))];
    assert!(found.contains("8080: Strict"), "{found}");
    let line = |i: usize| {
        format!(
            "a{}: &a{} [{}]\n",
            i + 1,
            i + 1,
            vec![format!("*a{i}"); 10].join(", ")
        )
    };
    let bomb: String = std::iter::once("a0: &a0 [x]\n".to_owned())
        .chain((0..12).map(line))
        .collect();
    set.set("b.yaml", bomb.as_bytes());
    assert!(
        mirror(&set).findings[0].starts_with("file-unreadable File b.yaml"),
        "{:?}",
        mirror(&set).findings
    );
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<(usize, usize, u16)>),
    Break(usize),
    Delete(usize),
    Publish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let objects = prop::collection::vec((0..3usize, 0..3usize, 1..4u16), 0..4);
    let step = prop_oneof![
        4 => (0..4usize, objects).prop_map(|(file, objects)| Step::Write(file, objects)),
        1 => (0..4usize).prop_map(Step::Break),
        2 => (0..4usize).prop_map(Step::Delete),
        2 => Just(Step::Publish),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// However edits are batched, a reader ends where a fresh load of the final files (the
    /// last good content of broken ones) ends.
    #[test]
    fn batches_add_up_to_a_fresh_load(steps in steps()) {
        const FILES: [&str; 4] = ["a.yaml", "b/a.yaml", "b/z.yml", "c.yaml"];
        let (mut set, mut reader) = (FileSet::new(), Mirror::default());
        let mut good: BTreeMap<usize, String> = BTreeMap::new();
        let mut broken: BTreeMap<usize, bool> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write(file, objects) => {
                    let text: Vec<String> = objects
                        .iter()
                        .map(|(ns, name, port)| service(&format!("n{ns}"), &format!("s{name}"), *port))
                        .collect();
                    let text = text.join("---\n");
                    set.set(FILES[file], text.as_bytes());
                    good.insert(file, text);
                    broken.insert(file, false);
                }
                Step::Break(file) => {
                    set.set(FILES[file], b"kind: [");
                    broken.insert(file, true);
                }
                Step::Delete(file) => {
                    set.remove(FILES[file]);
                    good.remove(&file);
                    broken.remove(&file);
                }
                Step::Publish => reader.apply(set.changes()),
            }
        }
        reader.apply(set.changes());
        let mut fresh = FileSet::new();
        for (file, text) in &good {
            fresh.set(FILES[*file], text.as_bytes());
        }
        for (file, _) in broken.iter().filter(|(_, broken)| **broken) {
            fresh.set(FILES[*file], b"kind: [");
        }
        let expected = mirror(&fresh);
        prop_assert_eq!(reader, expected);
    }
}
