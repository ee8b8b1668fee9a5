//! `ambientd serve` of a cluster as a whole, with clients that stay: how it ends, what they notice
//! of an outage, of the mesh config, and of another replica.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::type_url::{ADDRESS, CLUSTER};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use testkit::ads::{DeltaClient, SotwClient, XdsTarget, waypoint_node, ztunnel_node};
use testkit::cluster::{Cluster, Part};
use testkit::hbone::Identity;
use testkit::wait;
use testkit::ztunnel::{MeshState, Ztunnel};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use common::relay::Relay;
use common::replica::Replica;
use common::{SOON, SYSTEM, apply_account, apply_definitions, control_plane, get, writes, xds};

/// Longer than a test.
const LONG: &str = "--shutdown-duration=10m";
/// The lease that says who writes.
const LEASE: &str = "istio-status-leader";
/// Clients that are sent away one after the other.
const CLIENTS: usize = 8;

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

async fn world() -> anyhow::Result<Cluster> {
    let cluster = control_plane().await?;
    apply_definitions(&cluster)?;
    apply_account(&cluster)?;
    let applied = wait::until("the world to be taken", SOON, || {
        let applied = cluster.apply(WORLD);
        async { applied }
    });
    applied.await?;
    Ok(cluster)
}

/// Adds a Service.
fn add_service(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"port": 80, "name": "http"}]},
    });
    cluster.apply(&object.to_string()).map(drop)
}

fn has_service(state: &MeshState, ns: &str, name: &str) -> bool {
    let part = format!("{ns}/{name}.");
    state.services.keys().any(|key| key.starts_with(&part))
}

