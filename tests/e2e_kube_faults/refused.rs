//! That servers refuse nothing but while they start, and that this is never told as more.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use testkit::cluster::Cluster;

use crate::common::{ACCOUNT, SOON};
use crate::world::World;

/// What a finding or a line of the log has that tells of a missing right.
const REFUSALS: [&str; 3] = [
    "kube-forbidden",
    "kube-write-forbidden",
    "kube-review-failed",
];

impl World {
    /// Says that a server ends and starts from now on, until [`Self::server_is_back`].
    pub(super) fn server_goes(&mut self) -> anyhow::Result<()> {
        self.starts.push(self.asked()?..usize::MAX);
        Ok(())
    }

    /// Waits until the API server answers well, and somebody leads.
    pub(super) async fn server_is_back(&mut self) -> anyhow::Result<()> {
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        let now = self.asked()?;
        self.starts.last_mut().context("no server went")?.end = now;
        Ok(())
    }

    /// That a server which started was never taken for one that had withdrawn a right, and that
    /// nothing was refused at any other time.
    pub(super) async fn nobody_was_refused(&self) -> anyhow::Result<()> {
        let mut text = String::new();
        for replica in &self.replicas {
            let page = replica.page("/debug/findings").await?;
            for code in REFUSALS.iter().filter(|code| page.contains(*code)) {
                let _ = writeln!(text, "{} has {code}", replica.name);
            }
        }
        for (name, log) in logs(&self.cluster)? {
            // The token of one ends, and of some nobody is there to ask what tokens are worth.
            let is_told = |line: &str| REFUSALS.iter().any(|code| line.contains(code));
            let is_refusal = |line: &&str| {
                is_told(line) && (!line.contains(REFUSALS[2]) || line.contains(" 403 "))
            };
            if name == "rotated" {
                continue;
            }
            for line in log.lines().filter(is_refusal) {
                let _ = writeln!(text, "{name}: {line}");
            }
        }
        let mut at_starts = 0;
        for (at, event) in self.cluster.audit()?.enumerate() {
            let status = &event["responseStatus"];
            let reason = status["message"].as_str().unwrap_or_default();
            if event["user"]["username"] != ACCOUNT
                || status["code"] != 403
                || reason.contains("because it is being terminated")
            {
                continue;
            }
            if self.starts.iter().any(|range| range.contains(&at)) {
                at_starts += 1;
            } else {
                let _ = writeln!(text, "refused, number {at} of {:?}: {event}", self.starts);
            }
        }
        println!("{at_starts} requests were refused by servers that started");
        ensure!(text.is_empty(), "{text}");
        Ok(())
    }
}

/// Everything that any replica has said.
fn logs(cluster: &Cluster) -> anyhow::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(cluster.dir())? {
        let path = file?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|it| it == "log") && !["audit", "cluster"].contains(&&*name)
        {
            all.push((name.into_owned(), std::fs::read_to_string(&path)?));
        }
    }
    ensure!(all.len() >= 3, "{} logs", all.len());
    Ok(all)
}
