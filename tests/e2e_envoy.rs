//! Every scenario with a waypoint, loaded into a live Envoy that must take all of it.
//!
//! `ambientd serve` and a real Envoy run as processes; what Envoy must end up with is
//! what `ambientd render` says of the same directory.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use common::Held;
use libtest_mimic::{Arguments, Failed, Trial};
use model::{ObjectKey, ProxyClass};
use testkit::daemon::{BootstrapRequest, Daemon};
use testkit::envoy::{self, Envoy};
use testkit::scenario::{ClientRole, Scenario};
use testkit::wait;

/// Every third proxy speaks state-of-the-world ADS.
const SOTW_EVERY: usize = 3;
const LIMIT: Duration = Duration::from_secs(20);

/// One proxy of one scenario.
struct Load {
    dir: PathBuf,
    kind: &'static str,
    gateway: ObjectKey,
    ip: String,
    sotw: bool,
}

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("clients.yaml").is_file())
        .collect();
    dirs.sort();
    let mut trials = Vec::new();
    for dir in dirs {
        let folder = dir.file_name().unwrap().to_string_lossy().into_owned();
        let scenario = match Scenario::load(&dir) {
            Ok(scenario) => scenario,
            Err(error) => {
                let failed = Failed::from(format!("{error:#}"));
                trials.push(Trial::test(folder, move || Err(failed)));
                continue;
            }
        };
        for (client, role) in scenario.clients {
            let (kind, gateway) = match role {
                ClientRole::Waypoint(gateway) => ("waypoint", gateway),
                ClientRole::Classed(class)
                    if *class == ProxyClass::ingress(class.gateway.clone()) =>
                {
                    ("gateway", class.gateway)
                }
                ClientRole::Classed(class)
                    if *class == ProxyClass::east_west(class.gateway.clone()) =>
                {
                    ("gateway", class.gateway)
                }
                _ => continue,
            };
            let n = trials.len();
            let sotw = n % SOTW_EVERY == SOTW_EVERY - 1;
            let flavour = if sotw { "sotw" } else { "delta" };
            let load = Load {
                dir: dir.clone(),
                kind,
                gateway,
                ip: format!("127.40.{n}.1"),
                sotw,
            };
            trials.push(Trial::test(
                format!("{folder}/{client}/{flavour}"),
                move || {
                    common::runtime()
                        .block_on(load.run())
                        .map_err(|error| Failed::from(format!("{error:#}")))
                },
            ));
        }
    }
    if trials.is_empty() {
        trials.push(Trial::test("some scenario has a waypoint", || {
            Err(Failed::without_message())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

impl Load {
    async fn run(self) -> anyhow::Result<()> {
        envoy::binary()?;
        let dir = tempfile::TempDir::with_prefix("ambientd-e2e-")?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        let scenario = Scenario::load(&self.dir)?;
        std::fs::write(config.join("world.yaml"), scenario.final_world()?)?;
        let flags = scenario.flags();
        let want = Held::rendered_with(&config, self.kind, &self.gateway, &flags)?;

        let state = dir.path().join("state");
        let daemon = Daemon::start_with(&config, &state, flags).await?;
        let bootstrap = dir.path().join("waypoint.yaml");
        let request = BootstrapRequest {
            kind: self.kind,
            ns: self.gateway.ns.to_string(),
            name: self.gateway.name.to_string(),
            ip: self.ip.clone(),
            admin_port: 0,
            sotw: self.sotw,
        };
        daemon.bootstrap(&request, &bootstrap)?;
        let mut envoy = Envoy::start(&bootstrap).await?;
        let outcome = self.load(&want, &daemon, &mut envoy).await;
        outcome.map_err(|error| anyhow!("{error:#}\n{}\n{}", envoy.log_tail(), daemon.log_tail()))
    }

    async fn load(&self, want: &Held, daemon: &Daemon, envoy: &mut Envoy) -> anyhow::Result<()> {
        envoy.wait_ready(LIMIT).await?;
        let held = wait::until("Envoy to hold what was rendered", LIMIT, || async {
            want.ensure_held_by(&Held::dumped(&envoy.config_dump().await?)?)
        })
        .await;
        // First, since it is the likeliest reason why something is missing.
        envoy.assert_no_nacks().await?;
        held?;
        for stat in [
            "cluster_manager.cds.update_success",
            "listener_manager.lds.update_success",
        ] {
            ensure!(envoy.stat(stat).await? > 0, "{stat} counts nothing");
        }
        wait::until("every type to be in sync", LIMIT, || {
            common::in_sync(daemon, 1)
        })
        .await?;
        let rejected = common::rejections(&daemon.debug("/metrics").await?);
        ensure!(
            rejected.is_empty(),
            "ambientd counted rejections: {rejected:?}"
        );
        Ok(())
    }
}
