//! A real API server as the source: what it serves, loses, refuses and forgets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use kube_io::client::{ClientOptions, connect};
use kube_io::source::{SourceConfig, run};
use kube_io::{Health, KindState, Observed};
use model::object::Input;
use model::{Finding, Kind, ObjectKey};
use pipeline::{MeshDefaults, Pipeline};
use testkit::cluster::{Cluster, Part};
use testkit::wait;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use common::relay::Relay;
use common::replica::kubeconfig;
use common::{SOON, apply_definitions, control_plane};

const PODS_COUNT: usize = 5_000;

/// What came of a source, and what a pipeline made of it.
struct State {
    pipeline: Pipeline,
    generations: u64,
    names: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    resyncs: usize,
    findings: Vec<Finding>,
    /// The batches that led to a snapshot, for who asks why.
    reasons: Vec<String>,
}

/// Takes what sources send.
struct Sink {
    state: Arc<Mutex<State>>,
    sender: mpsc::Sender<Vec<Input>>,
}

/// A source that runs.
struct Source {
    health: Health,
    stop: CancellationToken,
    task: JoinHandle<Result<(), kube_io::source::SourceError>>,
}

fn summary(input: &Input) -> String {
    match input {
        Input::Resync(kind, list) => format!("{} {kind}", list.len()),
        Input::Upsert(object) => format!("{object:?}"),
        Input::Delete(kind, key) => format!("no {kind} {key}"),
        other => format!("{other:?}"),
    }
}

// === impl State ===

impl State {
    fn apply(&mut self, batch: Vec<Input>) {
        for input in &batch {
            match input {
                Input::Resync(kind, list) => {
                    self.resyncs += 1;
                    let keys = list.iter().map(|object| object.meta().key.clone());
                    self.names.insert(*kind, keys.collect());
                }
                Input::Upsert(object) => {
                    let names = self.names.entry(object.kind()).or_default();
                    names.insert(object.meta().key.clone());
                }
                Input::Delete(kind, key) => {
                    self.names.entry(*kind).or_default().remove(key);
                }
                Input::SourceFindings(_, findings) => self.findings.clone_from(findings),
                _ => {}
            }
        }
        let mut reason: Vec<String> = batch.iter().map(summary).collect();
        reason.truncate(20);
        if self.pipeline.apply(batch).is_some() {
            self.generations += 1;
            self.reasons.push(reason.join(", "));
        }
    }

    fn has(&self, kind: Kind, ns: &str, name: &str) -> bool {
        let names = self.names.get(&kind);
        names.is_some_and(|names| names.contains(&ObjectKey::new(ns, name)))
    }

    fn count(&self, kind: Kind, ns: &str) -> usize {
        let names = self.names.get(&kind).into_iter().flatten();
        names.filter(|key| key.ns == ns).count()
    }
}

// === impl Sink ===

