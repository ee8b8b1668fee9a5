//! The root changes under load.

use super::*;

/// ztunnel renews when half of the time since the certificate's beginning is over, and that
/// lies two minutes before its issue: these are renewed after three seconds.
const SECRET_TTL: &str = "126s";
const WAYPOINT_TTL_SECONDS: u64 = 6;

/// What proxies hold: certificates obtained by waypoints, and serial numbers by ztunnel and
/// identity with the number of roots.
async fn serials_held(
    ztunnels: &BTreeMap<String, LabZtunnel>,
) -> anyhow::Result<BTreeMap<String, (Vec<String>, usize)>> {
    let mut all = BTreeMap::new();
    for (node, ztunnel) in ztunnels {
        for one in ztunnel.certificates().await? {
            let name = format!("{node} {}", one.identity);
            all.insert(name, (one.serials, one.roots_count));
        }
    }
    Ok(all)
}

/// Waits until every certificate of every proxy was renewed twice (the second one was asked for
/// after the wait began) and every ztunnel trusts so many roots.
async fn renewed_twice(mesh: &Rotated<'_>, roots_count: usize) -> anyhow::Result<()> {
    for _ in 0..2 {
        let before = serials_held(mesh.ztunnels).await?;
        let mut waypoints = Vec::new();
        for waypoint in mesh.waypoints.values() {
            waypoints.push(waypoint.certificates_count().await?);
        }
        wait::until("new certificates everywhere", LIMIT, || async {
            for (waypoint, count) in mesh.waypoints.values().zip(&waypoints) {
                ensure!(
                    waypoint.certificates_count().await? > *count,
                    "a waypoint has its old one"
                );
            }
            for (name, (serials, _)) in serials_held(mesh.ztunnels).await? {
                let old = before.get(&name).map(|(serials, _)| serials);
                ensure!(
                    !serials.is_empty() && old != Some(&serials),
                    "{name} has its old one"
                );
            }
            Ok(())
        })
        .await?;
    }
    for (name, (_, count)) in serials_held(mesh.ztunnels).await? {
        ensure!(count == roots_count, "{name} has {count} roots");
    }
    Ok(())
}

/// The parts of a mesh that a rotation needs while requests flow through the others.
struct Rotated<'a> {
    daemon: &'a mut Daemon,
    ztunnels: &'a BTreeMap<String, LabZtunnel>,
    waypoints: &'a BTreeMap<String, LabWaypoint>,
}

impl Rotated<'_> {
    /// Makes the step; then the control plane begins anew, so that all connect to it with what
    /// they trust. Returns when they are back and have new certificates.
    async fn step(&mut self, step: &str, roots_count: usize) -> anyhow::Result<()> {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ambientd"))
            .args(["ca", "rotate", "--step", step, "--state-dir"])
            .arg(self.daemon.state_dir())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        self.daemon.restart().await?;
        let proxies = self.ztunnels.len() + self.waypoints.len();
        wait::until("everybody to be back", LIMIT, || async {
            common::in_sync(self.daemon, proxies).await
        })
        .await?;
        renewed_twice(self, roots_count).await
    }
}

#[test]
fn no_request_fails_at_any_step_of_a_rotation_of_the_root() {
    let env = [
        ("SECRET_TTL", SECRET_TTL),
        // A tunnel, and so a handshake, for every request.
        ("POOL_MAX_STREAMS_PER_CONNECTION", "1"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "1ms"),
    ];
    let options = MeshOptions {
        ztunnel_env: env.map(|(name, value)| (name.into(), value.into())).into(),
        waypoint_ttl_seconds: WAYPOINT_TTL_SECONDS,
        on_demand: false,
    };
    world_with(
        "03-waypoint-namespace",
        options,
        no_edit,
        async |_, mesh| {
            let caller = "bookinfo/productpage";
            let calls = [
                "GET http://reviews:9080/reviews/1",
                "GET http://10.244.2.12:9080/",
            ];
            for call in calls {
                mesh.expect_status(caller, call, 200).await?;
            }
            let world = &mesh.world;
            let mut rotated = Rotated {
                daemon: &mut mesh.daemon,
                ztunnels: &mesh.ztunnels,
                waypoints: &mesh.waypoints,
            };
            let is_over = AtomicBool::new(false);
            let traffic = async {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    for call in calls {
                        let outcome = world.call(caller, call).await?;
                        ensure!(outcome.status() == 200, "{call}: {outcome:?}");
                        count += 1;
                    }
                }
                Ok(count)
            };
            let rotation = async {
                for (step, roots_count) in [("prepare", 2), ("switch", 2), ("finish", 1)] {
                    let done = rotated.step(step, roots_count).await;
                    done.with_context(|| format!("step {step}"))?;
                }
                is_over.store(true, Ordering::Relaxed);
                anyhow::Ok(())
            };
            let outcome = tokio::try_join!(traffic, rotation);
            let (count, ()) = outcome.with_context(|| mesh.logs())?;
            println!("{count} requests over a rotation");
            Ok(())
        },
    );
}
