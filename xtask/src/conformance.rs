//! `conformance`: the Gateway API's own suite against ambientd in a test cluster.
//!
//! The suite and what it claims are in `tests/conformance`. Gateways and the mesh are
//! two runs, each in a cluster of its own; the reports of whole runs are kept in
//! `docs/conformance`, those of parts and all logs in `target/conformance`.

mod build;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::cluster::{self, Life};
use crate::{envoy, steps};

pub(crate) use build::test;

/// Names the ztunnel that carries the mesh's traffic.
const ZTUNNEL_VARIABLE: &str = "ZTUNNEL_BIN";
const SYSTEM: &str = "istio-system";
/// How long ambientd, ztunnels and waypoints may take to be ready.
const READY_LIMIT: &str = "--timeout=120s";
const NODES: u8 = 2;

/// Labels that put the pods of a namespace into the mesh, behind its waypoint.
const MESH_LABELS: &str =
    "--namespace-labels=istio.io/dataplane-mode=ambient,istio.io/use-waypoint=waypoint";
/// The namespaces of the mesh's tests, each with a waypoint named `waypoint`.
const MESH_NAMESPACES: [&str; 2] = [
    "gateway-conformance-mesh",
    "gateway-conformance-mesh-consumer",
];

/// Flags of `conformance`.
#[derive(Args)]
pub(crate) struct Conformance {
    /// Only this profile, such as GATEWAY-HTTP or MESH-GRPC
    #[arg(long)]
    profile: Option<String>,
    /// Only this test, whether its features are claimed or not; may be repeated
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Leave cluster and objects; a cluster that was left is used again, with ambientd restarted
    #[arg(long)]
    keep: bool,
    /// Stop a cluster that was left, and do nothing else
    #[arg(long, exclusive = true)]
    down: bool,
    /// A binary of ambientd to test, in place of one that is built now
    #[arg(long, value_name = "PATH")]
    ambientd: Option<PathBuf>,
    /// A further image of the cluster's nodes; may be repeated
    #[arg(long = "image", value_name = "NAME=PROGRAM [ARGS]")]
    images: Vec<String>,
    /// Passed on to the suite, such as -debug or -skip-tests=A,B
    #[arg(last = true, value_name = "ARGS")]
    suite_args: Vec<String>,
}

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Gateway,
    Mesh,
}

impl Side {
    const ALL: [Self; 2] = [Self::Gateway, Self::Mesh];

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Mesh => "mesh",
        }
    }

    /// Whether a test or a profile is of this side: the suite names them so.
    fn owns(self, name: &str) -> bool {
        let is_mesh = name
            .get(..4)
            .is_some_and(|it| it.eq_ignore_ascii_case("mesh"));
        is_mesh == (self == Self::Mesh)
    }
}

impl Conformance {
    fn sides(&self) -> Vec<Side> {
        let names: Vec<&String> = self.profile.iter().chain(&self.tests).collect();
        Side::ALL
            .into_iter()
            .filter(|side| names.is_empty() || names.iter().any(|name| side.owns(name)))
            .collect()
    }

    /// Whether the report says something of all that is claimed.
    fn is_whole(&self) -> bool {
        self.profile.is_none() && self.tests.is_empty() && self.suite_args.is_empty()
    }
}

/// Runs the suite.
///
/// # Errors
/// When something cannot be built or started, or a test fails.
pub(crate) fn run(flags: &Conformance) -> Result<()> {
    if flags.down {
        return cluster::stop(&state());
    }
    let suite = build::ensure()?;
    let ambientd = match &flags.ambientd {
        Some(path) => path.clone(),
        None => cluster::build_ambientd(false)?,
    };
    let mut images = suite.images.clone();
    images.push(format!("ambientd={}", ambientd.display()));
    images.push(format!("envoy={}", envoy::ensure()?.display()));
    images.extend_from_slice(&flags.images);
    fs::create_dir_all(results())?;
    let mut failures = Vec::new();
    for side in flags.sides() {
        if let Err(error) = run_side(flags, &suite, &images, side) {
            eprintln!("{}: {error:#}", side.name());
            failures.push(side.name());
        }
    }
    ensure!(failures.is_empty(), "not passed: {}", failures.join(", "));
    Ok(())
}

fn run_side(
    flags: &Conformance,
    suite: &build::Suite,
    images: &[String],
    side: Side,
) -> Result<()> {
    let world = World::enter(flags, images, side)?;
    world.install(suite)?;
    if side == Side::Mesh {
        world.install_mesh()?;
    }
    let report = if flags.is_whole() {
        steps::root().join("docs").join("conformance")
    } else {
        results()
    };
    fs::create_dir_all(&report)?;
    let report = report.join(format!("{}.yaml", side.name()));
    let outcome = run_suite(flags, suite, &world, side, &report);
    println!("report: {}", report.display());
    outcome
}

/// Where the cluster keeps its files while there is one.
fn state() -> PathBuf {
    steps::root().join("target").join("conformance-cluster")
}

