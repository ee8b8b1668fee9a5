//! A cluster with something in it, replicas of it, and who may ask them what.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use testkit::ads::XdsTarget;
use testkit::cluster::Cluster;
use testkit::wait;
use testkit::ztunnel::{MeshState, Ztunnel};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::common::replica::Replica;
use crate::common::{self, SOON, SYSTEM, get, prepared, xds};

/// The lease that says who writes.
const LEASE: &str = "istio-status-leader";

const WORLD: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, seen: 'yes'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: dark, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: lamp, namespace: dark}
spec: {selector: {app: lamp}, ports: [{port: 80, name: http}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: waypoint, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
";

pub(super) async fn world() -> anyhow::Result<Cluster> {
    let cluster = prepared().await?;
    let applied = wait::until("the world to be taken", SOON, || {
        let applied = cluster.apply(WORLD);
        async { applied }
    });
    applied.await?;
    Ok(cluster)
}

/// Adds a Service.
pub(super) fn add_service(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"port": 80, "name": "http"}]},
    });
    cluster.apply(&object.to_string()).map(drop)
}

pub(super) fn has_service(state: &MeshState, ns: &str, name: &str) -> bool {
    let part = format!("{ns}/{name}.");
    state.services.keys().any(|key| key.starts_with(&part))
}

/// Starts one with a short lease, and waits until it leads and its roots are there.
pub(super) async fn start_leader(
    cluster: &Cluster,
    name: &str,
    flags: &[&str],
) -> anyhow::Result<Replica> {
    let replica = Replica::start(cluster, name, flags)?;
    replica.wait_well(SOON).await?;
    wait::until(&format!("{name} to lead"), SOON, || async {
        ensure!(replica.leads().await?, "it does not");
        Ok(())
    })
    .await?;
    let map = ["-n", "shop", "get", "configmap", "istio-ca-root-cert"];
    cluster.wait_for(&map, SOON, |_| Ok(())).await?;
    Ok(replica)
}

pub(super) fn holder(cluster: &Cluster) -> anyhow::Result<String> {
    let lease = get(cluster, SYSTEM, &["lease", LEASE])?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    Ok(holder.unwrap_or_default().to_owned())
}

/// Where a replica serves whoever shows a token of an account.
pub(super) fn target(
    cluster: &Cluster,
    replica: &Replica,
    ns: &str,
    account: &str,
) -> anyhow::Result<XdsTarget> {
    let token = common::token(cluster, ns, account)?;
    xds(cluster, replica.secure, token)
}

/// Names that a client was told since it had received so many responses.
pub(super) fn told(client: &Ztunnel, since: usize) -> BTreeSet<String> {
    let received = client.received();
    let new = received[since..].iter();
    new.flat_map(|one| one.names.iter().chain(&one.removed).cloned())
        .collect()
}

pub(super) fn token_of(target: &XdsTarget) -> Option<&str> {
    match target {
        XdsTarget::Anonymous { token, .. } => token.as_deref(),
        _ => None,
    }
}

// === Certificates ===

// === Certificates ===

/// A certificate with its chain, and the key that it is for.
pub(super) struct Signed {
    pub(super) chain: Vec<String>,
    pub(super) key: String,
}

/// Has the key of a new request signed.
pub(super) async fn sign(channel: Channel, token: Option<&str>) -> Result<Signed, Status> {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key);
    let mut request = Request::new(IstioCertificateRequest {
        csr: csr.unwrap().pem().unwrap(),
        validity_duration: 3600,
        metadata: None,
    });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = IstioCertificateServiceClient::new(channel);
    let answer = tokio::time::timeout(SOON, client.create_certificate(request));
    let answer = answer.await.expect("an answer")?;
    Ok(Signed {
        chain: answer.into_inner().cert_chain,
        key: key.serialize_pem(),
    })
}

/// The roots that workloads are given.
pub(super) fn roots(cluster: &Cluster) -> anyhow::Result<String> {
    let map = get(cluster, "shop", &["configmap", "istio-ca-root-cert"])?;
    let root = map["data"]["root-cert.pem"].as_str();
    Ok(root.context("no root")?.to_owned())
}

/// Whose a certificate is, if those who know these roots believe it.
pub(super) fn believed(roots: &str, signed: &Signed) -> anyhow::Result<String> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
    let chain = signed.chain.iter();
    let chain = chain.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let (leaf, rest) = chain.split_first().context("no certificate")?;
    let verifier = verifier.build()?;
    verifier.verify_client_cert(leaf, rest, UnixTime::now())?;
    Ok(ca::peer_spiffe_id(leaf)?.to_string())
}

/// That a replica signs for an account, and is believed.
pub(super) async fn signs(
    cluster: &Cluster,
    replica: &Replica,
    ns: &str,
    account: &str,
) -> anyhow::Result<Signed> {
    let target = target(cluster, replica, ns, account)?;
    let signed = sign(target.channel().await?, token_of(&target)).await?;
    let id = believed(&roots(cluster)?, &signed)?;
    ensure!(
        id == format!("spiffe://cluster.local/ns/{ns}/sa/{account}"),
        "{id}"
    );
    Ok(signed)
}
