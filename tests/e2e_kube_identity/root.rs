//! The root in a Secret: who makes it, keeps it and takes it as it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use ca::root::{self, RootStore as _};
use ca::{CaError, Source};
use kube_io::root_store::{self, SecretStore};
use testkit::cluster::Cluster;
use testkit::wait;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::common::SYSTEM;
use super::{authority, control_plane};

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(crate) fn secret(cluster: &Cluster, path: &str) -> String {
    let output = format!("jsonpath={{{path}}}");
    let args = [
        "get",
        "secret",
        root_store::SECRET_NAME,
        "-n",
        SYSTEM,
        "-o",
        &output,
    ];
    cluster.kubectl(&args).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_in_a_secret_is_created_once_kept_and_rotated() {
    let cluster = control_plane().await;
    let client = cluster.client().await.unwrap();
    let store = SecretStore::new(client.clone(), SYSTEM, Handle::current());
    let source = Source::Own(Arc::new(store.clone()));

    // Ten replicas start at once, and all of them sign with one root.
    let replicas: Vec<_> = (0..10)
        .map(|_| (source.clone(), authority()))
        .map(|(source, authority)| async move {
            root_store::start(source, Arc::clone(&authority))
                .await
                .unwrap();
            authority
        })
        .map(tokio::spawn)
        .collect();
    let mut bundles = Vec::new();
    let mut running = authority();
    for replica in replicas {
        running = replica.await.unwrap();
        bundles.push(running.bundle().unwrap().pem().to_owned());
    }
    bundles.dedup();
    assert_eq!(bundles.len(), 1);
    assert_eq!(secret(&cluster, ".type"), root_store::SECRET_TYPE);
    assert_eq!(secret(&cluster, r".data.cert-chain\.pem"), "");
    assert_eq!(
        secret(&cluster, r".data.ca-cert\.pem"),
        secret(&cluster, r".data.root-cert\.pem")
    );

    // A change by somebody else is told at once.
    let changed = Arc::new(Notify::new());
    let following = tokio::spawn({
        let (client, changed) = (client.clone(), Arc::clone(&changed));
        async move { root_store::follow(client, SYSTEM, changed).await }
    });
    changed.notified().await;
    let followed = tokio::spawn(ca::follow(
        source.clone(),
        Arc::clone(&changed),
        Arc::clone(&running),
    ));

    let kept = store.clone();
    blocking(move || root::prepare(&kept, None, SystemTime::now()))
        .await
        .unwrap();
    wait::until(
        "both roots are trusted",
        Duration::from_secs(30),
        || async {
            let count = running.bundle().unwrap().root_count();
            ensure!(count == 2, "{count} roots");
            Ok(())
        },
    )
    .await
    .unwrap();
    let kept = store.clone();
    blocking(move || {
        // A writer who read before somebody else wrote changes nothing.
        let stale = kept.load().unwrap().unwrap();
        root::switch(&kept).unwrap();
        let conflict = kept.replace(&stale, &stale);
        assert!(matches!(conflict, Err(CaError::Conflict)), "{conflict:?}");
        let now = kept.load().unwrap().unwrap();
        assert!(now.previous_key_pem.is_some());
        root::finish(&kept).unwrap();
    })
    .await;
    let renewed = secret(&cluster, r".data.root-cert\.pem");
    assert_eq!(secret(&cluster, r".data.ca-cert\.pem"), renewed);
    wait::until(
        "the new root alone is trusted",
        Duration::from_secs(30),
        || async {
            let bundle = running.bundle().unwrap();
            ensure!(
                bundle.root_count() == 1 && bundle.pem() != bundles[0],
                "not yet"
            );
            Ok(())
        },
    )
    .await
    .unwrap();
    following.abort();
    followed.abort();

    // Garbage is left as it is.
    let patch = r#"{"stringData":{"ca-key.pem":"garbage"}}"#;
    let args = [
        "patch",
        "secret",
        root_store::SECRET_NAME,
        "-n",
        SYSTEM,
        "--type=merge",
        "-p",
        patch,
    ];
    cluster.kubectl(&args).unwrap();
    let version = secret(&cluster, ".metadata.resourceVersion");
    let error = root_store::start(source.clone(), authority())
        .await
        .unwrap_err();
    assert!(matches!(error, CaError::Corrupt { .. }), "{error}");
    assert_eq!(secret(&cluster, ".metadata.resourceVersion"), version);

    // One that is deleted while we run is not replaced; signing goes on.
    cluster
        .kubectl(&["delete", "secret", root_store::SECRET_NAME, "-n", SYSTEM])
        .unwrap();
    let (reloaded, to) = (source.clone(), Arc::clone(&running));
    let error = blocking(move || reloaded.reload(&to, SystemTime::now())).await;
    assert!(
        matches!(error, Err(CaError::Incomplete { .. })),
        "{error:?}"
    );
    assert!(
        running
            .issue_server(&["a.example"], &[], SystemTime::now())
            .is_ok()
    );
    assert!(
        cluster
            .kubectl(&["get", "secret", root_store::SECRET_NAME, "-n", SYSTEM])
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_of_istiod_is_adopted_as_it_is() {
    let cluster = control_plane().await;
    let client = cluster.client().await.unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "cluster.local");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let cert = params.self_signed(&key).unwrap().pem();
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root",
        "metadata": {"name": root_store::SECRET_NAME, "namespace": SYSTEM},
        "stringData": {
            "ca-cert.pem": cert, "ca-key.pem": key.serialize_pem(), "root-cert.pem": cert,
            "cert-chain.pem": "", "key.pem": "",
        },
    });
    cluster.apply(&object.to_string()).unwrap();
    let version = secret(&cluster, ".metadata.resourceVersion");
    let store = SecretStore::new(client, SYSTEM, Handle::current());
    let authority = authority();
    let source = Source::Own(Arc::new(store));
    root_store::start(source, Arc::clone(&authority))
        .await
        .unwrap();
    let trim = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(trim(authority.bundle().unwrap().pem()), trim(&cert));
    assert_eq!(secret(&cluster, ".metadata.resourceVersion"), version);
}