impl Sink {
    fn new() -> Self {
        let state = Arc::new(Mutex::new(State {
            pipeline: Pipeline::new(MeshDefaults::default()),
            generations: 0,
            names: BTreeMap::new(),
            resyncs: 0,
            findings: Vec::new(),
            reasons: Vec::new(),
        }));
        let (sender, mut inputs) = mpsc::channel(16);
        let taken = state.clone();
        tokio::spawn(async move {
            while let Some(batch) = inputs.recv().await {
                taken.lock().unwrap().apply(batch);
            }
        });
        Self { state, sender }
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    async fn until(&self, claim: &str, holds: impl Fn(&State) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        wait::until(claim, SOON, || {
            let holds = self.look(&holds);
            async move {
                ensure!(holds, "not yet");
                Ok(())
            }
        })
        .await?;
        println!("{claim}: after {:?}", began.elapsed());
        Ok(())
    }

    /// The number of snapshots once no more of them come.
    async fn settled(&self) -> u64 {
        let mut before = self.look(|state| state.generations);
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = self.look(|state| state.generations);
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

// === impl Source ===

impl Source {
    async fn start(kubeconfig: &Path, sink: &Sink) -> anyhow::Result<Self> {
        let options = ClientOptions {
            kubeconfig: Some(kubeconfig.into()),
            ..ClientOptions::default()
        };
        let config = SourceConfig {
            mesh_config_file: None,
            request_timeout: Duration::from_secs(3),
            // The API server ends them, so silence for longer is strange.
            watch_timeout: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(6),
            retry_max: Duration::from_secs(2),
            ..SourceConfig::new(connect(&options).await?)
        };
        let (health, stop) = (Health::default(), CancellationToken::new());
        let task = tokio::spawn(run(
            config,
            sink.sender.clone(),
            Observed::default(),
            health.clone(),
            stop.clone(),
        ));
        Ok(Self { health, stop, task })
    }

    fn states(&self) -> BTreeMap<Kind, KindState> {
        let kinds = self.health.kinds().into_iter();
        kinds.map(|(kind, health)| (kind, health.state)).collect()
    }

    async fn until_states(&self, claim: &str, state: KindState) -> anyhow::Result<()> {
        let began = Instant::now();
        wait::until(claim, SOON, || {
            let states = self.states();
            let state = state.clone();
            async move {
                let others = states.iter().filter(|(kind, now)| {
                    **now != state && **now != KindState::Absent && **kind != Kind::MeshConfig
                });
                let others: Vec<_> = others.collect();
                ensure!(others.is_empty(), "{others:?}");
                Ok(())
            }
        })
        .await?;
        println!("{claim}: after {:?}", began.elapsed());
        Ok(())
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task).await???;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_a_source_whatever_happens_to_it() -> anyhow::Result<()> {
    let cluster = control_plane().await?;
    let line = Relay::start(&cluster, true).await?;
    let path = kubeconfig(&cluster, "through-a-line", None, Some(line.address()))?;

    let sink = Sink::new();
    let source = Source::start(&path, &sink).await?;
    sink.until("the first lists", |state| state.generations > 0)
        .await?;
    kinds_come_and_go(&cluster, &sink).await?;
    restarts_change_nothing(&cluster, &sink, &source).await?;
    a_frozen_server_is_noticed(&cluster, &sink, &source).await?;
    what_happens_while_cut_off_is_seen(&cluster, &sink, &line).await?;
    source.end().await?;
    lists_that_are_delivered_again_change_nothing(&path, &sink).await?;
    what_may_not_be_read_is_told(&cluster).await
}

async fn kinds_come_and_go(cluster: &Cluster, sink: &Sink) -> anyhow::Result<()> {
    let policy = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
        metadata: {name: late, namespace: default}, spec: {action: DENY}}";
    let filter = "{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, \
        metadata: {name: filter, namespace: default}, spec: {}}";
    apply_definitions(cluster)?;
    cluster.apply(policy)?;
    cluster.apply(filter)?;
    let seen = |state: &State| state.has(Kind::AuthorizationPolicy, "default", "late");
    sink.until("a kind that is new", seen).await?;
    let told = |state: &State| {
        let mut all = state.findings.iter();
        all.any(|finding| {
            finding.code == "kind-not-supported" && finding.object.key.name == "filter"
        })
    };
    sink.until("an object that has no effect", told).await?;
    cluster.kubectl(&["delete", "crd", "authorizationpolicies.security.istio.io"])?;
    sink.until("a kind that is gone", |state| !seen(state))
        .await?;
    cluster.kubectl(&["delete", "crd", "envoyfilters.networking.istio.io"])?;
    sink.until("findings that are gone", |state| !told(state))
        .await?;
    apply_definitions(cluster)?;
    cluster.apply(policy)?;
    sink.until("a kind that is back", seen).await?;
    Ok(())
}

async fn restarts_change_nothing(
    cluster: &Cluster,
    sink: &Sink,
    source: &Source,
) -> anyhow::Result<()> {
    for (part, name) in [(Part::ApiServer, "one"), (Part::Etcd, "two")] {
        let before = sink.settled().await;
        cluster.kill(&part)?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        cluster.start_part(&part)?;
        // An API server may have given up without its store.
        let _ = cluster.start_part(&Part::ApiServer);
        let ready = ["get", "--raw", "/readyz"];
        cluster.wait_for(&ready, SOON, |_| Ok(())).await?;
        source
            .until_states(&format!("watches after {part}"), KindState::Watching)
            .await?;
        let after = sink.settled().await;
        let reason = sink.look(|state| state.reasons.last().cloned());
        ensure!(
            after == before,
            "{part}: {before} snapshots, then {after}: {reason:?}"
        );
        cluster.kubectl(&["create", "namespace", name])?;
        let seen = |state: &State| state.has(Kind::Namespace, "", name);
        sink.until("what was written after it", seen).await?;
        // Of the controller manager, which takes longer to come back; it is served to proxies.
        let root = |state: &State| state.has(Kind::ConfigMap, name, "kube-root-ca.crt");
        sink.until("the root of the cluster in it", root).await?;
    }
    Ok(())
}

async fn a_frozen_server_is_noticed(
    cluster: &Cluster,
    sink: &Sink,
    source: &Source,
) -> anyhow::Result<()> {
    let before = sink.settled().await;
    cluster.stop_part(&Part::ApiServer)?;
    let noticed = source
        .until_states("a frozen server", KindState::Failing)
        .await;
    cluster.cont(&Part::ApiServer)?;
    noticed?;
    source
        .until_states("one that goes on", KindState::Watching)
        .await?;
    ensure!(sink.settled().await == before, "it changed something");
    Ok(())
}

async fn what_happens_while_cut_off_is_seen(
    cluster: &Cluster,
    sink: &Sink,
    line: &Relay,
) -> anyhow::Result<()> {
    cluster.kubectl(&["create", "namespace", "many"])?;
    let account = ["-n", "many", "get", "serviceaccount", "default"];
    cluster.wait_for(&account, SOON, |_| Ok(())).await?;
    sink.until("the namespace", |state| {
        state.has(Kind::Namespace, "", "many")
    })
    .await?;
    line.close();
    let began = Instant::now();
    let client = cluster.client().await?;
    let mut tasks = JoinSet::new();
    for worker in 0..16 {
        let client = client.clone();
        tasks.spawn(async move { create_pods(client, worker).await });
    }
    while let Some(created) = tasks.join_next().await {
        created??;
    }
    println!("{PODS_COUNT} pods created in {:?}", began.elapsed());
    ensure!(
        sink.look(|state| state.count(Kind::Pod, "many")) == 0,
        "it is cut off"
    );
    let lists = sink.look(|state| state.resyncs);
    line.open();
    sink.until("all pods", |state| {
        state.count(Kind::Pod, "many") == PODS_COUNT
    })
    .await?;
    let lists = sink.look(|state| state.resyncs) - lists;
    println!("{lists} lists were delivered again");
    Ok(())
}

async fn create_pods(client: kube::Client, worker: usize) -> anyhow::Result<()> {
    use k8s_openapi::api::core::v1::Pod;
    let pods: kube::Api<Pod> = kube::Api::namespaced(client, "many");
    for i in (worker..PODS_COUNT).step_by(16) {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": format!("p{i}"), "labels": {"app": "many"}},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
        }))?;
        pods.create(&kube::api::PostParams::default(), &pod).await?;
    }
    Ok(())
}

