//! `waypoint-cold`: the first proxy of a waypoint with 1,000 services connects, so that all its
//! resources are generated; against encoding the same messages once with prost.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use envoy::messages::messages;
use proto::discovery::Resource;
use testkit::ads::waypoint_node;
use testkit::daemon::Daemon;
use testkit::load::envoy::{Plan, Waypoint};
use testkit::load::process;
use testkit::load::table::{Measure, Table};
use testkit::load::world::{Spec, World};

use super::Options;

const SERVICES: usize = 1_000;
const SOON: Duration = Duration::from_secs(60);
/// Processor time is counted in hundredths of a second: many connections make one number.
const CONNECTIONS: usize = 10;

/// Runs the scenario.
pub(crate) async fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let services = if options.quick {
        SERVICES / 10
    } else {
        SERVICES
    };
    let spec = Spec {
        waypoints: 1,
        bound_every: 1,
        services,
        routes: services / 2,
        namespaces: 1,
        ..Spec::of_pods(options.pods.unwrap_or(services * 10))
    };
    let world = World::generate(spec);
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("config");
    world.write_dir(&config)?;
    let daemon = Daemon::start(&config, &scratch.path().join("state")).await?;
    let server = daemon.id().context("the control plane has ended")?;
    let (ns, name) = world.waypoint_name(0);
    let target = daemon.xds_as(&ns, &name)?;
    let node = waypoint_node(&ns, &name, "10.128.0.1");

    // Once to learn what it asks for, which Envoy need not spend time on.
    let mut first = Waypoint::connect(&target, node.clone(), Plan::default()).await?;
    let plan = first.settle(SOON).await?.plan;
    drop(first);
    for _ in 0..options.runs {
        let (mut wall, mut bytes, mut messages) = (Duration::ZERO, 0, 0);
        let mut resources = Vec::new();
        let busy = process::cpu_seconds(server)?;
        for _ in 0..CONNECTIONS {
            // The last one that left takes the waypoint's resources with it.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let began = Instant::now();
            let mut client = Waypoint::connect(&target, node.clone(), plan.clone()).await?;
            let settled = client.settle(SOON).await?;
            wall += began.elapsed();
            (bytes, messages) = (settled.bytes, settled.messages);
            resources = settled.resources;
        }
        let each = 1.0 / CONNECTIONS as f64;
        let busy = (process::cpu_seconds(server)? - busy) * each;
        let floor = tokio::task::spawn_blocking(move || encode(&resources)).await??;
        table.add(
            "connected to last ACK",
            Measure::Millis(wall.as_secs_f64() * each * 1e3),
        );
        table.add("resources, encoded", Measure::Bytes(bytes as f64));
        table.add("responses", Measure::Count(messages as f64));
        table.add("server CPU", Measure::Millis(busy * 1e3));
        table.add(
            "floor: encoding the same messages once",
            Measure::Millis(floor * 1e3),
        );
        table.add("server against the floor", Measure::Ratio(busy / floor));
    }
    Ok(())
}

/// Processor seconds for encoding all messages once, with those inside listeners that are
/// messages of their own.
fn encode(resources: &[Resource]) -> anyhow::Result<f64> {
    const TIMES: u32 = 20;
    let mut all = Vec::new();
    for any in resources
        .iter()
        .filter_map(|resource| resource.resource.as_ref())
    {
        let of_one = messages(&any.type_url, &any.value)?;
        anyhow::ensure!(
            !of_one.is_empty(),
            "{} is nothing that waypoints ask for",
            any.type_url
        );
        all.extend(of_one);
    }
    let began = process::cpu_seconds(std::process::id())?;
    for _ in 0..TIMES {
        for message in &all {
            std::hint::black_box(message.encode());
        }
    }
    Ok((process::cpu_seconds(std::process::id())? - began) / f64::from(TIMES))
}
