//! The control plane itself, whole, with a source in memory: it is told of edits by lines.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ambientd::config::{Cli, Command};
use anyhow::{Context as _, bail};
use clap::Parser as _;
use model::object::Input;
use testkit::daemon::SERVER_NAME;
use testkit::load::world::{Spec, World, object};
use testkit::wait;
use tokio::sync::mpsc;

use super::child::Child;

/// The role's name.
pub(crate) const ROLE: &str = "memory-server";
/// Streams that may open in a second: the limit is not what is measured.
const STREAMS_PER_SECOND: &str = "100000";
const READY_LIMIT: Duration = Duration::from_secs(300);

/// A running one.
pub(crate) struct Server {
    child: Child,
    pub(crate) xds: SocketAddr,
}

impl Server {
    /// Starts one of a bare world and waits until it is ready.
    pub(crate) async fn start(state: &Path, pods: usize, log: &str) -> anyhow::Result<Self> {
        let port = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], wait::free_port()?)));
        let (xds, debug, ready) = (port()?, port()?, port()?);
        let text = |it: &dyn std::fmt::Display| it.to_string();
        let args = [
            ROLE.to_owned(),
            text(&state.display()),
            text(&pods),
            text(&xds),
            text(&debug),
            text(&ready),
            log.to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let child = Child::start(&args)?;
        wait::until("the control plane", READY_LIMIT, || async {
            let answer = testkit::http_client::get(ready, "/ready").await?;
            anyhow::ensure!(answer.status.is_success(), "not ready");
            Ok(())
        })
        .await?;
        Ok(Self { child, xds })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has a pod turn unready, or ready again.
    pub(crate) fn flip(&mut self, pod: usize) -> anyhow::Result<()> {
        self.child.say(&format!("flip {pod}"))
    }

    /// Has the label of a namespace change.
    pub(crate) fn relabel(&mut self, namespace: usize) -> anyhow::Result<()> {
        self.child.say(&format!("relabel {namespace}"))
    }
}

pub(crate) fn spec(pods: usize) -> Spec {
    Spec::of_pods(pods).bare()
}

/// The name of a pod's address.
pub(crate) fn workload(world: &World, pod: usize) -> String {
    let ns = world.namespace_name(world.namespace_of_pod(pod));
    format!("Kubernetes//Pod/{ns}/{}", world.pod_name(pod))
}

/// Names of addresses that change when the label of a namespace does.
pub(crate) fn services(world: &World, namespace: usize) -> String {
    let here = |it: &usize| world.namespace_of_service(*it) == namespace;
    let services: Vec<usize> = (0..world.spec().services).filter(here).collect();
    // The first one has a waypoint already.
    let ends = [services[1], services[services.len() - 1]];
    ends.map(|it| service(world, it)).join(",")
}

fn service(world: &World, service: usize) -> String {
    let ns = world.namespace_name(world.namespace_of_service(service));
    format!("{ns}/service-{service}.{ns}.svc.cluster.local")
}

/// The server's process.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let [state, pods, xds, debug, ready, log] = args else {
        bail!("{ROLE} is started by scenarios");
    };
    let mut world = World::generate(spec(pods.parse()?));
    let (feed, fed) = mpsc::channel(64);
    // Nothing of the objects is to be left in this process but what the server keeps.
    let inputs = world.inputs();
    feed.blocking_send(inputs).ok().context("no server")?;
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let line = line.expect("a line");
            let (what, at) = line.split_once(' ').expect("an order");
            let at: usize = at.parse().expect("a number");
            let edits = match what {
                "flip" => world.flip_readiness(at),
                _ => world.relabel_namespace(at),
            };
            let edits: Vec<Input> = edits.iter().map(|it| Input::Upsert(object(it))).collect();
            if feed.blocking_send(edits).is_err() {
                return;
            }
        }
        // Whoever started this is gone.
        std::process::exit(0);
    });
    let empty = tempfile::tempdir()?;
    let cli = Cli::try_parse_from([
        "ambientd",
        "serve",
        "--config-dir",
        &empty.path().display().to_string(),
        "--state-dir",
        state,
        "--xds-addr",
        xds,
        "--debug-addr",
        debug,
        "--ready-addr",
        ready,
        "--max-requests-per-second",
        STREAMS_PER_SECOND,
        "--serving-name",
        SERVER_NAME,
    ])?;
    let Command::Serve(args) = cli.command else {
        bail!("not serve");
    };
    ambientd::start_logging(log, false)?;
    ambientd::serve::run_fed(*args, Some(fed))
}
