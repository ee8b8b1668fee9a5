//! Scripted API servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use kube::Client;
use kube::client::Body;
use model::finding::{Finding, ObjectRef};
use model::object::{Input, Object};
use model::{Kind, ObjectKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use crate::{Health, KindState, Observed};

use super::{SourceConfig, run};

mod doubts;

type Chunk = <Body as HttpBody>::Data;

/// What a scripted server answers.
enum Reply {
    Json(u16, Value),
    /// Lines of a watch, which then stays open and silent.
    Lines(Vec<Value>),
    /// The connection cannot be made.
    Refused,
    /// No answer at all.
    Never,
}

/// Chunks, then an end or nothing more.
struct ScriptedBody {
    chunks: VecDeque<Chunk>,
    ends: bool,
}

impl HttpBody for ScriptedBody {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        match self.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn status(code: u16) -> Reply {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "scripted", "reason": "Scripted", "code": code});
    Reply::Json(code, body)
}

fn list(version: &str, more: Option<&str>, items: &[Value]) -> Reply {
    let body = json!({"kind": "List", "apiVersion": "v1", "items": items,
        "metadata": {"resourceVersion": version, "continue": more.unwrap_or_default()}});
    Reply::Json(200, body)
}

/// What a server answers that is well and empty.
fn usual(path: &str) -> Reply {
    match path {
        "/readyz" => Reply::Json(200, json!("ok")),
        path if path.contains("watch=true") => Reply::Lines(Vec::new()),
        path if path.starts_with("/api/v1/") || path.contains(".k8s.io/v1/") => {
            list("1", None, &[])
        }
        _ => status(404),
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": version},
        "spec": {"nodeName": "n"}, "status": {"podIP": "10.0.0.1"}})
}

/// A source that runs against a script, and what it delivered.
struct World {
    inputs: mpsc::Receiver<Vec<Input>>,
    health: Health,
    observed: Observed,
    stop: CancellationToken,
    calls: Arc<Mutex<Vec<String>>>,
    objects: BTreeMap<(Kind, ObjectKey), Object>,
    resyncs: BTreeMap<Kind, usize>,
    findings: Vec<Finding>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// `answer` gets path and query, and how often exactly these were asked before.
    fn start(answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(answer, |_| {})
    }

    fn start_with(
        answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
        configure: impl FnOnce(&mut SourceConfig),
    ) -> Self {
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, answer) = (calls.clone(), Arc::new(answer));
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().to_string();
            let before = {
                let mut log = log.lock();
                let before = log.iter().filter(|known| **known == path).count();
                log.push(path.clone());
                before
            };
            let reply = answer(&path, before);
            async move { respond(reply).await }
        });
        let client = Client::new(service, "default");
        let mut config = SourceConfig {
            mesh_config_file: None,
            ..SourceConfig::new(client)
        };
        configure(&mut config);
        let (sender, inputs) = mpsc::channel(4);
        let (health, observed) = (Health::default(), Observed::default());
        let stop = CancellationToken::new();
        tokio::spawn(run(
            config,
            sender,
            observed.clone(),
            health.clone(),
            stop.clone(),
        ));
        Self {
            inputs,
            health,
            observed,
            stop,
            calls,
            objects: BTreeMap::new(),
            resyncs: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    fn take(&mut self, batch: Vec<Input>) {
        for input in batch {
            match input {
                Input::Resync(kind, list) => {
                    *self.resyncs.entry(kind).or_default() += 1;
                    self.objects.retain(|(known, _), _| *known != kind);
                    for object in list {
                        let key = object.meta().key.clone();
                        self.objects.insert((kind, key), object);
                    }
                }
                Input::Upsert(object) => {
                    let key = (object.kind(), object.meta().key.clone());
                    self.objects.insert(key, object);
                }
                Input::Delete(kind, key) => {
                    self.objects.remove(&(kind, key));
                }
                Input::SourceFindings(_, findings) => self.findings = findings,
                _ => panic!("a source does not send this"),
            }
        }
    }

    /// Takes what comes until something holds.
    async fn until(&mut self, claim: &str, holds: impl Fn(&Self) -> bool) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(3600);
        while !holds(self) {
            let step = Duration::from_millis(100);
            match tokio::time::timeout(step, self.inputs.recv()).await {
                Ok(batch) => self.take(batch.expect("the source goes on")),
                Err(_) => assert!(
                    tokio::time::Instant::now() < limit,
                    "{claim}: {:?} {:?} {:?}",
                    self.objects.keys(),
                    self.findings,
                    self.health.kinds()
                ),
            }
        }
    }

    /// Takes what comes for some time.
    async fn pass(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(batch) = tokio::time::timeout_at(end, self.inputs.recv()).await {
            self.take(batch.expect("the source goes on"));
        }
    }

    fn resyncs(&self, kind: Kind) -> usize {
        self.resyncs.get(&kind).copied().unwrap_or_default()
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        let here = self.objects.keys().filter(|(known, _)| *known == kind);
        here.map(|(_, key)| key.name.as_str()).collect()
    }

    fn state(&self, kind: Kind) -> Option<KindState> {
        let kinds = self.health.kinds().into_iter();
        kinds
            .filter(|(known, _)| *known == kind)
            .map(|(_, health)| health.state)
            .next()
    }

    fn codes(&self) -> Vec<(&str, &str)> {
        let all = self.findings.iter();
        all.map(|finding| (finding.code, finding.object.kind.as_str()))
            .collect()
    }

    fn calls(&self, part: &str) -> usize {
        let calls = self.calls.lock();
        calls.iter().filter(|call| call.contains(part)).count()
    }
}

