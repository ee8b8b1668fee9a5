//! Faults of real servers and of ambientd itself. After each, ambientd says what one that has
//! just started says; what did not change was written by nobody and sent to nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/relay.rs"]
mod relay;
#[path = "common/replica.rs"]
mod replica;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::cluster::{Cluster, Options, Part};
use testkit::wait;
use testkit::ztunnel::Ztunnel;
use tokio::task::JoinSet;

use relay::Relay;
use replica::{Replica, Write, writes};

/// More than anything needs, even on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Objects that change while nobody looks.
const CHANGED: usize = 5_000;
/// Requests of the test at once.
const WORKERS: usize = 24;
/// Pods of the world.
const PODS: usize = 24;
/// Of those that lead in turn.
const LEASE: &str = "--lease-duration=6s";
/// Of those that are not to lead: longer than the test.
const NO_LEASE: &str = "--lease-duration=1h";

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

/// What another tool says of the policy, over what we said.
const OVERWRITE: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
status:
  conditions:
  - {type: ZtunnelAccepted, status: "False", reason: Never, message: round ROUND, lastTransitionTime: "2026-01-01T00:00:00Z"}
  - {type: Audited, status: "True", reason: Fine, message: round ROUND, lastTransitionTime: "2026-01-01T00:00:00Z"}
"#;

/// Two replicas, a client of each, and what was when somebody last looked.
struct World {
    cluster: Cluster,
    kube: kube::Client,
    replicas: [Replica; 2],
    clients: [Ztunnel; 2],
    seen: Mark,
    began: Instant,
    checks: usize,
}

#[derive(Default)]
struct Mark {
    writes: usize,
    received: [usize; 2],
}

/// A replica that is there for the sake of one fault.
struct Aside {
    replica: Replica,
    client: Ztunnel,
    relay: Option<Relay>,
}

#[tokio::test(flavor = "multi_thread")]
async fn after_faults_of_servers_all_is_as_after_a_fresh_start() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let rotated = world.start_rotated().await?;
    let late = world.start_without_server().await?;
    world.the_api_server_dies().await?;
    world.a_server_that_appears_is_served(late).await?;
    world.etcd_dies().await?;
    let silent = world.start_behind_relay().await?;
    world.watches_fall_silent(&silent).await?;
    world.the_api_server_freezes(silent).await?;
    world.a_token_was_rotated(rotated).await?;
    world.nobody_was_refused()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_faults_of_replicas_all_is_as_after_a_fresh_start() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.a_follower_dies().await?;
    world.the_leader_dies().await?;
    world.the_leader_freezes_beyond_its_term().await?;
    world.much_changes_while_nobody_runs().await?;
    world.nobody_was_refused()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_what_others_do_all_is_as_after_a_fresh_start() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.others_overwrite().await?;
    world.definitions_go_and_come().await?;
    world.a_namespace_goes_while_pods_drain().await?;
    world.nobody_was_refused()
}

fn entry(name: &str) -> String {
    ENTRY.replace("NAME", name)
}

/// Writes by their text, leaving out those that failed because the object had changed.
fn texts(writes: &[Write]) -> Vec<&str> {
    let all = writes.iter().map(|write| write.text.as_str());
    all.filter(|text| !text.ends_with(" 409")).collect()
}

// === impl World ===

impl World {
    async fn start() -> anyhow::Result<Self> {
        let began = Instant::now();
        let cluster = Cluster::start(Options::control_plane()).await?;
        println!("{:?}: the cluster is up", began.elapsed());
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        for file in ["istio.yaml", "gateway-api.yaml"] {
            let path = manifests.join("crds").join(file);
            cluster.apply(&std::fs::read_to_string(path)?)?;
        }
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
        cluster.kubectl(&["create", "namespace", "istio-system"])?;
        for file in ["service-account.yaml", "role.yaml", "cluster-role.yaml"] {
            let path = manifests.join("base").join(file);
            let path = path.to_str().context("a path")?;
            cluster.kubectl(&["apply", "-n", "istio-system", "-f", path])?;
        }
        let applied = wait::until("the world to be taken", SOON, || {
            let applied = cluster.apply(WORLD);
            async { applied }
        });
        applied.await?;
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
        let clients = [replicas[0].subscribe(), replicas[1].subscribe()];
        let mut world = Self {
            cluster,
            kube,
            replicas,
            clients,
            seen: Mark::default(),
            began,
            checks: 0,
        };
        world.leader().await?;
        let first = world.settled().await?;
        println!("at first: {:#?}", texts(&first));
        world.mark();
        world.check("the start", &[]).await?;
        Ok(world)
    }