async fn lists_that_are_delivered_again_change_nothing(
    path: &Path,
    sink: &Sink,
) -> anyhow::Result<()> {
    let before = sink.settled().await;
    let lists = sink.look(|state| state.resyncs);
    let source = Source::start(path, sink).await?;
    let all = Kind::ALL.len();
    sink.until("all lists again", |state| state.resyncs >= lists + all)
        .await?;
    ensure!(
        sink.settled().await == before,
        "equal lists changed something"
    );
    source.end().await
}

const PARTIAL: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: partial, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: partial}
rules:
- apiGroups: ['']
  resources: [namespaces, pods, services, secrets, configmaps]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io, apiextensions.k8s.io, gateway.networking.k8s.io,
    security.istio.io, telemetry.istio.io, extensions.istio.io]
  resources: ['*']
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io]
  resources: [serviceentries, workloadentries]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: partial}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: partial}
subjects: [{kind: ServiceAccount, name: partial, namespace: default}]
";

async fn what_may_not_be_read_is_told(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(PARTIAL)?;
    let token = cluster.kubectl(&["create", "token", "partial"])?;
    let path = kubeconfig(cluster, "partial", Some(token.trim()), None)?;
    let sink = Sink::new();
    let source = Source::start(&path, &sink).await?;
    let refused = |state: &State, kind: &str| {
        let mut all = state.findings.iter();
        all.any(|finding| finding.code == "kube-forbidden" && finding.object.kind == kind)
    };
    let both = |state: &State| refused(state, "Node") && refused(state, "DestinationRule");
    sink.until("both findings", both).await?;
    let waiting = |state: &State| -> BTreeSet<Kind> { state.pipeline.waiting().collect() };
    let needed = BTreeSet::from([Kind::VirtualService, Kind::DestinationRule]);
    sink.until("all that may be read", |state| waiting(state) == needed)
        .await?;
    let grant = r#"[{"op": "add", "path": "/rules/-", "value": {"apiGroups": ["networking.istio.io"],
        "resources": ["*"], "verbs": ["get", "list", "watch"]}}]"#;
    cluster.kubectl(&[
        "patch",
        "clusterrole",
        "partial",
        "--type=json",
        "-p",
        grant,
    ])?;
    sink.until("readiness", |state| state.generations > 0)
        .await?;
    sink.until("the one finding that is left", |state| {
        refused(state, "Node") && !refused(state, "DestinationRule")
    })
    .await?;
    ensure!(source.states()[&Kind::Node] == KindState::Forbidden);
    source.end().await
}