async fn respond(reply: Reply) -> Result<Response<ScriptedBody>, BoxError> {
    let (code, chunks, ends) = match reply {
        Reply::Json(code, value) => (code, vec![value.to_string()], true),
        Reply::Lines(lines) => {
            // The type stands first, as a real server has it.
            let line = |event: &Value| {
                let (kind, object) = (&event["type"], &event["object"]);
                format!("{{\"type\":{kind},\"object\":{object}}}\n")
            };
            (200, lines.iter().map(line).collect(), false)
        }
        Reply::Refused => return Err("connection refused".into()),
        Reply::Never => std::future::pending().await,
    };
    let chunks = chunks
        .into_iter()
        .map(|text| Chunk::from(text.into_bytes()));
    let body = ScriptedBody {
        chunks: chunks.collect(),
        ends,
    };
    Ok(Response::builder().status(code).body(body)?)
}

fn is_pods(path: &str) -> bool {
    path.starts_with("/api/v1/pods?")
}

fn is_watch(path: &str) -> bool {
    path.contains("watch=true")
}

#[tokio::test(start_paused = true)]
async fn pages_are_one_list_and_a_bad_object_costs_only_itself() {
    let mut world = World::start(|path, before| match path {
        path if is_pods(path) && is_watch(path) && before == 0 => Reply::Lines(vec![
            json!({"type": "ADDED", "object": pod("c", "11")}),
            json!({"type": "MODIFIED", "object": {"metadata":
                {"name": "b", "namespace": "default", "resourceVersion": "12"}, "spec": "no"}}),
            json!({"type": "DELETED", "object": {"metadata":
                {"name": "a", "namespace": "default", "resourceVersion": "13"}}}),
        ]),
        path if is_pods(path) && path.contains("continue=second") => list(
            "10",
            None,
            &[
                pod("b", "3"),
                json!(null),
                json!([1]),
                json!({"metadata": {"name": 5}}),
                json!({"metadata": {"name": "Not_A_Name", "namespace": "default"}}),
            ],
        ),
        path if is_pods(path) && !is_watch(path) => list("10", Some("second"), &[pod("a", "2")]),
        path => usual(path),
    });
    world
        .until("the first list", |world| world.resyncs(Kind::Pod) == 1)
        .await;
    world
        .until("what the watch told", |world| {
            world.names(Kind::Pod) == ["b", "c"]
        })
        .await;
    let key = (Kind::Pod, ObjectKey::new("default", "b"));
    assert!(world.objects[&key].invalid().is_some(), "it is a bad row");
    world
        .until("a finding", |world| !world.findings.is_empty())
        .await;
    assert_eq!(world.codes(), [("invalid-name", "Pod")]);
    assert_eq!(world.resyncs(Kind::Pod), 1);
}

