//! Replicas that end and come back.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::ztunnel::MeshState;
use tokio::task::JoinSet;

use crate::common::{SOON, SYSTEM, get, writes};
use crate::world::{World, entry, resource};

/// The Lease of those that write, and how long replicas of the test hold it.
const LEASE: &str = "istio-status-leader";
const LEASE_TIME: Duration = Duration::from_secs(6);
/// Objects that change while nobody looks.
const CHANGED: usize = 5_000;
const LOTS: [Lot; 3] = [
    Lot {
        group: "networking.istio.io",
        kind: "WorkloadEntry",
        plural: "workloadentries",
        before: 3_000,
        edited: 1_800,
        deleted: 800,
        made: 1_400,
    },
    Lot {
        group: "",
        kind: "Service",
        plural: "services",
        before: 300,
        edited: 150,
        deleted: 100,
        made: 250,
    },
    Lot {
        group: "networking.istio.io",
        kind: "ServiceEntry",
        plural: "serviceentries",
        before: 300,
        edited: 150,
        deleted: 100,
        made: 250,
    },
];
/// Requests of the test at once.
const WORKERS: usize = 24;

impl World {
    /// `kill -9` and a new process with the same addresses.
    pub(super) async fn a_follower_dies(&mut self) -> anyhow::Result<()> {
        let at = 1 - self.leader().await?;
        let connections = self.connections(at);
        self.replicas[at].kill()?;
        self.replicas[at].spawn()?;
        self.wait_joined(at, connections).await?;
        self.check("a follower died", &[]).await
    }

    pub(super) async fn the_leader_dies(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let connections = self.connections(at);
        let began = Instant::now();
        self.replicas[at].kill()?;
        self.cluster.apply(&entry("orphan"))?;
        self.addresses_of("orphan").await?;
        println!("the next one wrote after {:?}", began.elapsed());
        ensure!(self.replicas[1 - at].leads().await?);
        self.replicas[at].spawn()?;
        self.wait_joined(at, connections).await?;
        let once = ["patch serviceentries/status shop/orphan 200"];
        self.check_told("the leader died", &once, &["orphan.example.com"])
            .await
    }

