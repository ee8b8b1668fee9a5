//! The canary: measured, edited under traffic, measured again.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::report::Report;
use super::traffic::{self, PREVIEW, Sample, Stop};
use super::world::{SPLIT_FILE, World};

/// How many standard deviations the observed share may lie from the configured one: a
/// right split fails once in 100 000 measurements.
const TOLERANCE_DEVIATIONS: f64 = 4.5;
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// How long traffic runs before the file is edited.
const LEAD: Duration = Duration::from_millis(500);

pub(super) async fn show(world: &World, report: &mut Report, count: u32) -> anyhow::Result<()> {
    report.heading("A canary, changed under traffic");
    report.progress(&format!("{count} requests before the change"));
    measure(world, report, count, "80/20", 20.0).await;

    let file = world.split_file();
    let old = std::fs::read_to_string(&file)?;
    let new = swapped(&old)?;
    let stop = Stop::default();
    report.progress(&format!(
        "editing {SPLIT_FILE} from 80/20 to 20/80 while requests run"
    ));
    let edit = async {
        tokio::time::sleep(LEAD).await;
        let edited = Instant::now();
        let written = world.replace_file(&file, &new);
        let seen = async {
            loop {
                let sample = traffic::one(world, PREVIEW).await;
                if sample.answer.as_ref().is_ok_and(|version| version == "v2") {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(CHANGE_LIMIT, seen).await;
        tokio::time::sleep(LEAD).await;
        stop.stop();
        written.map(|()| edited)
    };
    let (samples, edited) = tokio::join!(traffic::until_stopped(world, &stop), edit);
    let edited = edited?;
    let preview_by = |version: &'static str| {
        samples
            .iter()
            .filter(move |s| s.path == PREVIEW && s.answer.as_ref().is_ok_and(|v| v == version))
    };
    let after = |sample: &Sample| sample.at.saturating_duration_since(edited).as_millis();
    match (preview_by("v2").next(), preview_by("v1").next_back()) {
        (Some(first), last_old) => {
            report.claim(
                true,
                &format!(
                    "first response under the new configuration {} ms after the edit",
                    after(first)
                ),
            );
            if let Some(last_old) = last_old {
                let text = format!(
                    "last response under the old one after {} ms",
                    after(last_old)
                );
                report.line(&format!("     {text}"));
            }
        }
        (None, _) => {
            report.claim(
                false,
                &format!("no response under the new configuration in {CHANGE_LIMIT:?}"),
            );
        }
    }
    let failed = traffic::failures(&samples);
    report.claim(
        failed.is_empty(),
        &format!(
            "{} requests while it changed, {} failed{}",
            samples.len(),
            failed.len(),
            failed.first().map(|f| format!(": {f}")).unwrap_or_default()
        ),
    );
    report.progress(&format!("{count} requests after the change"));
    measure(world, report, count, "20/80", 80.0).await;
    world.envoy.assert_no_nacks().await
}

async fn measure(world: &World, report: &mut Report, count: u32, split: &str, v2_percent: f64) {
    let deviation = (v2_percent * (100.0 - v2_percent) / f64::from(count)).sqrt();
    let tolerance = TOLERANCE_DEVIATIONS * deviation;
    let samples = traffic::burst(world, count).await;
    let failed = traffic::failures(&samples);
    let shares = traffic::shares(&samples);
    let share = |version: &str| shares.get(version).copied().unwrap_or_default();
    report.claim(
        failed.is_empty() && (share("v2") - v2_percent).abs() <= tolerance,
        &format!(
            "configured {split}: observed v1 {:.1} %, v2 {:.1} % of {count}, {} failed{}",
            share("v1"),
            share("v2"),
            failed.len(),
            failed.first().map(|f| format!(": {f}")).unwrap_or_default()
        ),
    );
}

/// The split the other way round.
fn swapped(old: &str) -> anyhow::Result<String> {
    let mut new = old.to_owned();
    for (left, right) in [("80", "20"), ("100", "0")] {
        let (left, right) = (format!("weight: {left}\n"), format!("weight: {right}\n"));
        for part in [&left, &right] {
            ensure!(
                old.matches(part.as_str()).count() == 1,
                "{SPLIT_FILE} must say {part:?} once"
            );
        }
        new = new
            .replace(&left, "@")
            .replace(&right, &left)
            .replace('@', &right);
    }
    Ok(new)
}
