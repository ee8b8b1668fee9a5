//! What must come of a request.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::call::{Answer, Outcome};

/// Points by which a share may miss, unless a row says otherwise: with 200 requests at 50 %
/// more than four standard deviations.
const TOLERANCE_POINTS: f64 = 15.0;

/// What must come of a request. What is not stated is not checked, except that the answer is 200.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) status: Option<u16>,
    /// Version of the workload that answered, or a list of those that may.
    backend: Option<Value>,
    /// What the workload saw.
    path: Option<String>,
    host: Option<String>,
    method: Option<String>,
    /// `null`: it is not there.
    #[serde(default)]
    request_headers: BTreeMap<String, Option<String>>,
    #[serde(default)]
    response_headers: BTreeMap<String, Option<String>>,
    body: Option<String>,
    grpc_status: Option<u32>,
    /// No answer at all.
    #[serde(default)]
    pub(crate) closed: bool,
    /// How often workloads were asked.
    attempts: Option<usize>,
    /// Who got copies.
    pub(crate) mirrored_to: Option<String>,
    #[serde(default)]
    pub(crate) not_mirrored: bool,
    min_seconds: Option<f64>,
    max_seconds: Option<f64>,
    /// Percent by version, or by status where no workload answered with 200.
    #[serde(default)]
    shares: BTreeMap<String, f64>,
    tolerance: Option<f64>,
    /// One workload answered all of them.
    #[serde(default)]
    same_backend: bool,
    /// More than one did.
    #[serde(default)]
    spread: bool,
    /// At least one of them was answered so, the others with 200.
    some: Option<u16>,
}

/// Whether a header is as wanted: absent, equal, or with these beginnings where a star ends it.
fn fits(got: Option<&str>, want: Option<&str>) -> bool {
    match (got, want.and_then(|want| want.strip_suffix('*'))) {
        (Some(got), Some(beginning)) => got.starts_with(beginning),
        _ => got == want,
    }
}

impl Expect {
    /// Of one request.
    pub(crate) fn check(&self, outcome: &Outcome, seen: &[String]) -> anyhow::Result<()> {
        let answer = match (outcome, self.closed) {
            (Outcome::Closed(_), true) => return Ok(()),
            (Outcome::Closed(why), false) => anyhow::bail!("no answer: {why}"),
            (Outcome::Answered(answer), true) => anyhow::bail!("answered: {}", answer.shown()),
            (Outcome::Answered(answer), false) => answer,
        };
        self.check_answer(answer, seen)
            .with_context(|| format!("answered: {}; asked: {seen:?}", answer.shown()))
    }

    fn check_answer(&self, answer: &Answer, seen: &[String]) -> anyhow::Result<()> {
        if self.shares.is_empty() && self.some.is_none() {
            let want = self.status.unwrap_or(200);
            ensure!(
                answer.status == want,
                "status {}, want {want}",
                answer.status
            );
        }
        let version = answer.version();
        match &self.backend {
            None => {}
            Some(Value::Array(list)) => {
                let one = list.iter().any(|want| want.as_str() == version);
                ensure!(one, "{version:?} answered, want one of {list:?}");
            }
            Some(want) => ensure!(
                want.as_str() == version,
                "{version:?} answered, want {want}"
            ),
        }
        for (field, want) in [
            ("path", &self.path),
            ("host", &self.host),
            ("method", &self.method),
        ] {
            if let Some(want) = want {
                let got = &answer.saw[field];
                ensure!(got == want, "the workload saw {field} {got}, want {want:?}");
            }
        }
        for (name, want) in &self.request_headers {
            let got = answer.saw["headers"][name].as_str();
            ensure!(answer.version().is_some(), "no workload answered");
            ensure!(
                got == want.as_deref(),
                "the workload saw {name}: {got:?}, want {want:?}"
            );
        }
        for (name, want) in &self.response_headers {
            let got = joined(&answer.headers, name);
            ensure!(
                fits(got.as_deref(), want.as_deref()),
                "response header {name}: {got:?}, want {want:?}"
            );
        }
        if let Some(want) = &self.body {
            ensure!(
                answer.body == *want,
                "body {:?}, want {want:?}",
                answer.body
            );
        }
        if let Some(want) = self.grpc_status {
            ensure!(
                answer.grpc == Some(want),
                "gRPC status {:?}, want {want}",
                answer.grpc
            );
        }
        if let Some(want) = self.attempts {
            ensure!(seen.len() == want, "{} attempts, want {want}", seen.len());
        }
        let (least, most) = (self.min_seconds, self.max_seconds);
        ensure!(
            least.is_none_or(|least| answer.seconds >= least),
            "after {} s",
            answer.seconds
        );
        ensure!(
            most.is_none_or(|most| answer.seconds <= most),
            "after {} s",
            answer.seconds
        );
        Ok(())
    }

    /// Of all requests together.
    pub(crate) fn check_all(&self, outcomes: &[Outcome]) -> anyhow::Result<()> {
        let mut counts = BTreeMap::<String, usize>::new();
        for outcome in outcomes {
            let what = match outcome {
                Outcome::Closed(_) => "closed".to_owned(),
                Outcome::Answered(answer) => match answer.version() {
                    Some(version) if answer.status == 200 => version.to_owned(),
                    _ => answer.status.to_string(),
                },
            };
            *counts.entry(what).or_default() += 1;
        }
        let names: BTreeSet<_> = counts.keys().collect();
        ensure!(
            !self.same_backend || names.len() == 1,
            "not one for all: {counts:?}"
        );
        ensure!(!self.spread || names.len() > 1, "one for all: {counts:?}");
        if let Some(some) = self.some {
            ensure!(
                counts.contains_key(&some.to_string()),
                "none with {some}: {counts:?}"
            );
            let other = counts.keys().find(|name| {
                name.parse::<u16>().is_ok_and(|status| status != some) || *name == "closed"
            });
            ensure!(other.is_none(), "others too: {counts:?}");
        }
        if self.shares.is_empty() {
            return Ok(());
        }
        let all = outcomes.len() as f64;
        let tolerance = self.tolerance.unwrap_or(TOLERANCE_POINTS);
        for (name, want) in &self.shares {
            let got = counts.get(name).copied().unwrap_or_default() as f64 / all * 100.0;
            ensure!(
                (got - want).abs() <= tolerance,
                "{name} has {got} %, want {want}: {counts:?}"
            );
        }
        let other = counts.keys().find(|name| !self.shares.contains_key(*name));
        ensure!(other.is_none(), "others too: {counts:?}");
        Ok(())
    }
}

fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let all: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    (!all.is_empty()).then(|| all.join(","))
}