/// Where logs and reports of parts are kept.
fn results() -> PathBuf {
    steps::root().join("target").join("conformance")
}

/// The cluster of a run; stopped when dropped, unless it is to be kept.
struct World {
    state: PathBuf,
    kubeconfig: PathBuf,
    /// The cluster's own binary, which is a kubectl.
    binary: PathBuf,
    /// Holds the life of a cluster of ours.
    _child: Option<Child>,
    keep: bool,
}

impl Drop for World {
    fn drop(&mut self) {
        if self.keep {
            println!(
                "the cluster stays: export KUBECONFIG={}",
                self.kubeconfig.display()
            );
        } else if let Err(error) = cluster::stop(&self.state) {
            eprintln!("{error:#}");
        }
    }
}

impl World {
    fn enter(flags: &Conformance, images: &[String], side: Side) -> Result<Self> {
        let state = state();
        let mut images = images.to_vec();
        if let Ok(ztunnel) = std::env::var(ZTUNNEL_VARIABLE) {
            images.push(format!("ztunnel={ztunnel}"));
        } else if side == Side::Mesh {
            bail!("{ZTUNNEL_VARIABLE} does not name a ztunnel, which the mesh needs");
        }
        let mut child = None;
        if !(flags.keep && cluster::supervisor(&state).is_some()) {
            cluster::stop(&state)?;
            let life = if flags.keep {
                Life::Detached
            } else {
                Life::Ours
            };
            child = Some(cluster::start(&state, NODES, &images, life)?);
        }
        Ok(Self {
            kubeconfig: state.join("pki").join("admin.kubeconfig"),
            binary: cluster::ensure()?,
            state,
            _child: child,
            keep: flags.keep,
        })
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut command = steps::command(&self.binary);
        command
            .arg("kubectl")
            .args(words)
            .env("KUBECONFIG", &self.kubeconfig);
        let output = steps::run_quietly(&mut command, &format!("kubectl {}", words.join(" ")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies a directory of manifests, or one file of them.
    fn apply(&self, flag: &str, path: &Path) -> Result<()> {
        let path = path.to_string_lossy();
        let words = ["apply", "--server-side", "--force-conflicts", flag, &path];
        self.kubectl(&words).map(drop)
    }

    fn rolled_out(&self, what: &str) -> Result<()> {
        self.kubectl(&["-n", SYSTEM, "rollout", "status", what, READY_LIMIT])
            .map(drop)
            .map_err(|error| {
                let pods = self.kubectl(&["-n", SYSTEM, "describe", "pods"]);
                let logs = self.kubectl(&["-n", SYSTEM, "logs", what, "--tail=40"]);
                let [pods, logs] = [pods, logs].map(Result::unwrap_or_default);
                error.context(format!("{pods}\n{logs}"))
            })
    }

    /// Definitions of kinds and ambientd; what is there already is brought up to date.
    fn install(&self, suite: &build::Suite) -> Result<()> {
        let manifests = steps::root().join("manifests");
        self.apply("-k", &suite.definitions)?;
        self.apply("-f", &manifests.join("crds").join("istio.yaml"))?;
        let established = ["wait", "--for=condition=Established", "crd", "--all"];
        self.kubectl(&[&established[..], &[READY_LIMIT]].concat())?;
        let was_there = self
            .kubectl(&["-n", SYSTEM, "get", "deployment/istiod"])
            .is_ok();
        self.apply("-k", &manifests.join("overlays").join("test"))?;
        if was_there {
            self.kubectl(&["-n", SYSTEM, "rollout", "restart", "deployment/istiod"])?;
        }
        self.rolled_out("deployment/istiod")
    }

    /// ztunnels, and a waypoint in each namespace that the suite will fill.
    fn install_mesh(&self) -> Result<()> {
        self.apply("-k", &steps::root().join("manifests").join("ztunnel"))?;
        self.rolled_out("daemonset/ztunnel")?;
        let list = serde_json::json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": MESH_NAMESPACES.map(mesh_objects).concat(),
        });
        let file = results().join("waypoints.json");
        fs::write(&file, list.to_string())?;
        self.apply("-f", &file)?;
        for ns in MESH_NAMESPACES {
            let what = [
                "-n",
                ns,
                "wait",
                "--for=condition=Programmed",
                "gateway/waypoint",
            ];
            self.kubectl(&[&what[..], &[READY_LIMIT]].concat())?;
        }
        Ok(())
    }
}

/// A namespace and its waypoint, as `istioctl waypoint apply` makes it.
fn mesh_objects(ns: &str) -> Vec<Value> {
    vec![
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}}),
        serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {
                "name": "waypoint",
                "namespace": ns,
                "labels": {"istio.io/waypoint-for": "service"},
            },
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        }),
    ]
}