    /// A clock that is wrong shows in the Lease alone: nobody reads the time of day to know who
    /// leads. What a leader would write whose clock had jumped back, over and over for longer than
    /// the lease, makes nobody take over.
    pub(super) async fn clocks_decide_nothing(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let before = self.lease()?;
        // Each time another one, as of a clock that goes on: a Lease that says what it said before
        // is one that nobody renews.
        for second in 0..LEASE_TIME.as_secs() + 3 {
            self.write_lease_at(&format!("2000-01-01T00:00:{second:02}.000000Z"))?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let after = self.lease()?;
        for field in ["holderIdentity", "leaseTransitions"] {
            ensure!(before[field] == after[field], "{before} and {after}");
        }
        ensure!(self.replicas[at].leads().await? && !self.replicas[1 - at].leads().await?);
        self.check("the clock of the leader jumped back", &[]).await
    }

    fn lease(&self) -> anyhow::Result<Value> {
        Ok(get(&self.cluster, SYSTEM, &["lease", LEASE])?["spec"].take())
    }

    /// Has the Lease renewed at this time of day.
    fn write_lease_at(&self, time: &str) -> anyhow::Result<()> {
        let patch = json!({"spec": {"renewTime": time}}).to_string();
        let args = [
            "-n",
            SYSTEM,
            "patch",
            "lease",
            LEASE,
            "--type=merge",
            "-p",
            &patch,
        ];
        self.cluster.kubectl(&args).map(drop)
    }

    /// Two that believe to lead: one stands still until its term is over, which is what a jump of
    /// the only clock that terms are measured by, the monotonic one, is to its process. Before it
    /// stood still it renewed the Lease for a hundred years, as the time of day of its Lease says.
    pub(super) async fn the_leader_freezes_beyond_its_term(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let (frozen, other) = (&self.replicas[at], &self.replicas[1 - at]);
        frozen.freeze()?;
        self.write_lease_at("2126-01-01T00:00:00.000000Z")?;
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

    /// Of three kinds, some objects are changed, some deleted and some made while ambientd is down,
    /// and some are left alone.
    pub(super) async fn much_changes_while_nobody_runs(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        for lot in &LOTS {
            self.work(lot, Work::Make, 0..lot.before).await?;
        }
        self.cluster
            .kubectl(&["-n", "shop", "delete", "serviceentry", "orphan"])?;
        for at in [0, 1] {
            let wanted: usize = LOTS.iter().map(|lot| lot.before).sum();
            let is_there = |state: &MeshState| {
                let names = state.workloads.keys().chain(state.services.keys());
                let objects: BTreeSet<_> = names.map(|name| object_of(name)).collect();
                let of_lots = objects.iter().filter(|name| is_of_a_lot(name));
                of_lots.count() == wanted && !objects.contains("orphan")
            };
            let client = &self.clients[at];
            client.wait(SOON, |state, _| is_there(state)).await?;
        }
        println!("objects were made in {:?}", began.elapsed());
        let names = ["/vm-", "/many-", "orphan"];
        // With the first workloads that take tunnels, the warning goes that nobody is captured.
        let once = ["patch services/status shop/web 200"];
        self.check_told("much was made", &once, &names).await?;

        let connections = [0, 1].map(|at| self.connections(at));
        for replica in &mut self.replicas {
            replica.kill()?;
        }
        let began = Instant::now();
        let mut changed = 0;
        let mut wanted = BTreeSet::new();
        for lot in &LOTS {
            let [edited, deleted, made] = lot.ranges();
            changed += edited.len() + deleted.len() + made.len();
            let all = edited.clone().chain(deleted.clone()).chain(made.clone());
            wanted.extend(all.map(|at| lot.name(at)));
            self.work(lot, Work::Edit, edited).await?;
            self.work(lot, Work::Delete, deleted).await?;
            self.work(lot, Work::Make, made).await?;
        }
        ensure!(changed == CHANGED, "{changed}");
        println!("{changed} objects changed in {:?}", began.elapsed());
        for replica in &mut self.replicas {
            replica.spawn()?;
        }
        for (at, before) in connections.into_iter().enumerate() {
            self.wait_joined(at, before).await?;
            // The first answer holds all of it, and nothing else.
            let told: BTreeSet<_> = self.told(at).iter().map(|name| object_of(name)).collect();
            let missing: Vec<_> = wanted.difference(&told).take(5).collect();
            let odd: Vec<_> = told.difference(&wanted).take(5).collect();
            ensure!(missing.is_empty() && odd.is_empty(), "{missing:?} {odd:?}");
        }
        self.check_told("much changed while nobody ran", &[], &names[..2])
            .await
    }

    /// Does something to many objects, several at once.
    async fn work(&self, lot: &Lot, work: Work, range: Range<usize>) -> anyhow::Result<()> {
        let kind = resource(lot.group, "v1", lot.kind, lot.plural);
        let api = Api::<DynamicObject>::namespaced_with(self.kube.clone(), "shop", &kind);
        let mut tasks = JoinSet::new();
        for worker in 0..WORKERS {
            let (api, range, lot) = (api.clone(), range.clone(), *lot);
            tasks.spawn(async move {
                for at in range.skip(worker).step_by(WORKERS) {
                    let name = lot.name(at);
                    match work {
                        Work::Make => {
                            let object = serde_json::from_value(lot.object(at, 0))?;
                            api.create(&PostParams::default(), &object).await?;
                        }
                        Work::Edit => {
                            let patch = Patch::Merge(json!({"spec": lot.object(at, 1)["spec"]}));
                            api.patch(&name, &PatchParams::default(), &patch).await?;
                        }
                        Work::Delete => {
                            api.delete(&name, &DeleteParams::default()).await?;
                        }
                    }
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }
}

/// What is done to an object.
#[derive(Clone, Copy)]
enum Work {
    Make,
    Edit,
    Delete,
}

/// Objects of a kind: those that are there before, and how many of them, from the first one on,
/// are edited and then deleted; the others are left alone. Then come those that are made.
#[derive(Clone, Copy)]
struct Lot {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    before: usize,
    edited: usize,
    deleted: usize,
    made: usize,
}

// === impl Lot ===

impl Lot {
    /// Those that are edited, deleted and made.
    fn ranges(&self) -> [Range<usize>; 3] {
        let deleted = self.edited + self.deleted;
        [
            0..self.edited,
            self.edited..deleted,
            self.before..self.before + self.made,
        ]
    }

    fn name(&self, at: usize) -> String {
        match self.kind {
            "WorkloadEntry" => format!("vm-{at}"),
            "Service" => format!("many-{at}"),
            _ => format!("many-e{at}"),
        }
    }

    /// The object, in one of two ways to be.
    fn object(&self, at: usize, way: u16) -> Value {
        let (third, fourth) = (at / 250, at % 250 + 1);
        let spec = match self.kind {
            "WorkloadEntry" => json!({
                "address": format!("172.{}.{third}.{fourth}", 20 + way),
                "serviceAccount": "vm",
            }),
            "Service" => json!({"ports": [{"port": 80 + way, "name": "http"}]}),
            _ => json!({
                "hosts": [format!("{}.example.com", self.name(at))],
                "addresses": [format!("172.24.{third}.{fourth}")],
                "ports": [{"number": 80 + way, "name": "http", "protocol": "HTTP"}],
                "resolution": "STATIC",
                "endpoints": [{"address": format!("172.25.{third}.{fourth}")}],
            }),
        };
        let version = if self.group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{}/v1", self.group)
        };
        json!({
            "apiVersion": version, "kind": self.kind,
            "metadata": {
                "name": self.name(at),
                "labels": {"networking.istio.io/tunnel": "http"},
            },
            "spec": spec,
        })
    }
}

fn is_of_a_lot(name: &str) -> bool {
    name.starts_with("vm-") || name.starts_with("many-")
}

/// The name of the object that a resource is of, where it is one of a lot; a ServiceEntry has a
/// service, and a workload for its endpoint. Else the last part of the name, up to the first dot.
fn object_of(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let found = name.split('/').find(|part| is_of_a_lot(part));
    let name = found.unwrap_or(last);
    name.split('.').next().unwrap_or(name).to_owned()
}
