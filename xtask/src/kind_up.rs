//! `kind-up`: a kind cluster with Istio's own base, CNI and ztunnel, and ambientd in istiod's place.
//!
//! Every step is a command that one could type; each is printed before it runs. Those that are
//! kubectl's alone come from one list, [`kubectl_steps`], which also runs where there is no kind.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::steps;

/// Name of the cluster, as in `manifests/kind/cluster.yaml`.
const CLUSTER: &str = "ambientd";
const IMAGE: &str = "ambientd:dev";
const SYSTEM: &str = "istio-system";
const CHARTS: &str = "https://istio-release.storage.googleapis.com/charts";
const GATEWAY_API: &str =
    "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.5.1/standard-install.yaml";
const BOOKINFO: &str = "samples/bookinfo/platform/kube/bookinfo.yaml";

/// Flags of `kind-up`.
#[derive(Args)]
pub(crate) struct KindUp {
    /// Print the steps and run none
    #[arg(long)]
    dry_run: bool,
    /// Version of Istio's charts and sample, such as 1.30.0; by default the newest
    #[arg(long)]
    istio_version: Option<String>,
    /// Only the steps of kubectl, on a cluster that is there, with our own definitions and sample
    #[arg(long)]
    only_kubectl: bool,
    /// With --only-kubectl: that cluster
    #[arg(long, requires = "only_kubectl")]
    kubeconfig: Option<PathBuf>,
    /// With --only-kubectl: the words that begin a kubectl command
    #[arg(long, requires = "only_kubectl", default_value = "kubectl")]
    kubectl: String,
    /// With --only-kubectl: apply and do not wait for pods
    #[arg(long, requires = "only_kubectl")]
    no_wait: bool,
}

/// One command, and what it is for.
struct Step {
    what: &'static str,
    /// What to see when it worked; may be empty.
    expect: &'static str,
    words: Vec<String>,
    /// Needs pods that run.
    waits: bool,
}

/// Where the kubectl steps find what they apply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A kind cluster: what people install.
    Kind,
    /// The test cluster: definitions and sample of this repository.
    Test,
}

/// At which point of the whole a kubectl step belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Definitions,
    ControlPlane,
    App,
    Look,
}

/// Does it.
///
/// # Errors
/// When a tool is missing or a step fails.
pub(crate) fn run(flags: &KindUp) -> Result<()> {
    let (place, all) = if flags.only_kubectl {
        let kubectl = kubectl_steps(Place::Test, flags.istio_version.as_deref());
        let all = kubectl.into_iter().map(|(_, step)| step).collect();
        (Place::Test, all)
    } else {
        (Place::Kind, kind_steps(flags.istio_version.as_deref()))
    };
    let chosen: Vec<Step> = all
        .into_iter()
        .filter(|step| !(flags.no_wait && step.waits))
        .map(|step| step.resolve(flags))
        .collect();
    if !flags.dry_run {
        require(&chosen)?;
    }
    for (at, step) in chosen.iter().enumerate() {
        println!("\n[{}/{}] {}", at + 1, chosen.len(), step.what);
        println!("  $ {}", step.words.join(" "));
        if !flags.dry_run {
            step.run()?;
        }
        if !step.expect.is_empty() {
            println!("  expect: {}", step.expect);
        }
    }
    if place == Place::Kind {
        println!("\nWhat to try next is in README.md, \"In a cluster\".");
        println!("To remove everything: kind delete cluster --name {CLUSTER}");
    }
    Ok(())
}

// === impl Step ===

impl Step {
    fn new(what: &'static str, expect: &'static str, command: &str) -> Self {
        let words = command.split_whitespace().map(str::to_owned).collect();
        Self {
            what,
            expect,
            words,
            waits: false,
        }
    }

    fn waiting(what: &'static str, expect: &'static str, command: &str) -> Self {
        let step = Self::new(what, expect, command);
        Self {
            waits: true,
            ..step
        }
    }

