//! Requests from inside pods, one after the other, until told to stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use testkit::cluster::Cluster;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Longest run, should nobody stop it, seconds.
const RUN_MAX_S: u64 = 300;
/// Time that the last request may take.
const END: Duration = Duration::from_secs(30);

/// Load that runs.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    ns: String,
    pods: Vec<String>,
    /// The file in the pods that ends it.
    end: String,
    runs: JoinSet<anyhow::Result<String>>,
}

// === impl Load ===

impl<'a> Load<'a> {
    /// One client in each of the pods. Every request has a connection of its own.
    pub(crate) fn start(cluster: &'a Cluster, ns: &str, pods: Vec<String>, url: &str) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let file = format!("/tmp/stop-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let script = format!(
            "end=$(($(date +%s)+{RUN_MAX_S})); \
             until [ -e {file} ] || [ $(date +%s) -gt $end ]; do \
             curl -sS -m 10 -o /dev/null -w '%{{http_code}} %{{errormsg}}\\n' {url} 2>/dev/null; \
             sleep 0.02; done"
        );
        let mut runs = JoinSet::new();
        for pod in &pods {
            let args = ["-n", ns, "exec", pod, "--", "sh", "-c", &script];
            let mut command = Command::new(testkit::cluster::binary().unwrap());
            command
                .arg("kubectl")
                .args(args)
                .env("KUBECONFIG", cluster.kubeconfig())
                .env("KUBECACHEDIR", cluster.dir().join("kubectl-cache"))
                .kill_on_drop(true);
            runs.spawn(async move {
                let output = command.output().await?;
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            });
        }
        let ns = ns.to_owned();
        Self {
            cluster,
            ns,
            pods,
            end: file,
            runs,
        }
    }

    /// Ends it: how many requests had which outcome. `200` is one, failures are `000` and why.
    pub(crate) async fn stop(mut self) -> anyhow::Result<BTreeMap<String, usize>> {
        for pod in &self.pods {
            let args = ["-n", &self.ns, "exec", pod, "--", "touch", &self.end];
            self.cluster.kubectl(&args)?;
        }
        let mut told = BTreeMap::new();
        while !self.runs.is_empty() {
            let next = tokio::time::timeout(END, self.runs.join_next()).await;
            let text = next
                .context("load that does not end")?
                .context("no run")???;
            for line in text.lines() {
                *told.entry(line.trim().to_owned()).or_insert(0) += 1;
            }
        }
        Ok(told)
    }
}