/// Starts one with a short lease, and waits until it leads and its roots are there.
async fn start_leader(cluster: &Cluster, name: &str, flags: &[&str]) -> anyhow::Result<Replica> {
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

fn holder(cluster: &Cluster) -> anyhow::Result<String> {
    let lease = get(cluster, SYSTEM, &["lease", LEASE])?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    Ok(holder.unwrap_or_default().to_owned())
}

/// Where a replica serves whoever shows a token of an account.
fn target(
    cluster: &Cluster,
    replica: &Replica,
    ns: &str,
    account: &str,
) -> anyhow::Result<XdsTarget> {
    let token = common::token(cluster, ns, account)?;
    xds(cluster, replica.secure, token)
}

fn token_of(target: &XdsTarget) -> Option<&str> {
    match target {
        XdsTarget::Anonymous { token, .. } => token.as_deref(),
        _ => None,
    }
}

// === Certificates ===

/// A certificate with its chain, and the key that it is for.
struct Signed {
    chain: Vec<String>,
    key: String,
}

/// Has the key of a new request signed.
async fn sign(channel: Channel, token: Option<&str>) -> Result<Signed, Status> {
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
fn roots(cluster: &Cluster) -> anyhow::Result<String> {
    let map = get(cluster, "shop", &["configmap", "istio-ca-root-cert"])?;
    let root = map["data"]["root-cert.pem"].as_str();
    Ok(root.context("no root")?.to_owned())
}

/// Whose a certificate is, if those who know these roots believe it.
fn believed(roots: &str, signed: &Signed) -> anyhow::Result<String> {
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
async fn signs(
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

// === Streams ===

/// What came on a stream so far, and with which code it ended.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    responses: usize,
    /// The resources of the last response.
    last: String,
    end: Option<Code>,
}

type Held = watch::Receiver<Seen>;

fn code(error: &anyhow::Error) -> Code {
    error
        .downcast_ref::<Status>()
        .map_or(Code::Ok, Status::code)
}

/// A ztunnel's stream, which is not opened again.
async fn hold_delta(target: &XdsTarget) -> anyhow::Result<Held> {
    let mut stream = DeltaClient::connect(target, ztunnel_node("n1")).await?;
    stream.subscribe(ADDRESS, &[]).await?;
    let (sender, mut held) = watch::channel(Seen::default());
    tokio::spawn(async move {
        loop {
            match stream.next().await {
                Ok(response) => {
                    let names = response.resources.iter().map(|one| one.name.clone());
                    sender.send_modify(|seen| {
                        seen.names.extend(names);
                        seen.responses += 1;
                    });
                    let _ = stream.ack(&response).await;
                }
                Err(error) => {
                    sender.send_modify(|seen| seen.end = Some(code(&error)));
                    return;
                }
            }
        }
    });
    tokio::time::timeout(SOON, held.wait_for(|seen| seen.responses > 0)).await??;
    Ok(held)
}

/// The stream of an Envoy that asks for the state of the world.
async fn hold_sotw(target: &XdsTarget) -> anyhow::Result<Held> {
    let node = waypoint_node("shop", "waypoint", "10.1.0.1");
    let mut stream = SotwClient::connect(target, node).await?;
    stream.subscribe(CLUSTER, &[]).await?;
    let (sender, mut held) = watch::channel(Seen::default());
    tokio::spawn(async move {
        loop {
            match stream.next_response(Duration::from_secs(600)).await {
                Ok(response) => {
                    let all = response.resources.iter().map(|any| any.value.as_slice());
                    let last = all.collect::<Vec<_>>().concat();
                    sender.send_modify(|seen| {
                        seen.last = String::from_utf8_lossy(&last).into_owned();
                        seen.responses += 1;
                    });
                    let _ = stream.ack(&response).await;
                }
                Err(error) => {
                    sender.send_modify(|seen| seen.end = Some(code(&error)));
                    return;
                }
            }
        }
    });
    tokio::time::timeout(SOON, held.wait_for(|seen| seen.responses > 0)).await??;
    Ok(held)
}

/// Waits for something that is true of one of them.
async fn any(what: &str, all: &[Held], is_so: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
    wait::until(what, SOON, || {
        let found = all.iter().any(|held| is_so(&held.borrow()));
        async move {
            ensure!(found, "none");
            Ok(())
        }
    })
    .await
}

// === Ends ===

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_sends_clients_away_by_and_by_and_hands_over() -> anyhow::Result<()> {
    let cluster = world().await?;
    let flags = ["--lease-duration=40s", "--shutdown-duration=30s"];
    let mut one = start_leader(&cluster, "one", &flags).await?;
    let two = Replica::start(&cluster, "two", &flags)?;
    two.wait_well(SOON).await?;
    for replica in [&one, &two] {
        signs(&cluster, replica, "shop", "web").await?;
    }
    let ztunnels = [&one, &two].map(|to| target(&cluster, to, SYSTEM, "ztunnel").unwrap());
    let waypoint = target(&cluster, &one, "shop", "waypoint")?;
    let mut held = Vec::new();
    for at in 0..CLIENTS {
        held.push(match at % 4 {
            3 => hold_sotw(&waypoint).await?,
            _ => hold_delta(&ztunnels[0]).await?,
        });
    }
    // One that goes where it is served.
    let (dialled, targets) = (AtomicUsize::new(0), ztunnels.clone());
    let dial = move || Ok(targets[dialled.fetch_add(1, Ordering::Relaxed).min(1)].clone());
    let mover = Ztunnel::start_with(dial, ztunnel_node("n2"));
    mover.wait_synced(1, SOON).await?;

    one.terminate()?;
    any("the first to be sent away", &held, |seen| {
        seen.end.is_some()
    })
    .await?;
    wait::until("nobody new to be let in", SOON, || async {
        ensure!(TcpStream::connect(one.secure).await.is_err(), "let in");
        Ok(())
    })
    .await?;
    let (status, text) = one.ready().await?;
    ensure!(status == 503 && text.contains("[-] stopping"), "{text}");
    add_service(&cluster, "edited")?;
    let is_edit = |name: &String| name.starts_with("shop/edited.");
    any("one that stays to be told of an edit", &held, |seen| {
        seen.names.iter().any(is_edit)
    })
    .await?;
    for one in &mut held {
        let ended = one.wait_for(|seen| seen.end.is_some());
        let end = tokio::time::timeout(SOON, ended).await??.end;
        ensure!(end == Some(Code::Unavailable), "{end:?}");
    }
    let status = one.ended(SOON).await?;
    ensure!(status.success(), "{status}: {}", one.log());
    let now = holder(&cluster)?;
    ensure!(now.is_empty() || now == two.name, "{now} leads");

    // What it holds already is not sent again.
    mover.wait_synced(2, SOON).await?;
    mover
        .wait(SOON, |state, _| has_service(state, "shop", "edited"))
        .await?;
    for one in mover.received().iter().filter(|one| one.connection > 1) {
        ensure!(one.names.iter().all(is_edit), "{one:?}");
        ensure!(one.removed.is_empty(), "{one:?}");
    }
    the_other_goes_on(&cluster, &one, &two).await
}

/// That one replica wrote all there was, and the next does so now.
async fn the_other_goes_on(cluster: &Cluster, one: &Replica, two: &Replica) -> anyhow::Result<()> {
    let all = writes(cluster)?;
    let ends = all.iter().rposition(|it| it.credential == one.credential);
    let begins = all.iter().position(|it| it.credential == two.credential);
    let ends = ends.context("the leader wrote nothing")?;
    ensure!(begins.is_none_or(|begins| begins > ends), "{all:#?}");
    cluster.kubectl(&["create", "namespace", "new"])?;
    let map = ["-n", "new", "get", "configmap", "istio-ca-root-cert"];
    cluster.wait_for(&map, SOON, |_| Ok(())).await?;
    ensure!(two.leads().await?, "who wrote?");
    signs(cluster, two, "shop", "web").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_well_whenever_it_is_asked_to() -> anyhow::Result<()> {
    let cluster = world().await?;
    before_it_is_ready(&cluster).await?;
    when_asked_twice(&cluster).await?;
    while_it_answers(&cluster).await?;
    while_the_api_server_is_silent(&cluster).await?;
    while_the_api_server_is_away(&cluster).await
}

async fn ends_well(replica: &mut Replica) -> anyhow::Result<()> {
    let status = replica.ended(SOON).await?;
    ensure!(status.success(), "{status}: {}", replica.log());
    Ok(())
}

async fn is_stopping(replica: &Replica) -> anyhow::Result<()> {
    wait::until("readiness to end", SOON, || async {
        let (status, text) = replica.ready().await?;
        ensure!(status == 503 && text.contains("[-] stopping"), "{text}");
        Ok(())
    })
    .await
}

async fn before_it_is_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let relay = Relay::start(cluster, false).await?;
    let token = common::replica::token(cluster, &[])?;
    let via = Some(relay.address());
    let mut replica = Replica::start_as(cluster, "early", &token, via, &[LONG])?;
    wait::until("it to wait", SOON, || async {
        let (status, text) = replica.ready().await?;
        ensure!(status == 503 && text.contains("[-] snapshot"), "{text}");
        Ok(())
    })
    .await?;
    replica.terminate()?;
    ends_well(&mut replica).await
}

async fn when_asked_twice(cluster: &Cluster) -> anyhow::Result<()> {
    let mut replica = start_leader(cluster, "asked", &["--lease-duration=6s", LONG]).await?;
    let ztunnel = target(cluster, &replica, SYSTEM, "ztunnel")?;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        held.push(hold_delta(&ztunnel).await?);
    }
    replica.terminate()?;
    is_stopping(&replica).await?;
    // Whoever is next need not wait for those who leave.
    wait::until("the lease to be let go", SOON, || {
        let holder = holder(cluster);
        async {
            ensure!(holder?.is_empty(), "held");
            Ok(())
        }
    })
    .await?;
    any("one to be still there", &held, |seen| seen.end.is_none()).await?;
    replica.terminate()?;
    ends_well(&mut replica).await
}

async fn while_it_answers(cluster: &Cluster) -> anyhow::Result<()> {
    let flags = ["--lease-duration=6s", "--shutdown-duration=20s"];
    let mut replica = start_leader(cluster, "answering", &flags).await?;
    let web = target(cluster, &replica, "shop", "web")?;
    let channel = web.channel().await?;
    let roots = roots(cluster)?;
    // What the token is worth nobody says for a while, but before that is given up.
    cluster.stop_part(&Part::ApiServer)?;
    let asked = {
        let web = web.clone();
        tokio::spawn(async move { sign(channel, token_of(&web)).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    replica.terminate()?;
    let stopping = is_stopping(&replica).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let is_waiting = !asked.is_finished();
    cluster.cont(&Part::ApiServer)?;
    stopping?;
    ensure!(is_waiting, "it was answered by nobody");
    let id = believed(&roots, &asked.await??)?;
    ensure!(id == "spiffe://cluster.local/ns/shop/sa/web", "{id}");
    ends_well(&mut replica).await
}

async fn while_the_api_server_is_silent(cluster: &Cluster) -> anyhow::Result<()> {
    let flags = ["--lease-duration=6s", "--shutdown-duration=5s"];
    let mut replica = start_leader(cluster, "unheard", &flags).await?;
    cluster.stop_part(&Part::ApiServer)?;
    replica.terminate()?;
    let ended = ends_well(&mut replica).await;
    cluster.cont(&Part::ApiServer)?;
    ended
}

async fn while_the_api_server_is_away(cluster: &Cluster) -> anyhow::Result<()> {
    let flags = ["--lease-duration=6s", "--shutdown-duration=5s"];
    let mut replica = start_leader(cluster, "alone", &flags).await?;
    let ztunnel = target(cluster, &replica, SYSTEM, "ztunnel")?;
    let mut held = hold_delta(&ztunnel).await?;
    cluster.kill(&Part::ApiServer)?;
    outage_is_told(&replica).await?;
    replica.terminate()?;
    ends_well(&mut replica).await?;
    let ended = held.wait_for(|seen| seen.end.is_some());
    let end = tokio::time::timeout(SOON, ended).await??.end;
    ensure!(end == Some(Code::Unavailable), "{end:?}");
    Ok(())
}

// === What clients notice ===

async fn outage_is_told(replica: &Replica) -> anyhow::Result<()> {
    wait::until("the outage to be told", SOON, || async {
        let (status, text) = replica.ready().await?;
        let is_told = text.contains("api server: unreachable");
        ensure!(status == 200 && is_told, "{status} {text}");
        Ok(())
    })
    .await
}

/// How long the API server is away, as the metrics have it.
async fn outage_seconds(replica: &Replica) -> anyhow::Result<u64> {
    let metrics = replica.page("/metrics").await?;
    let name = "ambientd_kubernetes_api_outage_seconds ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.context("no such metric")?.parse()?)
}

/// Names that a client was told since it had received so many responses.
fn told(client: &Ztunnel, since: usize) -> BTreeSet<String> {
    let received = client.received();
    let new = received[since..].iter();
    new.flat_map(|one| one.names.iter().chain(&one.removed).cloned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_notice_nothing_of_an_outage_and_what_mesh_config_says_at_once()
-> anyhow::Result<()> {
    let cluster = world().await?;
    let replica = start_leader(&cluster, "one", &["--lease-duration=6s"]).await?;
    others_tokens_are_worth_nothing(&cluster, &replica).await?;
    let ztunnel = target(&cluster, &replica, SYSTEM, "ztunnel")?;
    let client = Ztunnel::start(ztunnel, ztunnel_node("n1"));
    client.wait_synced(1, SOON).await?;
    an_outage_is_not_noticed(&cluster, &replica, &client).await?;
    mesh_config_is_followed(&cluster, &replica, &client).await?;
    ensure!(client.connection() == 1, "{}", client.connection());
    let refused = client.received().into_iter().filter_map(|it| it.refused);
    ensure!(refused.count() == 0, "a response was refused");
    Ok(())
}

async fn others_tokens_are_worth_nothing(
    cluster: &Cluster,
    replica: &Replica,
) -> anyhow::Result<()> {
    let create = ["create", "token", "ztunnel", "-n", SYSTEM];
    let other = cluster.kubectl(&[&create[..], &["--audience=vault"]].concat())?;
    let api = cluster.kubectl(&create)?;
    for token in [other.trim(), api.trim()] {
        let target = xds(cluster, replica.secure, token.to_owned())?;
        let signed = sign(target.channel().await?, Some(token)).await;
        let refused = signed.err().map(|status| status.code());
        ensure!(refused == Some(Code::Unauthenticated), "{refused:?}");
        let stream = hold_delta(&target).await;
        let refused = stream.err().context("it is served")?;
        ensure!(code(&refused) == Code::Unauthenticated, "{refused:#}");
    }
    Ok(())
}

async fn an_outage_is_not_noticed(
    cluster: &Cluster,
    replica: &Replica,
    client: &Ztunnel,
) -> anyhow::Result<()> {
    let signed = signs(cluster, replica, SYSTEM, "ztunnel").await?;
    let known = Identity::from_pem(&signed.chain.concat(), &signed.key, &roots(cluster)?)?;
    let known = XdsTarget::Tls {
        addr: replica.secure,
        server_name: "istiod.istio-system.svc".to_owned(),
        identity: Arc::new(known),
    };
    let unknown = target(cluster, replica, SYSTEM, "ztunnel")?;
    let waypoint = hold_sotw(&target(cluster, replica, "shop", "waypoint")?).await?;
    ensure!(outage_seconds(replica).await? == 0);
    let before = (client.received().len(), waypoint.borrow().responses);

    cluster.kill(&Part::ApiServer)?;
    outage_is_told(replica).await?;
    ensure!(outage_seconds(replica).await? > 0);
    // Whoever has a certificate is served; of a token nobody says what it is worth.
    let other = Ztunnel::start(known.clone(), ztunnel_node("n2"));
    other.wait_synced(1, SOON).await?;
    ensure!(other.state() == client.state());
    sign(known.channel().await?, None).await?;
    let refused = sign(unknown.channel().await?, token_of(&unknown)).await;
    let refused = refused.err().map(|status| status.code());
    ensure!(refused == Some(Code::Unauthenticated), "{refused:?}");

    cluster.start_part(&Part::ApiServer)?;
    cluster.wait_api(SOON).await?;
    replica.wait_well(SOON).await?;
    add_service(cluster, "edited")?;
    client
        .wait(SOON, |state, _| has_service(state, "shop", "edited"))
        .await?;
    let told = told(client, before.0);
    let is_edit = |name: &String| name.starts_with("shop/edited.");
    ensure!(told.iter().all(is_edit), "{told:?}");
    let seen = waypoint.borrow();
    ensure!(seen.end.is_none() && seen.responses == before.1, "a push");
    drop(seen);
    ensure!(outage_seconds(replica).await? == 0);
    for says in ["the API server cannot be reached", "the API server is back"] {
        ensure!(replica.log().contains(says), "{says}");
    }
    Ok(())
}

fn set_mesh(cluster: &Cluster, mesh: &str) -> anyhow::Result<()> {
    let object: Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": SYSTEM}, "data": {"mesh": mesh},
    });
    cluster.apply(&object.to_string()).map(drop)
}

async fn mesh_config_is_followed(
    cluster: &Cluster,
    replica: &Replica,
    client: &Ztunnel,
) -> anyhow::Result<()> {
    let mut waypoint = hold_sotw(&target(cluster, replica, "shop", "waypoint")?).await?;
    let has_alias = |seen: &Seen| seen.last.contains("old.example");
    let before = client.received().len();
    set_mesh(cluster, "trustDomainAliases: [old.example]")?;
    tokio::time::timeout(SOON, waypoint.wait_for(has_alias)).await??;
    // ztunnel is told identities as they are.
    ensure!(client.received().len() == before);

    let seen = "discoverySelectors: [{matchLabels: {seen: 'yes'}}]";
    let both = format!("trustDomainAliases: [old.example]\n{seen}");
    set_mesh(cluster, &both)?;
    client
        .wait(SOON, |state, _| !has_service(state, "dark", "lamp"))
        .await?;
    let state = client.state();
    ensure!(has_service(&state, "shop", "web") && has_alias(&waypoint.borrow()));

    // What cannot be read changes nothing but what is said of it.
    let before = client.received().len();
    set_mesh(cluster, "trustDomainAliases: [")?;
    let kept = "mesh-config-kept";
    wait::until("a finding", SOON, || async {
        let page = replica.page("/debug/findings").await?;
        ensure!(page.contains(kept), "{page}");
        Ok(())
    })
    .await?;
    add_service(cluster, "later")?;
    client
        .wait(SOON, |state, _| has_service(state, "shop", "later"))
        .await?;
    let all = told(client, before);
    let is_later = |name: &String| name.starts_with("shop/later.");
    ensure!(all.iter().all(is_later), "{all:?}");
    ensure!(has_alias(&waypoint.borrow()));

    set_mesh(cluster, seen)?;
    let no_alias = waypoint.wait_for(|seen| !has_alias(seen));
    tokio::time::timeout(SOON, no_alias).await??;
    set_mesh(cluster, "{}")?;
    client
        .wait(SOON, |state, _| has_service(state, "dark", "lamp"))
        .await?;
    let page = replica.page("/debug/findings").await?;
    ensure!(!page.contains(kept), "{page}");
    ensure!(waypoint.borrow().end.is_none());
    Ok(())
}
