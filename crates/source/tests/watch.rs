//! A real directory under a real kernel: waits for batches, never for time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambientd_source::{Directory, SourceError};
use model::names::Kind;
use model::object::Input;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

/// A watched directory, and the Nodes and finding codes that its batches amount to.
struct Watched {
    root: PathBuf,
    rx: mpsc::Receiver<Vec<Input>>,
    task: JoinHandle<Result<(), SourceError>>,
    nodes: BTreeSet<String>,
    codes: Vec<&'static str>,
    _dir: tempfile::TempDir,
}

impl Watched {
    async fn new(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        prepare(&root);
        let (tx, rx) = mpsc::channel(4);
        let at = root.clone();
        let task = tokio::spawn(async move { Directory::watch(at, tx).await });
        let (nodes, codes) = (BTreeSet::new(), Vec::new());
        let mut out = Self {
            root,
            rx,
            task,
            nodes,
            codes,
            _dir: dir,
        };
        assert_eq!(
            out.receive().await,
            Kind::ALL.len() + 1,
            "the first batch is complete"
        );
        out
    }

    async fn receive(&mut self) -> usize {
        let batch = tokio::time::timeout(PATIENCE, self.rx.recv())
            .await
            .expect("a batch in time")
            .unwrap();
        let count = batch.len();
        for input in batch {
            match input {
                Input::Resync(Kind::Node, objects) => {
                    self.nodes = objects
                        .iter()
                        .map(|object| object.meta().key.name.to_string())
                        .collect();
                }
                Input::Upsert(object) if object.kind() == Kind::Node => {
                    self.nodes.insert(object.meta().key.name.to_string());
                }
                Input::Delete(Kind::Node, key) => {
                    self.nodes.remove(key.name.as_str());
                }
                Input::SourceFindings(_, findings) => {
                    self.codes = findings.iter().map(|finding| finding.code).collect();
                }
                _ => {}
            }
        }
        count
    }

    async fn until(&mut self, nodes: &[&str], codes: &[&str]) {
        let expected: BTreeSet<String> = nodes.iter().map(|&node| node.to_owned()).collect();
        while self.nodes != expected || self.codes != codes {
            self.receive().await;
        }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }
}

#[tokio::test]
async fn edits_of_files_and_directories_arrive() {
    let mut dir = Watched::new(|root| fs::write(root.join("a.yaml"), node("a")).unwrap()).await;
    dir.until(&["a"], &[]).await;
    dir.write("b.yaml", &node("b"));
    dir.until(&["a", "b"], &[]).await;
    // Hidden and foreign files say nothing; the next edit shows that they were passed by.
    dir.write(".hidden.yaml", &node("hidden"));
    dir.write("notes.txt", &node("notes"));
    // As editors save: a new file takes the name.
    dir.write(".b.yaml.swp", &node("c"));
    fs::rename(dir.root.join(".b.yaml.swp"), dir.root.join("b.yaml")).unwrap();
    dir.until(&["a", "c"], &[]).await;
    dir.write("a.yaml", "kind: [");
    dir.until(&["a", "c"], &["file-unreadable"]).await;
    fs::remove_file(dir.root.join("a.yaml")).unwrap();
    dir.until(&["c"], &[]).await;
    // A whole tree that was filled elsewhere moves in, is renamed, and leaves.
    let outside = tempfile::tempdir_in(dir.root.parent().unwrap()).unwrap();
    fs::create_dir_all(outside.path().join("t/deep")).unwrap();
    fs::write(
        outside.path().join("t/deep/d.json"),
        r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"d"}}"#,
    )
    .unwrap();
    fs::rename(outside.path().join("t"), dir.root.join("t")).unwrap();
    dir.until(&["c", "d"], &[]).await;
    fs::rename(dir.root.join("t"), dir.root.join("u")).unwrap();
    dir.write("u/deep/e.yaml", &node("e"));
    dir.until(&["c", "d", "e"], &[]).await;
    fs::remove_dir_all(dir.root.join("u")).unwrap();
    dir.until(&["c"], &[]).await;
    drop(dir.rx);
    tokio::time::timeout(PATIENCE, dir.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_config_map_volume_swaps_all_its_files_at_once() {
    let mut dir = Watched::new(|root| {
        fs::create_dir(root.join("..1")).unwrap();
        fs::write(root.join("..1/a.yaml"), node("one")).unwrap();
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    })
    .await;
    dir.until(&["one"], &[]).await;
    fs::create_dir(dir.root.join("..2")).unwrap();
    dir.write("..2/a.yaml", &node("two"));
    symlink("..2", dir.root.join("..data_tmp")).unwrap();
    fs::rename(dir.root.join("..data_tmp"), dir.root.join("..data")).unwrap();
    dir.until(&["two"], &[]).await;
}

#[tokio::test]
async fn a_lost_directory_keeps_its_objects_until_it_is_back() {
    let mut dir = Watched::new(|root| fs::write(root.join("a.yaml"), node("a")).unwrap()).await;
    let away = dir.root.with_file_name("away");
    fs::rename(&dir.root, &away).unwrap();
    dir.until(&["a"], &["file-unreadable"]).await;
    fs::create_dir(&dir.root).unwrap();
    dir.write("b.yaml", &node("b"));
    dir.until(&["b"], &[]).await;
    dir.write("b.yaml", &node("c"));
    dir.until(&["c"], &[]).await;
}

#[test]
fn links_and_loops_are_followed_once_and_hidden_names_never() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    fs::write(root.join("a/b/n.yaml"), node("real")).unwrap();
    fs::write(root.join(".git/h.yaml"), node("h")).unwrap();
    symlink("../..", root.join("a/b/loop")).unwrap();
    symlink("a", root.join("z")).unwrap();
    symlink("nowhere", root.join("dangling.yaml")).unwrap();
    let mut nodes = Vec::new();
    let mut findings = Vec::new();
    for input in Directory::load(root).unwrap() {
        match input {
            Input::Resync(Kind::Node, objects) => {
                nodes.extend(
                    objects
                        .iter()
                        .map(|object| object.meta().key.name.to_string()),
                );
            }
            Input::SourceFindings(_, found) => {
                findings.extend(found.iter().map(|f| format!("{} {}", f.code, f.object.key)));
            }
            _ => {}
        }
    }
    assert_eq!(
        (nodes, findings),
        (
            vec!["real".to_owned()],
            vec!["file-unreadable dangling.yaml".to_owned()]
        )
    );
    assert!(matches!(
        Directory::load(root.join("missing")),
        Err(SourceError::Unreadable { .. })
    ));
}

#[test]
fn a_file_beyond_the_limit_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("big.yaml")).unwrap();
    file.set_len(ambientd_source::FILE_BYTES_MAX + 1).unwrap();
    let batch = Directory::load(dir.path()).unwrap();
    let Some(Input::SourceFindings(_, findings)) = batch.last() else {
        panic!("{batch:?}")
    };
    let found: Vec<_> = findings
        .iter()
        .map(|f| (f.code, f.object.key.to_string()))
        .collect();
    assert_eq!(found, [("file-too-large", "big.yaml".to_owned())]);
}