#[tokio::test(start_paused = true)]
async fn every_kind_is_delivered_where_nothing_is_installed() {
    let mut world = World::start(|path, _| usual(path));
    world
        .until("a list of every kind", |world| {
            Kind::ALL.iter().all(|kind| world.resyncs(*kind) == 1)
        })
        .await;
    assert_eq!(world.state(Kind::Pod), Some(KindState::Watching));
    assert_eq!(world.state(Kind::Gateway), Some(KindState::Absent));
    assert!(world.findings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn history_that_is_gone_is_listed_anew() {
    let mut world = World::start(|path, before| match path {
        path if is_pods(path) && is_watch(path) && path.contains("resourceVersion=10") => {
            Reply::Lines(vec![json!({"type": "ERROR", "object": {"kind": "Status",
                "status": "Failure", "reason": "Expired", "message": "gone", "code": 410}})])
        }
        path if is_pods(path) && !is_watch(path) => match before {
            0 => list("10", None, &[pod("a", "2"), pod("b", "3")]),
            _ => list("20", None, &[pod("b", "3")]),
        },
        path => usual(path),
    });
    world
        .until("the second list", |world| world.resyncs(Kind::Pod) == 2)
        .await;
    assert_eq!(world.names(Kind::Pod), ["b"]);
    assert_eq!(world.state(Kind::Pod), Some(KindState::Watching));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_starts_too_late_is_listed_anew() {
    let mut world = World::start(|path, before| match path {
        path if is_pods(path) && is_watch(path) && path.contains("resourceVersion=10") => {
            status(410)
        }
        path if is_pods(path) && !is_watch(path) => {
            list(if before == 0 { "10" } else { "20" }, None, &[])
        }
        path => usual(path),
    });
    world
        .until("the second list", |world| world.resyncs(Kind::Pod) == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_told_and_serving_waits_for_what_it_needs() {
    let mut world = World::start(|path, before| match path {
        path if is_pods(path) && !is_watch(path) && before < 12 => status(403),
        path if path.starts_with("/api/v1/nodes?") => status(403),
        path => usual(path),
    });
    world
        .until("both findings", |world| {
            world.codes() == [("kube-forbidden", "Node"), ("kube-forbidden", "Pod")]
        })
        .await;
    assert_eq!(world.resyncs(Kind::Node), 1, "the rest works without nodes");
    assert_eq!(
        world.resyncs(Kind::Pod),
        0,
        "nothing is served without pods"
    );
    assert_eq!(world.resyncs(Kind::Service), 1);
    assert_eq!(world.state(Kind::Pod), Some(KindState::Forbidden));
    let fix = &world.findings[1].fix;
    assert!(
        fix.contains("resources [pods], verbs [get, list, watch]"),
        "{fix}"
    );
    world
        .until("pods", |world| world.resyncs(Kind::Pod) == 1)
        .await;
    world
        .until("one finding less", |world| world.findings.len() == 1)
        .await;
    assert_eq!(world.resyncs(Kind::Node), 1, "it is empty once");
}

#[tokio::test(start_paused = true)]
async fn refusals_of_a_moment_take_nothing_and_are_not_told() {
    let mut world = World::start(|path, before| match path {
        path if is_pods(path) && !is_watch(path) && before < 2 => status(403),
        path if path.starts_with("/api/v1/nodes?") && before < 2 => status(403),
        path if path.starts_with("/api/v1/services?") && is_watch(path) && before < 2 => {
            status(403)
        }
        path => usual(path),
    });
    world
        .until("all of them", |world| {
            let kinds = [Kind::Pod, Kind::Node, Kind::Service];
            let watched = |kind| world.state(kind) == Some(KindState::Watching);
            kinds.into_iter().all(watched) && world.resyncs(Kind::Pod) == 1
        })
        .await;
    assert_eq!(world.resyncs(Kind::Node), 1);
    assert_eq!(world.resyncs(Kind::Service), 1);
    assert!(world.findings.is_empty(), "{:?}", world.codes());
}

#[tokio::test(start_paused = true)]
async fn where_only_watches_are_refused_lists_are_repeated() {
    let mut world = World::start(|path, _| match path {
        path if is_pods(path) && is_watch(path) => status(403),
        path => usual(path),
    });
    world
        .until("three lists", |world| world.resyncs(Kind::Pod) == 3)
        .await;
    world
        .until("the finding", |world| world.findings.len() == 1)
        .await;
    assert!(world.findings[0].message.contains("refuses to watch pods"));
    assert_eq!(world.state(Kind::Pod), Some(KindState::Forbidden));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_takes_nothing_and_a_silent_one_is_noticed() {
    let away = Arc::new(Mutex::new(false));
    let is_away = away.clone();
    let mut world = World::start(move |path, _| match path {
        _ if *is_away.lock() && is_watch(path) => Reply::Refused,
        _ if *is_away.lock() => Reply::Never,
        path if is_pods(path) && !is_watch(path) => list("10", None, &[pod("a", "2")]),
        path => usual(path),
    });
    world
        .until("every kind", |world| world.resyncs.len() == Kind::ALL.len())
        .await;
    let watches = world.calls("/api/v1/pods?&watch=true");
    assert_eq!(watches, 1);
    // Nothing is heard: the watch is begun again, and nothing else is seen of it.
    world.pass(Duration::from_secs(100)).await;
    assert_eq!(world.calls("/api/v1/pods?&watch=true"), 2);
    assert_eq!(world.state(Kind::Pod), Some(KindState::Watching));
    *away.lock() = true;
    world
        .until("that it fails", |world| {
            world.state(Kind::Pod) == Some(KindState::Failing)
        })
        .await;
    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.names(Kind::Pod), ["a"]);
    let tries = world.calls("/api/v1/pods?&watch=true");
    assert!(tries < 400, "backoff: {tries}");
    *away.lock() = false;
    world
        .until("that it works", |world| {
            world.state(Kind::Pod) == Some(KindState::Watching)
        })
        .await;
    assert_eq!(world.resyncs(Kind::Pod), 1);
    assert_eq!(world.state(Kind::Gateway), Some(KindState::Absent));
}

#[tokio::test(start_paused = true)]
async fn definitions_of_early_releases_count_for_nothing_and_say_so() {
    const GROUP: &str = "gateway.networking.k8s.io";
    let early = [("kube-definition-outdated", "GRPCRoute")];
    for (release, state, codes) in [
        (json!({}), KindState::Absent, &early[..]),
        (json!("main"), KindState::Absent, &early[..]),
        (json!("v1.0.9"), KindState::Absent, &early[..]),
        (json!("v1.1.0-rc.1"), KindState::Watching, &[]),
    ] {
        let annotations = json!({"gateway.networking.k8s.io/bundle-version": release});
        let definition = json!({"metadata": {"name": format!("grpcroutes.{GROUP}"),
            "resourceVersion": "1", "annotations": annotations}});
        let mut world = World::start(move |path, _| match path {
            "/apis/gateway.networking.k8s.io" => {
                let version = json!({"groupVersion": format!("{GROUP}/v1"), "version": "v1"});
                let group = json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
                    "versions": [version], "preferredVersion": version});
                Reply::Json(200, group)
            }
            "/apis/gateway.networking.k8s.io/v1" => {
                let served = json!({"name": "grpcroutes", "singularName": "grpcroute",
                    "namespaced": true, "kind": "GRPCRoute", "verbs": ["list", "watch"]});
                let served = json!({"kind": "APIResourceList", "apiVersion": "v1",
                    "groupVersion": format!("{GROUP}/v1"), "resources": [served]});
                Reply::Json(200, served)
            }
            path if path.contains("customresourcedefinitions") && !is_watch(path) => {
                list("1", None, std::slice::from_ref(&definition))
            }
            path => usual(path),
        });
        world
            .until("a list of every kind", |world| {
                Kind::ALL.iter().all(|kind| world.resyncs(*kind) == 1)
            })
            .await;
        world.pass(Duration::from_secs(10)).await;
        assert_eq!(world.state(Kind::GrpcRoute), Some(state));
        assert_eq!(world.codes(), codes);
    }
}

fn security(versions: &[&str]) -> Value {
    let of = |version: &&str| json!({"groupVersion": format!("security.istio.io/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(of).collect();
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": "security.istio.io",
        "versions": versions, "preferredVersion": versions[0]})
}

#[tokio::test(start_paused = true)]
async fn kinds_come_and_go_but_not_when_a_server_is_unwell() {
    // 0: nothing, 1: served, 2: unwell and without it, 3: errors, 4: another version, 5: nothing
    let phase = Arc::new(Mutex::new(0));
    let now = phase.clone();
    let policy = json!({"metadata": {"name": "p", "namespace": "default", "resourceVersion": "5",
        "uid": "u", "generation": 3, "managedFields": [
            {"manager": "other", "operation": "Update"},
            {"manager": "ambientd", "operation": "Apply", "subresource": "status"}]},
        "spec": {}, "status": {"conditions": []}});
    let mut world = World::start(move |path, _| {
        let phase = *now.lock();
        let resources = |version: &str| {
            Reply::Json(
                200,
                json!({"kind": "APIResourceList", "groupVersion": format!("security.istio.io/{version}"),
                "resources": [{"name": "authorizationpolicies", "singularName": "authorizationpolicy",
                    "namespaced": true, "kind": "AuthorizationPolicy", "verbs": ["list", "watch"]},
                    {"name": "authorizationpolicies/status", "singularName": "", "namespaced": true,
                    "kind": "AuthorizationPolicy", "verbs": ["get"]}]}),
            )
        };
        match (path, phase) {
            ("/readyz", 2) => status(500),
            ("/apis/security.istio.io", 1) => Reply::Json(200, security(&["v1beta1"])),
            ("/apis/security.istio.io", 3) => status(503),
            ("/apis/security.istio.io", 4) => Reply::Json(200, security(&["v1beta1", "v1"])),
            ("/apis/security.istio.io/v1beta1", 1) => resources("v1beta1"),
            ("/apis/security.istio.io/v1", 4) => resources("v1"),
            (path, 1 | 4) if path.contains("/authorizationpolicies?") && !is_watch(path) => {
                list("9", None, std::slice::from_ref(&policy))
            }
            (path, _) => usual(path),
        }
    });
    let kind = Kind::AuthorizationPolicy;
    let served = |world: &World| world.names(kind) == ["p"];
    world
        .until("that there are none", |world| world.resyncs(kind) == 1)
        .await;
    *phase.lock() = 1;
    world.until("that it appears", served).await;
    assert_eq!(
        world.calls("/apis/security.istio.io/v1beta1/authorizationpolicies?&watch"),
        1
    );
    let reference = ObjectRef::new(kind, ObjectKey::new("default", "p"));
    let seen = world.observed.get(&reference).expect("its status");
    assert_eq!(seen.managers, ["ambientd"]);
    assert_eq!((seen.generation, seen.uid.as_str()), (3, "u"));
    assert_eq!(seen.api_version, "security.istio.io/v1beta1");
    for unwell in [2, 3] {
        *phase.lock() = unwell;
        world.pass(Duration::from_secs(600)).await;
        assert!(served(&world), "phase {unwell}");
    }
    *phase.lock() = 4;
    world
        .until("the better version", |world| {
            world.calls("/apis/security.istio.io/v1/authorizationpolicies?&watch") > 0
        })
        .await;
    assert!(served(&world));
    *phase.lock() = 5;
    world
        .until("that it is gone", |world| world.names(kind).is_empty())
        .await;
    assert_eq!(world.state(kind), Some(KindState::Absent));
    assert!(world.observed.get(&reference).is_none());
}

#[tokio::test(start_paused = true)]
async fn mesh_config_is_that_of_the_revision_and_the_last_good_one_stays() {
    let text = Arc::new(Mutex::new(Some("trustDomain: one")));
    let now = text.clone();
    let answer = move |path: &str, _| {
        let is_ours = path.starts_with("/api/v1/namespaces/mesh/configmaps?")
            && path.contains("metadata.name%3Distio-canary");
        match *now.lock() {
            _ if !is_ours => usual(path),
            // Every look is a list, so that the script stays short.
            _ if is_watch(path) => status(410),
            None => list("9", None, &[]),
            Some(text) => list(
                "9",
                None,
                &[
                    json!({"metadata": {"name": "istio-canary", "namespace": "mesh"},
                    "data": {"mesh": text}}),
                ],
            ),
        }
    };
    let mut world = World::start_with(answer, |config| {
        config.system_namespace = "mesh".to_owned();
        config.revision = "canary".to_owned();
        config.retry_max = Duration::from_secs(1);
    });
    let domain = |world: &World| {
        let key = (Kind::MeshConfig, ObjectKey::new("istio-system", "istio"));
        match world.objects.get(&key) {
            Some(Object::MeshConfig(row)) => row.ok()?.trust_domain.clone(),
            _ => None,
        }
    };
    world
        .until("the first", |world| domain(world).as_deref() == Some("one"))
        .await;
    *text.lock() = Some("trustDomain: [");
    world
        .until("a finding", |world| {
            world.codes() == [("mesh-config-kept", "MeshConfig")]
        })
        .await;
    assert_eq!(domain(&world).as_deref(), Some("one"));
    *text.lock() = Some("trustDomain: two");
    world
        .until("the next", |world| domain(world).as_deref() == Some("two"))
        .await;
    world
        .until("no finding", |world| world.findings.is_empty())
        .await;
    *text.lock() = None;
    world
        .until("defaults", |world| domain(world).is_none())
        .await;
    assert_eq!(world.resyncs(Kind::MeshConfig), 3, "only what changed");
}
