//! Traffic from productpage to reviews, counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use http::Method;

use super::world::World;
use crate::http_client;

/// Split between the versions by weight.
pub(super) const REVIEW: &str = "/reviews/1";
/// Goes to one version alone, so that each answer tells which configuration is in force.
pub(super) const PREVIEW: &str = "/reviews/preview";

/// How many requests run at once.
const WORKERS: usize = 4;

/// One request and its answer.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When the answer was complete.
    pub(super) at: Instant,
    /// What was asked for.
    pub(super) path: &'static str,
    /// Version of the workload that answered, or what went wrong.
    pub(super) answer: Result<String, String>,
}

/// Stops running traffic.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One request to reviews.
pub(super) async fn one(world: &World, path: &'static str) -> Sample {
    let answer = call(world, path)
        .await
        .map_err(|error| format!("{error:#}"));
    Sample {
        at: Instant::now(),
        path,
        answer,
    }
}

async fn call(world: &World, path: &str) -> anyhow::Result<String> {
    let request = http_client::request(Method::GET, "reviews:9080", path)?;
    let (answer, _) = world
        .request("productpage-0", world.vip("reviews")?, request)
        .await?;
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let seen = answer.json()?;
    seen["version"]
        .as_str()
        .map(str::to_owned)
        .context("the answer names no version")
}

/// A number of requests to the split, several at once.
pub(super) async fn burst(world: &World, count: u32) -> Vec<Sample> {
    let left = std::sync::atomic::AtomicU32::new(count);
    let worker = async || {
        let mut samples = Vec::new();
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
        {
            samples.push(one(world, REVIEW).await);
        }
        samples
    };
    futures::future::join_all((0..WORKERS).map(|_| worker()))
        .await
        .concat()
}

/// Requests one after another on each worker until told to stop.
pub(super) async fn until_stopped(world: &World, stop: &Stop) -> Vec<Sample> {
    let worker = async || {
        let mut samples = Vec::new();
        while !stop.0.load(Ordering::Relaxed) {
            samples.push(one(world, REVIEW).await);
            samples.push(one(world, PREVIEW).await);
        }
        samples
    };
    let mut all = futures::future::join_all((0..WORKERS).map(|_| worker()))
        .await
        .concat();
    all.sort_by_key(|s| s.at);
    all
}

/// Failures, by text.
pub(super) fn failures(samples: &[Sample]) -> Vec<&str> {
    samples
        .iter()
        .filter_map(|s| s.answer.as_ref().err().map(String::as_str))
        .collect()
}

/// Answers per version, in percent of all answers.
#[allow(clippy::cast_precision_loss, reason = "counts of a demo are small")]
pub(super) fn shares(samples: &[Sample]) -> BTreeMap<String, f64> {
    let versions: Vec<&String> = samples
        .iter()
        .filter_map(|s| s.answer.as_ref().ok())
        .collect();
    let mut shares = BTreeMap::new();
    for version in &versions {
        *shares.entry((*version).clone()).or_insert(0.0) += 100.0 / versions.len() as f64;
    }
    shares
}
