//! What is written to a real API server: statuses, addresses, findings, Events and roots, by one
//! of two replicas, once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;
#[path = "e2e_kube_writers/tags.rs"]
mod tags;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube_io::client::{ClientOptions, connect};
use kube_io::election::{self, ElectionConfig};
use kube_io::events::{self, EventWriter};
use kube_io::roots::{self, RootNames, RootWriter, Roots};
use kube_io::source::{self, SourceConfig};
use kube_io::status::{self, StatusWriter, WriteLimits, WriteScope};
use kube_io::{Health, Leadership, Observed, Reports, Term, WriteMetrics};
use pipeline::{MeshDefaults, Pipeline};
use serde_json::Value;
use testkit::cluster::Cluster;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use common::{conditions, overwrite_status, prepared, replica, until};

const OBJECTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {istio.io/use-waypoint: nowhere}}
spec: {ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec:
  hosts: [a.example.com, b.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
  location: MESH_EXTERNAL
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec: {rules: [{from: [{source: {namespaces: [shop]}}]}]}
";

/// What another tool says of the policy.
const FOREIGN: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
status:
  conditions:
  - {type: Audited, status: "True", reason: Fine, message: by another tool, lastTransitionTime: "2026-01-01T00:00:00Z"}
"#;

/// A replica: everything that reads and writes, but no server.
struct Replica {
    terms: watch::Receiver<Option<Term>>,
    roots: watch::Sender<Roots>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

// === impl Replica ===

impl Replica {
    async fn start(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        Self::start_with(cluster, name, MeshDefaults::default()).await
    }

    /// Starts with these settings.
    async fn start_with(
        cluster: &Cluster,
        name: &str,
        defaults: MeshDefaults,
    ) -> anyhow::Result<Self> {
        let token = replica::token(cluster, &[])?;
        let options = ClientOptions {
            kubeconfig: Some(replica::kubeconfig(cluster, name, Some(&token), None)?),
            ..ClientOptions::default()
        };
        let client = connect(&options).await?;
        let (inputs, mut batches) = mpsc::channel(64);
        let (publish, snapshots) = watch::channel(None);
        let (grant, terms) = watch::channel(None);
        let roots_now = Roots {
            root_pem: "ROOT\n".to_owned(),
            crl_pem: Some(String::new()),
        };
        let (roots, bundles) = watch::channel(roots_now);
        let (observed, stop, mut tasks) = (
            Observed::default(),
            CancellationToken::new(),
            JoinSet::new(),
        );
        let metrics = WriteMetrics::register(&prometheus::Registry::new())?;
        let reports = Reports::new(inputs.clone());
        let leadership = Leadership::new(terms.clone());
        let source = source::run(
            SourceConfig::new(client.clone()),
            inputs,
            observed.clone(),
            Health::default(),
            stop.clone(),
        );
        tasks.spawn(async move { source.await.unwrap() });
        tasks.spawn(async move {
            let mut pipeline = Pipeline::new(defaults);
            while let Some(batch) = batches.recv().await {
                if let Some(snapshot) = pipeline.apply(batch) {
                    publish.send_replace(Some(snapshot));
                }
            }
        });
        let election = ElectionConfig {
            lease: Duration::from_secs(6),
            renew_deadline: Duration::from_secs(4),
            retry: Duration::from_secs(1),
            ..ElectionConfig::new("istio-system", "", name)
        };
        tasks.spawn(election::run(client.clone(), election, grant, stop.clone()));
        tasks.spawn(status::run(
            StatusWriter {
                client: client.clone(),
                leadership: leadership.clone(),
                snapshots: snapshots.clone(),
                observed: observed.clone(),
                metrics: metrics.clone(),
                reports: reports.clone(),
                limits: WriteLimits::default(),
                scope: WriteScope::ALL,
            },
            stop.clone(),
        ));
        tasks.spawn(roots::run(
            RootWriter {
                client: client.clone(),
                leadership: leadership.clone(),
                bundles,
                snapshots: snapshots.clone(),
                system_namespace: "istio-system".to_owned(),
                names: RootNames::default(),
                metrics: metrics.clone(),
                reports: reports.clone(),
            },
            stop.clone(),
        ));
        tasks.spawn(events::run(
            EventWriter {
                client,
                leadership,
                snapshots,
                observed,
                identity: name.to_owned(),
                metrics,
                reports,
            },
            stop.clone(),
        ));
        Ok(Self {
            terms,
            roots,
            stop,
            tasks,
        })
    }

    fn leads(&self) -> bool {
        Leadership::new(self.terms.clone()).term().is_some()
    }

    /// Ends like a process that is killed: nothing is released.
    async fn kill(mut self) {
        self.tasks.shutdown().await;
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn get(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Value> {
    common::get(cluster, "shop", args)
}

/// The texts of all writes once no more of them come.
async fn settled(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let all = common::settled(cluster, Duration::from_secs(6)).await?;
    Ok(all.into_iter().map(|write| write.text).collect())
}

fn root_is(cluster: &Cluster, ns: &str, wanted: &str) -> anyhow::Result<()> {
    let map = common::get(cluster, ns, &["configmap", "istio-ca-root-cert"])?;
    ensure!(map["data"]["root-cert.pem"] == wanted, "{}", map["data"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_writes_each_thing_once_and_the_next_goes_on() -> anyhow::Result<()> {
    let cluster = prepared().await?;
    until("objects are taken", || cluster.apply(OBJECTS).map(|_| ())).await?;
    overwrite_status(&cluster, FOREIGN)?;

    let a = Replica::start(&cluster, "a").await?;
    until("a leads", || {
        ensure!(a.leads(), "not yet");
        Ok(())
    })
    .await?;
    let b = Replica::start(&cluster, "b").await?;

    until("the service says that its waypoint is missing", || {
        let all = conditions(&get(&cluster, &["service", "cart"])?);
        ensure!(
            all == [
                "ambientd.io/Findings=True/WpMissing",
                "istio.io/WaypointBound=False/WaypointIsNotReady"
            ],
            "{all:?}"
        );
        Ok(())
    })
    .await?;
    until("the entry has addresses", || {
        let entry = get(&cluster, &["serviceentry", "outside"])?;
        let all = entry["status"]["addresses"].as_array().context("none")?;
        ensure!(all.len() == 4, "{all:?}");
        Ok(())
    })
    .await?;
    until(
        "the policy is accepted, and what another tool said is still there",
        || {
            let all = conditions(&get(&cluster, &["authorizationpolicy", "allow"])?);
            ensure!(
                all == ["Audited=True/Fine", "ZtunnelAccepted=True/Accepted"],
                "{all:?}"
            );
            Ok(())
        },
    )
    .await?;
    until("roots are in every namespace", || {
        for ns in ["shop", "istio-system", "kube-system", "default"] {
            root_is(&cluster, ns, "ROOT\n")?;
        }
        Ok(())
    })
    .await?;
    ensure!(
        cluster
            .kubectl(&[
                "get",
                "configmap",
                "istio-ca-root-cert",
                "-n",
                "kube-public"
            ])
            .is_err()
    );
    until("kubectl describes the error", || {
        let text = cluster.kubectl(&["describe", "service", "cart", "-n", "shop"])?;
        ensure!(text.contains("WpMissing"), "{text}");
        let events = get(&cluster, &["events"])?;
        ensure!(
            events["items"].to_string().contains("WpMissing"),
            "{events}"
        );
        Ok(())
    })
    .await?;

    let first = settled(&cluster).await?;
    let of = |all: &[String], what: &str| all.iter().filter(|line| line.contains(what)).count();
    // Two managers on the service, one on the entry (addresses) and its conditions at most.
    ensure!(
        of(&first, "services/status shop/cart 200") == 2,
        "{first:#?}"
    );
    ensure!(
        of(&first, "serviceentries/status shop/outside 200") == 1,
        "{first:#?}"
    );
    ensure!(
        of(&first, "authorizationpolicies/status shop/allow 200") == 1,
        "{first:#?}"
    );
    ensure!(
        of(&first, "create configmaps/ shop/istio-ca-root-cert 201") == 1,
        "{first:#?}"
    );
    ensure!(of(&first, "create events/ shop/") == 1, "{first:#?}");

    // The leader dies, and with it what it would have said of an edit.
    let began = Instant::now();
    a.kill().await;
    cluster.kubectl(&[
        "label",
        "service",
        "cart",
        "-n",
        "shop",
        "istio.io/use-waypoint-",
    ])?;
    until("the next one takes back what no longer holds", || {
        let all = conditions(&get(&cluster, &["service", "cart"])?);
        ensure!(all.is_empty(), "{all:?}");
        Ok(())
    })
    .await?;
    ensure!(b.leads());
    println!("took over within {:?}", began.elapsed());
    let second = settled(&cluster).await?;
    ensure!(
        of(&second, "services/status shop/cart 200") == 4,
        "{second:#?}"
    );
    ensure!(second.len() == first.len() + 2, "{second:#?}");

    // Somebody edits and deletes.
    cluster.kubectl(&[
        "patch",
        "configmap",
        "istio-ca-root-cert",
        "-n",
        "shop",
        "-p",
        r#"{"data":{"root-cert.pem":"bad","mine":"kept"}}"#,
    ])?;
    until("an edited root is put right", || {
        root_is(&cluster, "shop", "ROOT\n")
    })
    .await?;
    let map = get(&cluster, &["configmap", "istio-ca-root-cert"])?;
    ensure!(map["data"]["mine"] == "kept", "{map}");
    cluster.kubectl(&["delete", "configmap", "istio-ca-root-cert", "-n", "shop"])?;
    until("a deleted root comes back", || {
        root_is(&cluster, "shop", "ROOT\n")
    })
    .await?;
    b.roots.send_replace(Roots {
        root_pem: "NEW\n".to_owned(),
        crl_pem: Some(String::new()),
    });
    until("a new root goes everywhere", || {
        root_is(&cluster, "shop", "NEW\n")?;
        root_is(&cluster, "kube-system", "NEW\n")
    })
    .await?;

    // Others write to the same list, again and again.
    for number in 0..10 {
        let text = FOREIGN.replace("by another tool", &format!("again {number}"));
        overwrite_status(&cluster, &text)?;
    }
    until("both stay", || {
        let all = conditions(&get(&cluster, &["authorizationpolicy", "allow"])?);
        ensure!(
            all == ["Audited=True/Fine", "ZtunnelAccepted=True/Accepted"],
            "{all:?}"
        );
        Ok(())
    })
    .await?;

    let before = settled(&cluster).await?;
    cluster.kubectl(&["delete", "namespace", "shop", "--wait=false"])?;
    until("a namespace goes", || {
        ensure!(
            cluster.kubectl(&["get", "namespace", "shop"]).is_err(),
            "still there"
        );
        Ok(())
    })
    .await?;
    let after = settled(&cluster).await?;
    ensure!(
        after.len() <= before.len() + 5,
        "{:#?}",
        &after[before.len()..]
    );

    b.stop().await;
    let lease = [
        "get",
        "lease",
        "istio-status-leader",
        "-n",
        "istio-system",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    ensure!(cluster.kubectl(&lease)?.is_empty(), "not released");
    Ok(())
}
