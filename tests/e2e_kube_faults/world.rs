//! Two replicas, and that all is as after a fresh start.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::ads::ztunnel_node;
use testkit::cluster::{Cluster, Part};
use testkit::wait;
use testkit::ztunnel::{MeshState, Ztunnel};
use tokio::task::JoinSet;

use crate::common::relay::Relay;
use crate::common::replica::Replica;
use crate::common::{
    self, ACCOUNT, SOON, SYSTEM, Write, apply_account, apply_definitions, settled, token, until,
    writes, xds,
};

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

/// Two replicas, a client of each, and what was when somebody last looked.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) kube: kube::Client,
    pub(super) replicas: [Replica; 2],
    pub(super) clients: [Ztunnel; 2],
    pub(super) seen: Mark,
    pub(super) began: Instant,
    pub(super) checks: usize,
}

#[derive(Default)]
pub(super) struct Mark {
    pub(super) writes: usize,
    pub(super) received: [usize; 2],
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

pub(super) fn entry(name: &str) -> String {
    ENTRY.replace("NAME", name)
}

/// Writes by their text, leaving out those that failed because the object had changed.
pub(super) fn texts(writes: &[Write]) -> Vec<&str> {
    let all = writes.iter().map(|write| write.text.as_str());
    all.filter(|text| !text.ends_with(" 409")).collect()
}

// === impl World ===

impl World {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let began = Instant::now();
        let cluster = common::control_plane().await?;
        println!("{:?}: the cluster is up", began.elapsed());
        apply_definitions(&cluster)?;
        apply_account(&cluster)?;
        cluster.kubectl(&["create", "serviceaccount", "ztunnel", "-n", SYSTEM])?;
        until("the world is taken", || cluster.apply(WORLD).map(drop)).await?;
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
        let mut world = Self {
            cluster,
            kube,
            replicas,
            clients,
            seen: Mark::default(),
            began,
            checks: 0,
        };
        for client in &world.clients {
            client.wait_synced(1, SOON).await?;
        }
        world.leader().await?;
        let first = world.settled().await?;
        println!("at first: {:#?}", texts(&first));
        world.mark();
        world.check("the start", &[]).await?;
        Ok(world)
    }

    /// Takes what is as what is known.
    pub(super) fn mark(&mut self) {
        self.seen = Mark {
            writes: writes(&self.cluster).unwrap().len(),
            received: [0, 1].map(|at| self.clients[at].received().len()),
        };
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
        let mut new = texts(&new);
        new.sort_unstable();
        let mut wanted = written.to_vec();
        wanted.sort_unstable();
        ensure!(new == wanted, "{what}: written {new:#?}, not {wanted:#?}");
        for at in [0, 1] {
            let told = self.told(at);
            let odd = |name: &&String| !names.iter().any(|part| name.contains(part));
            let odd: Vec<_> = told.iter().filter(odd).collect();
            ensure!(odd.is_empty(), "{what}: a client was told of {odd:?}");
        }
        self.is_as_fresh(what).await?;
        self.mark();
        println!("{:?}: {what}: as after a fresh start", self.began.elapsed());
        Ok(())
    }

    pub(super) async fn check(&mut self, what: &str, written: &[&str]) -> anyhow::Result<()> {
        self.check_told(what, written, &[]).await
    }

    /// That clients and pages say what those of a replica say that has just started.
    async fn is_as_fresh(&mut self, what: &str) -> anyhow::Result<()> {
        let [one, two] = [0, 1].map(|at| (&self.replicas[at], &self.clients[at]));
        self.are_as_fresh(what, &[one, two], self.checks).await?;
        self.checks += 1;
        Ok(())
    }

    /// The same of one that is there for the sake of a fault.
    pub(super) async fn is_as_fresh_too(
        &mut self,
        what: &str,
        aside: &Aside,
    ) -> anyhow::Result<()> {
        let pair = (&aside.replica, &aside.client);
        self.are_as_fresh(what, &[pair], self.checks).await?;
        self.checks += 1;
        println!("{:?}: {what}: as after a fresh start", self.began.elapsed());
        Ok(())
    }

    async fn are_as_fresh(
        &self,
        what: &str,
        pairs: &[(&Replica, &Ztunnel)],
        number: usize,
    ) -> anyhow::Result<()> {
        let name = format!("fresh-{number}");
        let fresh = Replica::start(&self.cluster, &name, &[NO_LEASE])?;
        fresh.wait_well(SOON).await?;
        let client = subscribe(&self.cluster, &fresh)?;
        client.wait_synced(1, SOON).await?;
        for (replica, held) in pairs {
            let claim = format!("{what}: the state of a fresh start");
            wait::until(&claim, SOON, || async {
                let (held, fresh_held) = (held.state(), client.state());
                ensure!(
                    held == fresh_held,
                    "{} and {} workloads, {} and {} services",
                    held.workloads.len(),
                    fresh_held.workloads.len(),
                    held.services.len(),
                    fresh_held.services.len()
                );
                for path in ["/debug/ambientz", "/debug/findings"] {
                    let (ours, other) = (replica.page(path).await?, fresh.page(path).await?);
                    ensure!(ours == other, "{path}: {}", difference(&ours, &other));
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// That replicas which start now, and lead, find nothing to write and tell nobody anything.
    pub(super) async fn fresh_leaders_write_nothing(&mut self, what: &str) -> anyhow::Result<()> {
        let connections = [0, 1].map(|at| self.clients[at].connection());
        for replica in &mut self.replicas {
            replica.kill()?;
        }
        for replica in &mut self.replicas {
            replica.spawn()?;
        }
        for (client, connection) in self.clients.iter().zip(connections) {
            client.wait_synced(connection + 1, SOON).await?;
        }
        self.leader().await?;
        self.check(&format!("{what}, then all started anew"), &[])
            .await
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

    /// That a server which started was never taken for one that had withdrawn a right.
    pub(super) fn nobody_was_refused(&self) -> anyhow::Result<()> {
        let mut text = String::new();
        for replica in &self.replicas {
            for line in replica.log().lines() {
                if line.contains("refuses to let us") || line.contains("not allowed to write") {
                    let _ = writeln!(text, "{}: {line}", replica.name);
                }
            }
        }
        ensure!(text.is_empty(), "{text}");
        let refused = self.cluster.audit()?.filter(|event| {
            event["user"]["username"] == ACCOUNT && event["responseStatus"]["code"] == 403
        });
        println!("{} requests were refused after starts", refused.count());
        Ok(())
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

/// The first lines that differ.
pub(super) fn difference(ours: &str, other: &str) -> String {
    let lines = ours.lines().zip(other.lines());
    let different = lines.filter(|(ours, other)| ours != other);
    let shown = different
        .take(5)
        .map(|(ours, other)| format!("{ours} / {other}"));
    let mut text: Vec<String> = shown.collect();
    text.push(format!("{} and {} bytes", ours.len(), other.len()));
    text.join("\n")
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
