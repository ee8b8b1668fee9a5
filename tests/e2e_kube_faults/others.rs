//! What other people and tools do.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testkit::cluster::{Cluster, Part};
use testkit::ztunnel::MeshState;

use crate::common::{SOON, Write, apply_definitions, overwrite_status, until, writes};
use crate::world::{World, entry, texts};

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

/// What we write over that, without the code.
const OUR_ROOT: &str = "patch configmaps/ shop/istio-ca-root-cert";
const OUR_STATUS: &str = "patch authorizationpolicies/status shop/allow";
/// Longest wait for a status that others have undone too often in a minute.
const UNDONE: Duration = Duration::from_secs(180);
/// Writes of such a status: three at once, and one after each wait.
const STATUSES_MAX: usize = 5;

impl World {
    pub(super) async fn others_overwrite(&mut self) -> anyhow::Result<()> {
        const ROUNDS: usize = 10;
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
        let last = format!("round {}", ROUNDS - 1);
        for round in 0..ROUNDS {
            overwrite_status(
                &self.cluster,
                &OVERWRITE.replace("ROUND", &round.to_string()),
            )?;
            let patch = json!({"data": {"root-cert.pem": format!("{round}"), "mine": "kept"}});
            self.cluster
                .kubectl(&[&root[..], &[&patch.to_string()]].concat())?;
        }
        self.cluster
            .wait_for(&look, UNDONE, |text| {
                let now: Value = serde_json::from_str(text)?;
                let (map, policy) = (&now["items"][0], &now["items"][1]);
                let wanted = &before["items"][0]["data"]["root-cert.pem"];
                ensure!(map["data"]["root-cert.pem"] == *wanted, "the root");
                ensure!(map["data"]["mine"] == "kept", "a foreign key");
                let ours = condition(policy, "ZtunnelAccepted");
                ensure!(
                    ours == condition(&before["items"][1], "ZtunnelAccepted"),
                    "{ours}"
                );
                let foreign = condition(policy, "Audited");
                ensure!(foreign["message"] == last, "a foreign condition: {foreign}");
                Ok(())
            })
            .await?;
        let new = self.settled().await?;
        let (new, late) = texts(&new);
        let is_ours = |text: &&str| [OUR_ROOT, OUR_STATUS].contains(text);
        ensure!(
            late.len() <= 2 * ROUNDS && late.iter().all(is_ours),
            "{late:#?}"
        );
        let of = |part: &str| new.iter().filter(|text| text.contains(part)).count();
        let roots = of(OUR_ROOT);
        let statuses = of(OUR_STATUS);
        println!("{ROUNDS} overwrites: {roots} and {statuses} writes");
        ensure!((1..=ROUNDS).contains(&roots), "{new:#?}");
        ensure!((1..=STATUSES_MAX).contains(&statuses), "{new:#?}");
        ensure!(roots + statuses == new.len(), "{new:#?}");
        self.seen.writes = writes(&self.cluster)?.len();
        self.check("others overwrote", &[]).await?;
        self.fresh_leaders_write_nothing("others overwrote").await
    }

    pub(super) async fn definitions_go_and_come(&mut self) -> anyhow::Result<()> {
        let crd = "serviceentries.networking.istio.io";
        self.cluster.kubectl(&["delete", "crd", crd])?;
        let count = |state: &MeshState| {
            let names = state.services.keys();
            names.filter(|name| name.contains(".example.com")).count()
        };
        for client in &self.clients {
            client.wait(SOON, |state, _| count(state) == 0).await?;
        }
        apply_definitions(&self.cluster)?;
        until("entries are taken again", || {
            self.cluster.apply(&entry("again")).map(drop)
        })
        .await?;
        self.addresses_of("again").await?;
        for client in &self.clients {
            client.wait(SOON, |state, _| count(state) == 1).await?;
        }
        let once = ["patch serviceentries/status shop/again 200"];
        self.check_told("a definition went and came", &once, &[".example.com"])
            .await
    }

    pub(super) async fn a_namespace_goes_while_pods_drain(&mut self) -> anyhow::Result<()> {
        self.cluster.start_part(&Part::ControllerManager)?;
        self.cluster
            .kubectl(&["delete", "namespace", "going", "--wait=false"])?;
        // Pods go first; what else there is stays until they are gone.
        let is_draining = |state: &MeshState| {
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
        ends_alone_are_written(&new)?;
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
        println!("a namespace went: {new:?}");
        ends_alone_are_written(&new)?;
        self.seen.writes = writes(&self.cluster)?.len();
        self.check_told("a namespace went", &[], &["/going/", "going/"])
            .await?;
        self.fresh_leaders_write_nothing("a namespace went").await
    }
}

/// What may be written of a namespace that goes: its root, which was deleted before it was known
/// that the namespace ends, and which is refused then.
fn ends_alone_are_written(new: &[Write]) -> anyhow::Result<()> {
    let allowed = ["patch configmaps/ going/istio-ca-root-cert 403"];
    let is_allowed = |write: &Write| allowed.contains(&write.text.as_str());
    ensure!(new.len() <= 1 && new.iter().all(is_allowed), "{new:#?}");
    Ok(())
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

/// A condition of an object, but for its time.
fn condition(object: &Value, ty: &str) -> Value {
    let list = object["status"]["conditions"].as_array();
    let mut all = list.into_iter().flatten();
    let mut found = all
        .find(|one| one["type"] == ty)
        .cloned()
        .unwrap_or_default();
    if let Some(fields) = found.as_object_mut() {
        fields.remove("lastTransitionTime");
    }
    found
}
