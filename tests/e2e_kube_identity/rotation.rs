//! The root changed by the command.

use std::sync::Arc;
use std::time::SystemTime;

use ca::Source;
use kube_io::root_store::{self, SecretStore};
use testkit::cluster::Cluster;
use tokio::runtime::Handle;

use super::common::SYSTEM;
use super::root::{blocking, secret};
use super::{authority, control_plane};

/// `ambientd ca rotate` on the Secret; what it says, on success or not.
fn rotate(cluster: &Cluster, step: &str) -> Result<String, String> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ambientd"))
        .args(["ca", "rotate", "--step", step, "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_rotates_the_root_of_a_cluster_step_by_step() {
    let cluster = control_plane().await;
    let client = cluster.client().await.unwrap();
    let refused = rotate(&cluster, "prepare").unwrap_err();
    assert!(
        refused.contains("istio-system/istio-ca-secret"),
        "{refused}"
    );
    let store = SecretStore::new(client, SYSTEM, Handle::current());
    let source = Source::Own(Arc::new(store.clone()));
    let running = authority();
    root_store::start(source.clone(), Arc::clone(&running))
        .await
        .unwrap();
    let first = running.bundle().unwrap().pem().to_owned();
    let foreign = r#"{"data":{"theirs":"bWluZQ=="}}"#;
    let name = root_store::SECRET_NAME;
    cluster
        .kubectl(&["patch", "secret", name, "-n", SYSTEM, "-p", foreign])
        .unwrap();
    let reloaded = async || {
        let (source, to) = (source.clone(), Arc::clone(&running));
        blocking(move || source.reload(&to, SystemTime::now()))
            .await
            .unwrap();
        running.bundle().unwrap()
    };

    let early = rotate(&cluster, "switch").unwrap_err();
    assert!(early.contains("prepare"), "{early}");
    assert!(
        rotate(&cluster, "prepare")
            .unwrap()
            .contains("--step switch")
    );
    assert_eq!(reloaded().await.root_count(), 2);
    rotate(&cluster, "switch").unwrap();
    assert_eq!(reloaded().await.root_count(), 2);
    let said = rotate(&cluster, "finish").unwrap();
    assert!(said.contains("only the new root"), "{said}");
    let last = reloaded().await;
    assert!(last.root_count() == 1 && last.pem() != first);
    // What is of others in the Secret, and its type, stay.
    assert_eq!(secret(&cluster, ".type"), root_store::SECRET_TYPE);
    assert_eq!(secret(&cluster, ".data.theirs"), "bWluZQ==");
}
