//! Claims as they stand in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

/// What is asked of one world.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// First part of the folder's name.
    pub(crate) world: String,
    #[serde(default)]
    pub(crate) claims: Vec<Claim>,
    /// Claims of which all or a part cannot be seen here, and why.
    #[serde(default)]
    not_here: BTreeMap<u32, String>,
}

/// One claim, or a part of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    claim: u32,
    /// What is changed in the world before; undone after it.
    #[serde(default)]
    pub(crate) edit: Vec<Edit>,
    pub(crate) rows: Vec<Row>,
}

/// A change of the objects of a world.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    /// `Kind namespace/name`, or `Kind name` of what has no namespace.
    pub(crate) object: Option<String>,
    /// What of it changes, as in a JSON merge patch.
    pub(crate) merge: Option<Value>,
    #[serde(default)]
    pub(crate) remove: bool,
    pub(crate) add: Option<Value>,
    /// Lets the node capture the pods of a namespace that may be captured.
    pub(crate) capture: Option<String>,
    /// Reads everything in the opposite order.
    #[serde(default)]
    pub(crate) reverse: bool,
    /// Ends the control plane at once and starts it again.
    #[serde(default)]
    pub(crate) restart: bool,
}

/// One request, or several alike, and what must come of it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// The pod that asks.
    #[serde(rename = "as")]
    pub(crate) caller: String,
    /// `METHOD URL`, or several; the method GRPC calls `/Service/Method`. A host in braces is the
    /// address of that pod.
    pub(crate) ask: OneOrMore,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Names of tokens of the guides, or `text:` and what stands for a token; each is tried.
    pub(crate) token: Option<OneOrMore>,
    #[serde(default = "once")]
    pub(crate) times: usize,
    /// The waypoint on the way, or `none`.
    pub(crate) via: Option<String>,
    /// No answer: a node proxy refuses.
    #[serde(default)]
    pub(crate) reset: bool,
    /// No answer, or none that is understood: nobody refuses, it just does not work.
    #[serde(default)]
    pub(crate) fails: bool,
    /// 200 unless said.
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u32>,
    /// Pods one of which must have answered.
    pub(crate) from: Option<OneOrMore>,
    /// Percent by pod, or by status where no pod answered with 200; with a share of 200 all by
    /// status.
    #[serde(default)]
    pub(crate) shares: BTreeMap<String, f64>,
    /// Percent that took so many seconds or longer.
    pub(crate) slow: Option<(f64, f64)>,
    pub(crate) min_seconds: Option<f64>,
    pub(crate) max_seconds: Option<f64>,
    /// How often pods were asked.
    pub(crate) asked: Option<usize>,
    /// Whether the external authorizer was.
    pub(crate) authorizer_asked: Option<bool>,
    pub(crate) body: Option<String>,
    /// Headers that the answer does not have.
    #[serde(default)]
    pub(crate) without: Vec<String>,
    /// The name that the external server was called by in TLS.
    pub(crate) sni: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

const fn once() -> usize {
    1
}

impl Claim {
    pub(crate) fn number(&self) -> u32 {
        self.claim
    }
}

impl Table {
    /// Waypoints that requests pass.
    pub(crate) fn waypoints(&self) -> BTreeSet<&str> {
        let rows = self.claims.iter().flat_map(|claim| &claim.rows);
        let all = rows.filter_map(|row| row.via.as_deref());
        all.filter(|via| *via != "none").collect()
    }

    /// That every claim about requests is in the table, and nothing that is not claimed.
    pub(crate) fn ensure_complete(&self, folder: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(folder.join("claims.md"))?;
        let claims = text.lines().filter_map(|line| {
            let (number, said) = line.split_once(". ")?;
            Some((number.parse::<u32>().ok()?, said))
        });
        let claims: Vec<_> = claims.collect();
        let run = self.claims.iter().map(Claim::number);
        let known: BTreeSet<u32> = run.chain(self.not_here.keys().copied()).collect();
        let about_requests = claims.iter().filter(|(_, said)| said.contains("[request]"));
        let missing: Vec<_> = about_requests
            .filter(|(number, _)| !known.contains(number))
            .collect();
        ensure!(missing.is_empty(), "neither run nor listed: {missing:?}");
        let unclaimed = known
            .iter()
            .find(|number| claims.iter().all(|(is, _)| is != *number));
        ensure!(unclaimed.is_none(), "there is no claim {unclaimed:?}");
        let without_reason = self.not_here.iter().find(|(_, why)| why.len() < 20);
        ensure!(without_reason.is_none(), "no reason: {without_reason:?}");
        Ok(())
    }
}

/// All tables.
pub(crate) fn tables() -> Vec<Table> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e_guides/claims.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Where the guides are; `None` without them.
pub(crate) fn guides() -> Option<PathBuf> {
    let path = std::env::var_os("AMBIENTD_GUIDES").map(PathBuf::from);
    path.or_else(|| {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/testing/guides");
        beside.is_dir().then_some(beside)
    })
}

/// The folder of a world.
pub(crate) fn folder(guides: &Path, world: &str) -> anyhow::Result<PathBuf> {
    let begin = format!("{world}-");
    let found = std::fs::read_dir(guides)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&begin))
        });
    found.with_context(|| format!("no guide {world}"))
}