    /// With the kubectl and the cluster that the flags name.
    fn resolve(mut self, flags: &KindUp) -> Self {
        if self.program() != "kubectl" {
            return self;
        }
        let mut words: Vec<String> = flags
            .kubectl
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if let Some(file) = &flags.kubeconfig {
            words.push(format!("--kubeconfig={}", file.display()));
        } else if !flags.only_kubectl {
            words.push(format!("--context=kind-{CLUSTER}"));
        }
        words.extend(self.words.drain(1..));
        Self { words, ..self }
    }

    fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn run(&self) -> Result<()> {
        let mut command: Command = steps::command(self.program());
        command.args(self.words.iter().skip(1));
        steps::run(&mut command)
    }
}

/// Names all missing tools at once.
fn require(all: &[Step]) -> Result<()> {
    let mut missing: Vec<&str> = all
        .iter()
        .map(Step::program)
        .filter(|program| !is_there(program))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "missing: {}. Install what is missing (kind.sigs.k8s.io, docs.docker.com, helm.sh, \
         kubernetes.io/docs/tasks/tools), or see the steps with --dry-run",
        missing.join(", ")
    );
}

fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return PathBuf::from(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// All steps on a machine with kind, docker, helm and kubectl.
fn kind_steps(version: Option<&str>) -> Vec<Step> {
    let mut kubectl = kubectl_steps(Place::Kind, version);
    let mut phase = |wanted: Phase| -> Vec<Step> {
        let (now, later) = kubectl.drain(..).partition(|(phase, _)| *phase == wanted);
        kubectl = later;
        let now: Vec<(Phase, Step)> = now;
        now.into_iter().map(|(_, step)| step).collect()
    };
    let pinned = version.map_or_else(String::new, |version| format!(" --version {version}"));
    let chart = |what, expect, release: &str, chart: &str, rest: &str| {
        let words = format!(
            "helm upgrade --install {release} {chart} --repo {CHARTS} --namespace {SYSTEM} \
             --create-namespace --kube-context kind-{CLUSTER} --wait{rest}{pinned}"
        );
        Step::new(what, expect, &words)
    };
    let mut all = vec![
        Step::new(
            "A cluster of three nodes",
            "`kubectl get nodes` shows three, Ready",
            "kind create cluster --config manifests/kind/cluster.yaml --wait 180s",
        ),
        Step::new(
            "The image of ambientd",
            "",
            &format!("docker build --tag {IMAGE} ."),
        ),
        Step::new(
            "The image into the nodes",
            "",
            &format!("kind load docker-image {IMAGE} --name {CLUSTER}"),
        ),
    ];
    all.extend(phase(Phase::Definitions));
    all.push(chart(
        "Istio's definitions and accounts",
        "`kubectl get crd` lists authorizationpolicies.security.istio.io",
        "istio-base",
        "base",
        "",
    ));
    all.extend(phase(Phase::ControlPlane));
    all.push(chart(
        "Istio's CNI, unmodified",
        "a pod istio-cni-node on every node",
        "istio-cni",
        "cni",
        " --set profile=ambient",
    ));
    all.push(chart(
        "ztunnel, unmodified",
        "a pod ztunnel on every node, Ready: it has its certificate, policies and addresses from ambientd",
        "ztunnel",
        "ztunnel",
        "",
    ));
    all.extend(phase(Phase::App));
    all.extend(phase(Phase::Look));
    all
}

/// Every step that needs kubectl and a cluster, and no container engine.
fn kubectl_steps(place: Place, version: Option<&str>) -> Vec<(Phase, Step)> {
    let test = place == Place::Test;
    let definitions = if test {
        "kubectl apply --server-side --kustomize manifests/crds".to_owned()
    } else {
        format!("kubectl apply --server-side --filename {GATEWAY_API}")
    };
    let overlay = if test { "test" } else { "kind" };
    let reference = version.unwrap_or("master");
    let app = if test {
        "kubectl apply --kustomize manifests/samples/bookinfo".to_owned()
    } else {
        format!(
            "kubectl apply --namespace bookinfo --filename \
             https://raw.githubusercontent.com/istio/istio/{reference}/{BOOKINFO}"
        )
    };
    vec![
        (
            Phase::Definitions,
            Step::new("The Gateway API", "", &definitions),
        ),
        (
            Phase::Definitions,
            Step::new(
                "Wait until the API server knows it",
                "",
                "kubectl wait --for=condition=Established --timeout=60s \
                 crd/gatewayclasses.gateway.networking.k8s.io",
            ),
        ),
        (
            Phase::ControlPlane,
            Step::new(
                "ambientd, where istiod would be",
                "deployment.apps/istiod created, service/istiod created",
                &format!("kubectl apply --kustomize manifests/overlays/{overlay}"),
            ),
        ),
        (
            Phase::ControlPlane,
            Step::waiting(
                "Wait for ambientd",
                "deployment \"istiod\" successfully rolled out",
                &format!(
                    "kubectl rollout status deployment/istiod --namespace {SYSTEM} --timeout=180s"
                ),
            ),
        ),
        (
            Phase::ControlPlane,
            Step::waiting(
                "Wait for the root certificate that ztunnel mounts",
                "configmap/istio-ca-root-cert condition met",
                &format!(
                    "kubectl wait --for=create configmap/istio-ca-root-cert --namespace {SYSTEM} --timeout=60s"
                ),
            ),
        ),
        (
            Phase::App,
            Step::new(
                "A namespace for the sample",
                "",
                "kubectl apply --filename manifests/samples/bookinfo/namespace.yaml",
            ),
        ),
        (Phase::App, Step::new("The sample", "", &app)),
        (
            Phase::App,
            Step::new(
                "Enrol the namespace: its pods need no restart",
                "namespace/bookinfo not labeled, or labeled",
                "kubectl label namespace bookinfo istio.io/dataplane-mode=ambient --overwrite",
            ),
        ),
        (
            Phase::App,
            Step::waiting(
                "Wait for the sample",
                "",
                "kubectl wait --for=condition=Available deployment --all --namespace bookinfo --timeout=300s",
            ),
        ),
        (
            Phase::Look,
            Step::new(
                "What is there",
                "istiod, and in kind istio-cni-node and ztunnel, all Running",
                &format!(
                    "kubectl get deployments,daemonsets,pods --namespace {SYSTEM} --output wide"
                ),
            ),
        ),
        (
            Phase::Look,
            Step::new(
                "What is wrong with the configuration, as Events",
                "nothing, or one Warning for each error finding",
                "kubectl get events --all-namespaces --field-selector reportingComponent=ambientd",
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kubectl_step_is_part_of_the_whole_once_and_needs_no_engine() {
        let list = kubectl_steps(Place::Kind, Some("1.30.0"));
        let whole = kind_steps(Some("1.30.0"));
        for (_, step) in &list {
            let same = whole.iter().filter(|other| other.words == step.words);
            assert_eq!(same.count(), 1, "{}", step.what);
            assert_eq!(step.program(), "kubectl");
        }
        let others = whole.iter().filter(|step| step.program() != "kubectl");
        assert_eq!(others.count() + list.len(), whole.len());
        // One list, two places: the same steps, with other sources.
        assert_eq!(kubectl_steps(Place::Test, None).len(), list.len());
    }

    #[test]
    fn what_is_applied_from_here_is_there() {
        let everywhere = [Place::Kind, Place::Test].map(|place| kubectl_steps(place, None));
        let words = everywhere
            .iter()
            .flatten()
            .flat_map(|(_, step)| &step.words);
        for path in words.filter(|word| word.starts_with("manifests/")) {
            assert!(steps::root().join(path).exists(), "{path}");
        }
    }
}