/// Runs the suite; its output is in a log, and a line for each test is shown.
fn run_suite(
    flags: &Conformance,
    suite: &build::Suite,
    world: &World,
    side: Side,
    report: &Path,
) -> Result<()> {
    let log = results().join(format!("{}.log", side.name()));
    println!("running the {} tests, log: {}", side.name(), log.display());
    let mut command = suite_command(flags, suite, side, report);
    let mut child = command
        .env("KUBECONFIG", &world.kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(
            results().join(format!("{}.err", side.name())),
        )?)
        .spawn()
        .with_context(|| format!("cannot start {}", suite.program.display()))?;
    let mut file = fs::File::create(&log)?;
    let output = child.stdout.take().context("no output")?;
    let mut failed = Vec::new();
    let mut passed = 0_usize;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        file.write_all(&line)?;
        file.write_all(b"\n")?;
        let line = String::from_utf8_lossy(&line);
        let Some(verdict) = verdict(&line) else {
            continue;
        };
        println!("  {}", line.trim());
        match verdict {
            (true, _) => passed += 1,
            (false, name) => failed.push(name.to_owned()),
        }
    }
    let status = child.wait()?;
    println!("{}: {passed} passed, {} failed", side.name(), failed.len());
    if status.success() {
        return Ok(());
    }
    Err(anyhow!("the suite says {status}: {}", failed.join(", "))
        .context(format!("see {}", log.display())))
}

fn suite_command(flags: &Conformance, suite: &build::Suite, side: Side, report: &Path) -> Command {
    let mut command = steps::command(&suite.program);
    command
        .args(["-test.v", "-test.run=^TestConformance$", "-test.timeout=3h"])
        // Each test that may run beside others has gateways of its own.
        .arg("-test.parallel=4")
        .arg(format!("-side={}", side.name()))
        .arg(format!("-report-output={}", report.display()))
        .args(["-organization=ambientd", "-project=ambientd"])
        // Asked for in every report.
        .args(["-url=not-published", "-contact=not-published"])
        .arg(concat!("-version=v", env!("CARGO_PKG_VERSION")))
        .arg(format!("-cleanup-base-resources={}", !flags.keep));
    match side {
        Side::Gateway => command
            .arg("-gateway-class=istio")
            // Manual gateways name Services: one with endpoints, and one that is not there.
            .arg("-usable-address=infra-backend-v1.gateway-conformance-infra.svc.cluster.local")
            .arg("-unusable-address=nothing.gateway-conformance-infra.svc.cluster.local"),
        Side::Mesh => command.arg(MESH_LABELS),
    };
    if let Some(profile) = &flags.profile {
        command.arg(format!("-profile={profile}"));
    }
    let tests: Vec<&str> = flags.tests.iter().map(String::as_str).collect();
    let tests: Vec<&str> = tests.into_iter().filter(|name| side.owns(name)).collect();
    if !tests.is_empty() {
        command.arg(format!("-tests={}", tests.join(",")));
    }
    command.args(&flags.suite_args);
    command
}

/// Whether a line tells the end of one of the suite's tests: if it passed, and its name.
fn verdict(line: &str) -> Option<(bool, &str)> {
    // Parts of a test are indented further.
    let (word, rest) = line.strip_prefix("    --- ")?.split_once(": ")?;
    let name = rest.strip_prefix("TestConformance/")?.split(' ').next()?;
    match word {
        "PASS" => Some((true, name)),
        "FAIL" => Some((false, name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_tests_are_found_in_the_output() {
        let of = |line| verdict(line);
        assert_eq!(
            of("    --- PASS: TestConformance/HTTPRouteCORS (1.20s)"),
            Some((true, "HTTPRouteCORS"))
        );
        assert_eq!(
            of("    --- FAIL: TestConformance/HTTPRouteCORS (1.20s)"),
            Some((false, "HTTPRouteCORS"))
        );
        for other in [
            "    --- SKIP: TestConformance/UDPRoute (0.00s)",
            "--- FAIL: TestConformance (1.20s)",
            "        --- FAIL: TestConformance/HTTPRouteCORS/1 (1.20s)",
            "    conformance.go:10: --- PASS: TestConformance/A (0s)",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn tests_and_profiles_say_which_side_runs() {
        let sides = |profile: Option<&str>, tests: &[&str]| {
            let flags = Conformance {
                profile: profile.map(str::to_owned),
                tests: tests.iter().map(ToString::to_string).collect(),
                keep: false,
                down: false,
                ambientd: None,
                images: Vec::new(),
                suite_args: Vec::new(),
            };
            flags.sides()
        };
        assert_eq!(sides(None, &[]), Side::ALL);
        assert_eq!(sides(Some("MESH-GRPC"), &[]), [Side::Mesh]);
        assert_eq!(sides(Some("GATEWAY-TLS"), &[]), [Side::Gateway]);
        assert_eq!(sides(None, &["MeshBasic", "HTTPRouteCORS"]), Side::ALL);
        assert_eq!(sides(None, &["MeshBasic"]), [Side::Mesh]);
    }
}