    /// Takes what is as what is known.
    fn mark(&mut self) {
        self.seen = Mark {
            writes: writes(&self.cluster).unwrap().len(),
            received: [0, 1].map(|at| self.clients[at].received().len()),
        };
    }

    /// Writes since the mark, once no more of them come.
    async fn settled(&self) -> anyhow::Result<Vec<Write>> {
        let mut count = writes(&self.cluster)?.len();
        loop {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            let all = writes(&self.cluster)?;
            if all.len() == count {
                return Ok(all[self.seen.writes.min(count)..].to_vec());
            }
            count = all.len();
        }
    }

    /// Names that a client was sent and told to forget since the mark.
    fn told(&self, at: usize) -> BTreeSet<String> {
        let received = self.clients[at].received();
        let new = received[self.seen.received[at]..].iter();
        new.flat_map(|one| one.names.iter().chain(&one.removed).cloned())
            .collect()
    }

    /// The number of the replica that leads.
    async fn leader(&self) -> anyhow::Result<usize> {
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
    async fn check_told(
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

    async fn check(&mut self, what: &str, written: &[&str]) -> anyhow::Result<()> {
        self.check_told(what, written, &[]).await
    }

    /// That clients and pages say what those of a replica say that has just started.
    async fn is_as_fresh(&mut self, what: &str) -> anyhow::Result<()> {
        self.checks += 1;
        let name = format!("fresh-{}", self.checks);
        let fresh = Replica::start(&self.cluster, &name, &[NO_LEASE])?;
        fresh.wait_well(SOON).await?;
        let client = fresh.subscribe();
        client.wait_synced(1, SOON).await?;
        for at in [0, 1] {
            let (held, replica) = (&self.clients[at], &self.replicas[at]);
            wait::until(
                &format!("{what}: the state of a fresh start"),
                SOON,
                || async {
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
                },
            )
            .await?;
        }
        Ok(())
    }

    /// That changes are seen: a Service comes and goes.
    async fn probe(&self, clients: &[&Ztunnel]) -> anyhow::Result<()> {
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
        let is_there = |state: &testkit::ztunnel::MeshState| {
            state.services.keys().any(|name| name.contains("/probe."))
        };
        for client in clients {
            client.wait(SOON, |state, _| is_there(state)).await?;
        }
        services.delete("probe", &DeleteParams::default()).await?;
        for client in clients {
            client.wait(SOON, |state, _| !is_there(state)).await?;
        }
        Ok(())
    }

    async fn probe_all(&mut self, what: &str) -> anyhow::Result<()> {
        self.probe(&[&self.clients[0], &self.clients[1]])
            .await
            .context(what.to_owned())?;
        self.mark();
        Ok(())
    }

    async fn the_api_server_dies(&mut self) -> anyhow::Result<()> {
        self.cluster.kill(&Part::ApiServer)?;
        for replica in &self.replicas {
            wait::until("the outage to be told", SOON, || async {
                let (status, text) = replica.ready().await?;
                ensure!(
                    status == 200 && text.contains("unreachable"),
                    "{status} {text}"
                );
                Ok(())
            })
            .await?;
        }
        self.cluster.start_part(&Part::ApiServer)?;
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        self.check("the API server died", &[]).await?;
        self.probe_all("the API server died").await
    }

    async fn etcd_dies(&mut self) -> anyhow::Result<()> {
        self.cluster.kill(&Part::Etcd)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.cluster.start_part(&Part::Etcd)?;
        // An API server may have given up without its store.
        let _ = self.cluster.start_part(&Part::ApiServer);
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        self.check("etcd died", &[]).await?;
        self.probe_all("etcd died").await
    }

    /// `kill -9` and a new process with the same addresses.
    async fn a_follower_dies(&mut self) -> anyhow::Result<()> {
        let at = 1 - self.leader().await?;
        let connections = self.clients[at].connection();
        self.replicas[at].kill()?;
        self.replicas[at].spawn()?;
        self.clients[at].wait_synced(connections + 1, SOON).await?;
        self.check("a follower died", &[]).await
    }

    async fn the_leader_dies(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let connections = self.clients[at].connection();
        let began = Instant::now();
        self.replicas[at].kill()?;
        self.cluster.apply(&entry("orphan"))?;
        self.addresses_of("orphan").await?;
        println!("the next one wrote after {:?}", began.elapsed());
        ensure!(self.replicas[1 - at].leads().await?);
        self.replicas[at].spawn()?;
        self.clients[at].wait_synced(connections + 1, SOON).await?;
        let once = ["patch serviceentries/status shop/orphan 200"];
        self.check_told("the leader died", &once, &["orphan.example.com"])
            .await
    }

    async fn addresses_of(&self, name: &str) -> anyhow::Result<()> {
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

    /// As a clock jump would make it: it believes to lead when another does.
    async fn the_leader_freezes_beyond_its_term(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let (frozen, other) = (&self.replicas[at], &self.replicas[1 - at]);
        frozen.freeze()?;
        self.cluster.apply(&entry("unseen"))?;
        self.addresses_of("unseen").await?;
        ensure!(other.leads().await?);
        let before = writes(&self.cluster)?.len();
        // Both have something to write now, and one of them has the right to.
        self.cluster.kubectl(&[
            "-n",
            "shop",
            "label",
            "service",
            "lost",
            "istio.io/use-waypoint-",
        ])?;
        frozen.thaw()?;
        let look = ["-n", "shop", "get", "service", "lost", "-o", "json"];
        self.cluster
            .wait_for(&look, SOON, |text| {
                let value: Value = serde_json::from_str(text)?;
                let all = value["status"]["conditions"].as_array().map_or(0, Vec::len);
                ensure!(all == 0, "{all} conditions");
                Ok(())
            })
            .await?;
        self.settled().await?;
        let all = writes(&self.cluster)?;
        let stale = all[before..]
            .iter()
            .filter(|write| write.credential == frozen.credential);
        let stale: Vec<_> = stale.collect();
        ensure!(
            stale.is_empty(),
            "{} wrote without the right to: {stale:?}",
            frozen.name
        );
        ensure!(other.leads().await? && !frozen.leads().await?);
        let wanted = [
            "patch serviceentries/status shop/unseen 200",
            "patch services/status shop/lost 200",
            "patch services/status shop/lost 200",
        ];
        self.check_told(
            "the leader froze",
            &wanted,
            &["unseen.example.com", "/lost."],
        )
        .await
    }

    async fn others_overwrite(&mut self) -> anyhow::Result<()> {
        const ROUNDS: usize = 10;
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--subresource=status",
            "--field-manager=auditor",
            "-f",
            "-",
        ];
        let root = [
            "-n",
            "shop",
            "patch",
            "configmap",
            "istio-ca-root-cert",
            "-p",
        ];
        let look = [
            "-n",
            "shop",
            "get",
            "configmap/istio-ca-root-cert",
            "authorizationpolicy/allow",
        ];
        let look = [&look[..], &["-o", "json"]].concat();
        let before: Value = serde_json::from_str(&self.cluster.kubectl(&look)?)?;
        for round in 0..ROUNDS {
            self.cluster
                .kubectl_with(&args, &OVERWRITE.replace("ROUND", &round.to_string()))?;
            let patch = json!({"data": {"root-cert.pem": format!("{round}"), "mine": "kept"}});
            self.cluster
                .kubectl(&[&root[..], &[&patch.to_string()]].concat())?;
        }
        self.cluster
            .wait_for(&look, SOON, |text| {
                let now: Value = serde_json::from_str(text)?;
                let (map, policy) = (&now["items"][0], &now["items"][1]);
                let wanted = &before["items"][0]["data"]["root-cert.pem"];
                ensure!(map["data"]["root-cert.pem"] == *wanted, "the root");
                ensure!(map["data"]["mine"] == "kept", "a foreign key");
                let all = policy["status"]["conditions"].as_array().context("none")?;
                let says = |ty: &str, status: &str| {
                    all.iter()
                        .any(|one| one["type"] == ty && one["status"] == status)
                };
                ensure!(says("ZtunnelAccepted", "True"), "ours: {all:?}");
                ensure!(says("Audited", "True"), "a foreign condition: {all:?}");
                Ok(())
            })
            .await?;
        let new = self.settled().await?;
        let new = texts(&new);
        let of = |part: &str| new.iter().filter(|text| text.contains(part)).count();
        let roots = of("patch configmaps/ shop/istio-ca-root-cert");
        let statuses = of("patch authorizationpolicies/status shop/allow");
        println!("{ROUNDS} overwrites: {roots} and {statuses} writes");
        // The list is sent whole once more when the API server shows how it merges.
        ensure!((1..=ROUNDS).contains(&roots), "{new:#?}");
        ensure!((1..=2 * ROUNDS).contains(&statuses), "{new:#?}");
        ensure!(roots + statuses == new.len(), "{new:#?}");
        self.seen.writes = writes(&self.cluster)?.len();
        self.check("others overwrote", &[]).await
    }

    async fn definitions_go_and_come(&mut self) -> anyhow::Result<()> {
        let crd = "serviceentries.networking.istio.io";
        self.cluster.kubectl(&["delete", "crd", crd])?;
        let count = |state: &testkit::ztunnel::MeshState| {
            let names = state.services.keys();
            names.filter(|name| name.contains(".example.com")).count()
        };
        for client in &self.clients {
            client.wait(SOON, |state, _| count(state) == 0).await?;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds/istio.yaml");
        self.cluster.apply(&std::fs::read_to_string(path)?)?;
        self.cluster
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
        let applied = wait::until("entries to be taken again", SOON, || {
            let applied = self.cluster.apply(&entry("again"));
            async { applied }
        });
        applied.await?;
        self.addresses_of("again").await?;
        for client in &self.clients {
            client.wait(SOON, |state, _| count(state) == 1).await?;
        }
        let once = ["patch serviceentries/status shop/again 200"];
        self.check_told("a definition went and came", &once, &[".example.com"])
            .await
    }

    /// One whose connections go through our hands, with short patience.
    async fn start_behind_relay(&self) -> anyhow::Result<Aside> {
        let relay = Relay::start(&self.cluster, true).await?;
        let token = replica::token(&self.cluster, &[])?;
        let flags = [
            NO_LEASE,
            "--api-idle-timeout=5s",
            "--api-request-timeout=3s",
        ];
        let replica = Replica::start_as(
            &self.cluster,
            "silent",
            &token,
            Some(relay.address()),
            &flags,
        )?;
        replica.wait_well(SOON).await?;
        let client = replica.subscribe();
        client.wait_synced(1, SOON).await?;
        Ok(Aside {
            replica,
            client,
            relay: Some(relay),
        })
    }

    async fn watches_fall_silent(&mut self, aside: &Aside) -> anyhow::Result<()> {
        let relay = aside.relay.as_ref().context("a relay")?;
        let before = aside.client.received().len();
        relay.swallow();
        self.probe_silent(aside).await?;
        let received = aside.client.received();
        let mut names = received[before..]
            .iter()
            .flat_map(|one| one.names.iter().chain(&one.removed));
        ensure!(names.all(|name| name.contains("/probe.")), "{received:?}");
        self.check_told("watches fell silent", &[], &["/probe."])
            .await
    }

    async fn probe_silent(&self, aside: &Aside) -> anyhow::Result<()> {
        self.probe(&[&aside.client, &self.clients[0], &self.clients[1]])
            .await
    }

    async fn the_api_server_freezes(&mut self, aside: Aside) -> anyhow::Result<()> {
        let before = aside.client.received().len();
        self.cluster.stop_part(&Part::ApiServer)?;
        let told = wait::until("silence to be told", SOON, || async {
            let (status, text) = aside.replica.ready().await?;
            ensure!(
                status == 200 && text.contains("unreachable"),
                "{status} {text}"
            );
            Ok(())
        })
        .await;
        self.cluster.cont(&Part::ApiServer)?;
        told?;
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        self.check("the API server froze", &[]).await?;
        self.probe_silent(&aside).await?;
        let received = aside.client.received();
        let mut names = received[before..]
            .iter()
            .flat_map(|one| one.names.iter().chain(&one.removed));
        ensure!(names.all(|name| name.contains("/probe.")), "{received:?}");
        self.mark();
        Ok(())
    }

    async fn much_changes_while_nobody_runs(&mut self) -> anyhow::Result<()> {
        let connections = [0, 1].map(|at| self.clients[at].connection());
        for replica in &mut self.replicas {
            replica.kill()?;
        }
        let began = Instant::now();
        let entries = Api::<DynamicObject>::namespaced_with(
            self.kube.clone(),
            "shop",
            &resource(
                "networking.istio.io",
                "v1",
                "WorkloadEntry",
                "workloadentries",
            ),
        );
        let mut tasks = JoinSet::new();
        for worker in 0..WORKERS {
            let entries = entries.clone();
            tasks.spawn(async move {
                for at in (worker..CHANGED).step_by(WORKERS) {
                    let object = serde_json::from_value(json!({
                        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
                        "metadata": {
                            "name": format!("vm-{at}"),
                            "labels": {"networking.istio.io/tunnel": "http"},
                        },
                        "spec": {
                            "address": format!("10.99.{}.{}", at / 250, at % 250 + 1),
                            "serviceAccount": "vm",
                        },
                    }))?;
                    entries.create(&PostParams::default(), &object).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        self.cluster
            .kubectl(&["-n", "shop", "delete", "serviceentry", "orphan"])?;
        println!("{CHANGED} objects made in {:?}", began.elapsed());
        for replica in &mut self.replicas {
            replica.spawn()?;
        }
        for at in [0, 1] {
            let client = &self.clients[at];
            client.wait_synced(connections[at] + 1, SOON).await?;
            let all = self.told(at);
            let vms = all.iter().filter(|name| name.contains("/vm-")).count();
            ensure!(vms == CHANGED, "{vms}");
            let other = |name: &&String| !name.contains("/vm-") && !name.contains("orphan");
            let other: Vec<_> = all.iter().filter(other).collect();
            ensure!(other.is_empty(), "{other:?}");
        }
        let names = ["/vm-", "orphan"];
        self.check_told("much changed while nobody ran", &[], &names)
            .await
    }

    async fn a_namespace_goes_while_pods_drain(&mut self) -> anyhow::Result<()> {
        self.cluster.start_part(&Part::ControllerManager)?;
        self.cluster
            .kubectl(&["delete", "namespace", "going", "--wait=false"])?;
        // Pods go first; what else there is stays until they are gone.
        let is_draining = |state: &testkit::ztunnel::MeshState| {
            let pods = state.workloads.iter();
            let pods: Vec<_> = pods.filter(|(name, _)| name.contains("/going/")).collect();
            pods.len() == 3 && pods.iter().all(|(_, pod)| pod.status != 0)
        };
        for client in &self.clients {
            client.wait(SOON, |state, _| is_draining(state)).await?;
        }
        let list = ["-n", "going", "get", "pods", "-o", "json"];
        self.cluster
            .wait_for(&list, SOON, |text| {
                let value: Value = serde_json::from_str(text)?;
                let pods = value["items"].as_array().context("no list")?;
                ensure!(pods.len() == 3, "{} pods", pods.len());
                let mut all = pods.iter();
                ensure!(all.all(|pod| pod["metadata"]["deletionTimestamp"].is_string()));
                Ok(())
            })
            .await?;
        let root = ["-n", "going", "delete", "configmap", "istio-ca-root-cert"];
        self.cluster.kubectl(&root)?;
        // The drain takes its time, and nobody makes a ConfigMap where none can be made.
        let new = self.settled().await?;
        ensure!(new.len() <= 3, "{new:#?}");
        finalize(&self.cluster)?;
        let force = [
            "-n",
            "going",
            "delete",
            "pods",
            "--all",
            "--force",
            "--grace-period=0",
            "--wait=false",
        ];
        self.cluster.kubectl(&force)?;
        for client in &self.clients {
            let gone = |name: &String| !name.contains("going/");
            client
                .wait(SOON, |state, _| {
                    state
                        .workloads
                        .keys()
                        .chain(state.services.keys())
                        .all(gone)
                })
                .await?;
        }
        let look = ["get", "namespaces", "-o", "name"];
        self.cluster
            .wait_for(&look, SOON, |text| {
                ensure!(!text.contains("/going"), "{text}");
                Ok(())
            })
            .await?;
        let new = self.settled().await?;
        println!("a namespace went: {:?}", texts(&new));
        ensure!(new.len() <= 3, "{new:#?}");
        ensure!(
            new.iter().all(|write| write.text.contains("going/")),
            "{new:#?}"
        );
        self.seen.writes = writes(&self.cluster)?.len();
        self.check_told("a namespace went", &[], &["/going/", "going/"])
            .await
    }

    /// One whose token ends, and whose file gets another in time.
    async fn start_rotated(&self) -> anyhow::Result<Aside> {
        let cluster = &self.cluster;
        cluster.kubectl(&[
            "-n",
            "istio-system",
            "create",
            "secret",
            "generic",
            "binding",
        ])?;
        let bound = ["--bound-object-kind=Secret", "--bound-object-name=binding"];
        let token = replica::token(cluster, &bound)?;
        let replica = Replica::start_as(cluster, "rotated", &token, None, &[NO_LEASE])?;
        replica.wait_well(SOON).await?;
        let client = replica.subscribe();
        client.wait_synced(1, SOON).await?;
        let file = cluster.dir().join("rotated.token");
        std::fs::write(file, replica::token(cluster, &[])?)?;
        cluster.kubectl(&["-n", "istio-system", "delete", "secret", "binding"])?;
        Ok(Aside {
            replica,
            client,
            relay: None,
        })
    }

    async fn a_token_was_rotated(&mut self, aside: Aside) -> anyhow::Result<()> {
        // Its watches broke with the API server, more than once.
        aside.replica.wait_well(Duration::from_secs(90)).await?;
        self.probe_silent(&aside).await?;
        ensure!(aside.client.state() == self.clients[0].state());
        self.mark();
        Ok(())
    }

    /// One that finds no API server.
    async fn start_without_server(&self) -> anyhow::Result<Aside> {
        let relay = Relay::start(&self.cluster, false).await?;
        let token = replica::token(&self.cluster, &[])?;
        let via = Some(relay.address());
        let replica = Replica::start_as(&self.cluster, "late", &token, via, &[NO_LEASE])?;
        let client = replica.subscribe();
        Ok(Aside {
            replica,
            client,
            relay: Some(relay),
        })
    }

    async fn a_server_that_appears_is_served(&mut self, aside: Aside) -> anyhow::Result<()> {
        wait::until("the wait to be told", SOON, || async {
            let (status, text) = aside.replica.ready().await?;
            ensure!(status == 503, "{status}");
            ensure!(
                text.contains("[-] snapshot") && text.contains("unreachable"),
                "{text}"
            );
            Ok(())
        })
        .await?;
        aside.relay.as_ref().context("a relay")?.open();
        aside.replica.wait_well(SOON).await?;
        aside.client.wait_synced(1, SOON).await?;
        ensure!(aside.client.state() == self.clients[0].state());
        Ok(())
    }

    /// That a server which started was never taken for one that had withdrawn a right.
    fn nobody_was_refused(&self) -> anyhow::Result<()> {
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
            event["user"]["username"] == replica::ACCOUNT && event["responseStatus"]["code"] == 403
        });
        println!("{} requests were refused after starts", refused.count());
        Ok(())
    }
}

/// Lets the pods of the namespace that goes end.
fn finalize(cluster: &Cluster) -> anyhow::Result<()> {
    for at in 0..3 {
        let name = format!("bye-{at}");
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        cluster.kubectl(&[
            "-n",
            "going",
            "patch",
            "pod",
            &name,
            "--type=merge",
            "-p",
            patch,
        ])?;
    }
    Ok(())
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
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
fn difference(ours: &str, other: &str) -> String {
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
