//! Two replicas, and that all is as after a fresh start.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use proto::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use serde_json::{Value, json};
use testkit::ads::{waypoint_node, ztunnel_node};
use testkit::cluster::{Cluster, Part};
use testkit::wait;
use testkit::ztunnel::{MeshState, Ztunnel};
use tokio::task::JoinSet;

use crate::common::relay::Relay;
use crate::common::replica::Replica;
use crate::common::{self, SOON, SYSTEM, Write, settled, token, until, writes, xds};
use crate::waypoint::Waypoint;

/// Pods of the world.
const PODS: usize = 24;
/// Of those that lead in turn.
const LEASE: &str = "--lease-duration=6s";
/// Of those that are not to lead: longer than the test.
pub(super) const NO_LEASE: &str = "--lease-duration=1h";

const WORLD: &str = r"
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: going, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: lost, namespace: shop, labels: {istio.io/use-waypoint: nowhere}}
spec: {ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: bye, namespace: going}
spec: {selector: {app: bye}, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec:
  hosts: [a.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec: {rules: [{from: [{source: {namespaces: [shop]}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata:
  name: waypoint
  namespace: shop
  labels:
    gateway.networking.k8s.io/gateway-name: waypoint
    gateway.networking.k8s.io/gateway-class-name: istio-waypoint
    gateway.istio.io/managed: istio.io-mesh-controller
spec:
  selector: {gateway.networking.k8s.io/gateway-name: waypoint}
  ports: [{port: 15008, name: mesh}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: waypoint, namespace: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: shop}
spec:
  hosts: [NAME.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
";

/// Two replicas, a ztunnel and a waypoint of each, and what was when somebody last looked.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) kube: kube::Client,
    pub(super) replicas: [Replica; 2],
    pub(super) clients: [Ztunnel; 2],
    pub(super) waypoints: [Waypoint; 2],
    pub(super) seen: Mark,
    pub(super) began: Instant,
    pub(super) checks: usize,
    /// Requests, by their place in the audit log, while a server started: it refuses then what its
    /// roles allow.
    pub(super) starts: Vec<Range<usize>>,
}

#[derive(Default)]
pub(super) struct Mark {
    pub(super) writes: usize,
    pub(super) received: [usize; 2],
    /// Names that waypoints had been told.
    pub(super) told: [usize; 2],
}

/// A replica that is there for the sake of one fault.
pub(super) struct Aside {
    pub(super) replica: Replica,
    pub(super) client: Ztunnel,
    pub(super) relay: Option<Relay>,
}

/// A ztunnel's subscription, with a token of its account.
pub(super) fn subscribe(cluster: &Cluster, replica: &Replica) -> anyhow::Result<Ztunnel> {
    let target = xds(cluster, replica.secure, token(cluster, SYSTEM, "ztunnel")?)?;
    Ok(Ztunnel::start(target, ztunnel_node("n1")))
}

/// A waypoint's subscription, with a token of its account.
pub(super) fn subscribe_waypoint(cluster: &Cluster, replica: &Replica) -> anyhow::Result<Waypoint> {
    let target = xds(cluster, replica.secure, token(cluster, "shop", "waypoint")?)?;
    let node = waypoint_node("shop", "waypoint", "10.1.0.1");
    Ok(Waypoint::start(target, node))
}

pub(super) fn entry(name: &str) -> String {
    ENTRY.replace("NAME", name)
}

/// Writes by their text, and apart from them those that failed because the object had changed,
/// without their code.
pub(super) fn texts(writes: &[Write]) -> (Vec<&str>, Vec<&str>) {
    let (mut done, mut late) = (Vec::new(), Vec::new());
    for write in writes {
        match write.text.strip_suffix(" 409") {
            Some(text) => late.push(text),
            None => done.push(write.text.as_str()),
        }
    }
    (done, late)
}

/// The only Event of the world, and how often at most new leaders find between two looks that it
/// is there already.
const EVENT: &str = "create events/ shop/lost.";
const EVENTS_FOUND_MAX: usize = 2;

/// That nothing failed because it was late but what was done then, each at most once, and the
/// Event that new leaders need not repeat.
pub(super) fn few_came_late(done: &[&str], late: &[&str]) -> anyhow::Result<()> {
    let (found, late): (Vec<&str>, Vec<&str>) =
        late.iter().partition(|text| text.starts_with(EVENT));
    ensure!(found.len() <= EVENTS_FOUND_MAX, "{found:?}");
    let mut left: Vec<&str> = done
        .iter()
        .filter_map(|text| text.rsplit_once(' ').map(|(text, _)| text))
        .collect();
    for text in &late {
        let found = left.iter().position(|one| one == text);
        let found = found.with_context(|| format!("{text}: 409, of {late:#?} and {done:#?}"))?;
        left.swap_remove(found);
    }
    Ok(())
}

// === impl World ===

impl World {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let began = Instant::now();
        let cluster = common::prepared().await?;
        println!("{:?}: the cluster is up", began.elapsed());
        cluster.kubectl(&["create", "serviceaccount", "ztunnel", "-n", SYSTEM])?;
        until("the world is taken", || cluster.apply(WORLD).map(drop)).await?;
        // Where the waypoint is, as whoever starts it says.
        let place = json!([{"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"}]);
        let place = json!({"status": {"addresses": place}}).to_string();
        let gateway = ["-n", "shop", "patch", "gateway", "waypoint", "-p", &place];
        let status = ["--subresource=status", "--type=merge"];
        cluster.kubectl(&[&gateway[..], &status].concat())?;
        let kube = cluster.client().await?;
        for ns in ["shop", "going"] {
            let args = ["-n", ns, "get", "serviceaccount", "default"];
            cluster.wait_for(&args, SOON, |_| Ok(())).await?;
        }
        pods(&kube).await?;
        let slices = ["-n", "shop", "get", "endpointslices", "-o", "json"];
        cluster
            .wait_for(&slices, SOON, |text| {
                let count = text.matches("\"10.77.0.").count();
                ensure!(count >= PODS - 3, "{count} addresses");
                Ok(())
            })
            .await?;
        // Without it nobody says that the node is gone and its pods with it.
        cluster.kill(&Part::ControllerManager)?;
        let replicas = [
            Replica::start(&cluster, "one", &[LEASE])?,
            Replica::start(&cluster, "two", &[LEASE])?,
        ];
        for replica in &replicas {
            replica.wait_well(SOON).await?;
        }
        until("the root is there", || {
            let map = ["-n", SYSTEM, "get", "configmap/istio-ca-root-cert"];
            cluster.kubectl(&map).map(drop)
        })
        .await?;
        let clients = [
            subscribe(&cluster, &replicas[0])?,
            subscribe(&cluster, &replicas[1])?,
        ];
        let waypoints = [
            subscribe_waypoint(&cluster, &replicas[0])?,
            subscribe_waypoint(&cluster, &replicas[1])?,
        ];
        let mut world = Self {
            cluster,
            kube,
            replicas,
            clients,
            waypoints,
            seen: Mark::default(),
            began,
            checks: 0,
            starts: Vec::new(),
        };
        for at in [0, 1] {
            world.wait_joined(at, (0, 0)).await?;
            wait::until("a waypoint with all it needs", SOON, || async {
                let held = world.waypoints[at].held();
                for ty in [CLUSTER, LISTENER, ROUTE, ENDPOINT] {
                    let count = held.get(ty).map_or(0, BTreeMap::len);
                    ensure!(count > 0, "it holds nothing of {ty}: {held:#?}");
                }
                Ok(())
            })
            .await?;
        }
        world.leader().await?;
        let first = world.settled().await?;
        let (done, late) = texts(&first);
        println!("at first: {done:#?}, and late {late:#?}");
        few_came_late(&done, &late)?;
        // Roles and servers were new to each other until now.
        world.starts.push(0..world.asked()?);
        world.mark();
        world.check("the start", &[]).await?;
        Ok(world)
    }

    /// Takes what is as what is known.
    pub(super) fn mark(&mut self) {
        self.seen = Mark {
            writes: writes(&self.cluster).unwrap().len(),
            received: [0, 1].map(|at| self.clients[at].received().len()),
            told: [0, 1].map(|at| self.waypoints[at].told().len()),
        };
    }

    /// Requests that the API server has logged.
    pub(super) fn asked(&self) -> anyhow::Result<usize> {
        Ok(self.cluster.audit()?.count())
    }

    /// How often the clients of a replica have connected.
    pub(super) fn connections(&self, at: usize) -> (usize, usize) {
        (
            self.clients[at].connection(),
            self.waypoints[at].connection(),
        )
    }

    /// Waits until the clients of a replica have connected once more and are in sync.
    pub(super) async fn wait_joined(
        &self,
        at: usize,
        (client, waypoint): (usize, usize),
    ) -> anyhow::Result<()> {
        self.clients[at].wait_synced(client + 1, SOON).await?;
        self.waypoints[at].wait_synced(waypoint + 1, SOON).await
    }

    /// Writes since the mark, once no more of them come.
    pub(super) async fn settled(&self) -> anyhow::Result<Vec<Write>> {
        let all = settled(&self.cluster, Duration::from_millis(2_500)).await?;
        Ok(all[self.seen.writes..].to_vec())
    }

    /// Names that a client was sent and told to forget since the mark.
    pub(super) fn told(&self, at: usize) -> BTreeSet<String> {
        let received = self.clients[at].received();
        let new = received[self.seen.received[at]..].iter();
        new.flat_map(|one| one.names.iter().chain(&one.removed).cloned())
            .collect()
    }

    /// The same of a waypoint.
    pub(super) fn told_waypoint(&self, at: usize) -> BTreeSet<String> {
        let told = self.waypoints[at].told();
        told[self.seen.told[at]..].iter().cloned().collect()
    }

    /// The number of the replica that leads.
    pub(super) async fn leader(&self) -> anyhow::Result<usize> {
        wait::until("a leader", SOON, || async {
            for (at, replica) in self.replicas.iter().enumerate() {
                if replica.leads().await.unwrap_or(false) {
                    return Ok(at);
                }
            }
            anyhow::bail!("none")
        })
        .await
    }

    /// That all is as after a fresh start, that just this was written, and that clients were told
    /// of nothing but resources with these words in their names.
    pub(super) async fn check_told(
        &mut self,
        what: &str,
        written: &[&str],
        names: &[&str],
    ) -> anyhow::Result<()> {
        for replica in &self.replicas {
            replica.wait_well(SOON).await?;
        }
        let new = self.settled().await?;
        let (mut new, late) = texts(&new);
        few_came_late(&new, &late).context(what.to_owned())?;
        new.sort_unstable();
        let mut wanted = written.to_vec();
        wanted.sort_unstable();
        ensure!(new == wanted, "{what}: written {new:#?}, not {wanted:#?}");
        for at in [0, 1] {
            let told = self.told(at);
            let odd = |name: &&String| !names.iter().any(|part| name.contains(part));
            let odd: Vec<_> = told.iter().filter(odd).collect();
            ensure!(odd.is_empty(), "{what}: a client was told of {odd:?}");
            let told = self.told_waypoint(at);
            let is_meant = |name: &str, part: &str| name.contains(part.trim_start_matches('/'));
            let odd = |name: &&String| !names.iter().any(|part| is_meant(name, part));
            let odd: Vec<_> = told.iter().filter(odd).collect();
            ensure!(odd.is_empty(), "{what}: a waypoint was told of {odd:?}");
        }
        self.is_as_fresh(what).await?;
        self.mark();
        println!("{:?}: {what}: as after a fresh start", self.began.elapsed());
        Ok(())
    }

    pub(super) async fn check(&mut self, what: &str, written: &[&str]) -> anyhow::Result<()> {
        self.check_told(what, written, &[]).await
    }

    /// That changes are seen: a Service comes and goes.
    pub(super) async fn probe(&self, clients: &[&Ztunnel]) -> anyhow::Result<()> {
        let services: Api<DynamicObject> = Api::namespaced_with(
            self.kube.clone(),
            "shop",
            &resource("", "v1", "Service", "services"),
        );
        let object = serde_json::from_value(json!({
            "metadata": {"name": "probe"}, "spec": {"ports": [{"port": 80}]},
        }))?;
        // It may just have started.
        wait::until("a Service to be taken", SOON, || async {
            services.create(&PostParams::default(), &object).await?;
            Ok(())
        })
        .await?;
        let is_there =
            |state: &MeshState| state.services.keys().any(|name| name.contains("/probe."));
        for client in clients {
            client.wait(SOON, |state, _| is_there(state)).await?;
        }
        services.delete("probe", &DeleteParams::default()).await?;
        for client in clients {
            client.wait(SOON, |state, _| !is_there(state)).await?;
        }
        Ok(())
    }

    pub(super) async fn probe_all(&mut self, what: &str) -> anyhow::Result<()> {
        self.probe(&[&self.clients[0], &self.clients[1]])
            .await
            .context(what.to_owned())?;
        self.mark();
        Ok(())
    }

    pub(super) async fn addresses_of(&self, name: &str) -> anyhow::Result<()> {
        let args = ["-n", "shop", "get", "serviceentry", name, "-o", "json"];
        self.cluster
            .wait_for(&args, SOON, |text| {
                let value: Value = serde_json::from_str(text)?;
                let all = value["status"]["addresses"]
                    .as_array()
                    .context("no addresses")?;
                ensure!(!all.is_empty());
                Ok(())
            })
            .await
    }
}

pub(super) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Pods of a node that is not there, as its kubelet would have them.
async fn pods(kube: &kube::Client) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for at in 0..PODS {
        let (ns, app, at) = match at {
            0..3 => ("going", "bye", at),
            at => ("shop", "web", at - 3),
        };
        let kind = resource("", "v1", "Pod", "pods");
        let api = Api::<DynamicObject>::namespaced_with(kube.clone(), ns, &kind);
        tasks.spawn(async move {
            let name = format!("{app}-{at}");
            let finalizers = if ns == "going" {
                vec!["test.io/hold"]
            } else {
                Vec::new()
            };
            let pod = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"app": app}, "finalizers": finalizers},
                "spec": {
                    "nodeName": "n1",
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "a", "image": "a"}],
                },
            }))?;
            api.create(&PostParams::default(), &pod).await?;
            let third = u8::from(ns == "going");
            let ip = format!("10.77.{third}.{}", at + 1);
            let ready = json!({"type": "Ready", "status": "True"});
            let status = json!({"status": {
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.1.0.1",
                "conditions": [ready],
            }});
            let patch = Patch::Merge(&status);
            api.patch_status(&name, &PatchParams::default(), &patch)
                .await?;
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
