//! Builds the suite, the images that its pods run and the definitions that it asks for,
//! once per state of `tests/conformance`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::built::Built;
use crate::steps;

const GATEWAY_API: &str = "sigs.k8s.io/gateway-api";
const ECHO_BASIC: &str = "sigs.k8s.io/gateway-api/conformance/echo-basic";

/// What was built.
pub(crate) struct Suite {
    /// The suite, a program of `go test`.
    pub(crate) program: PathBuf,
    /// `NAME=PROGRAM [ARGS]` of each image of its pods.
    pub(crate) images: Vec<String>,
    /// Definitions of the suite's own version, to be applied by `kubectl apply -k`.
    pub(crate) definitions: PathBuf,
}

/// All of it, built if the sources are new.
///
/// # Errors
/// When there is no Go, or the build fails.
pub(crate) fn ensure() -> Result<Suite> {
    let module = module();
    let home = module
        .ensure(|scratch| build(&module, scratch))
        .context("cannot build the conformance suite")?;
    let image = |name: &str, program: &str| format!("{name}={}/{program}", home.display());
    Ok(Suite {
        program: home.join("suite"),
        images: vec![
            image("echo-basic", "echo-basic"),
            image("echo-advanced", "echo-advanced"),
            // Answers over UDP, which is not claimed; its pod has to be ready all the same.
            image("coredns", "echo-advanced idle"),
        ],
        definitions: home.join("crds"),
    })
}

/// Vets and tests the module; the suite itself is skipped without a cluster.
///
/// # Errors
/// When there is no Go, or something of it fails.
pub(crate) fn test() -> Result<()> {
    module().test()
}

fn module() -> Built {
    Built {
        name: "conformance",
        module: "conformance",
        with_tests: true,
        salt: String::new(),
        proof: "crds/kustomization.yaml",
    }
}

fn build(module: &Built, scratch: &Path) -> Result<()> {
    println!("building the conformance suite (3 minutes when the cache is cold) ...");
    fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let compile = |words: &[&str], program: &str, package: &str| -> Result<()> {
        let mut go = module.go()?;
        go.args(words)
            .args(["-trimpath", "-ldflags", "-s -w", "-o"])
            .arg(scratch.join(program))
            .arg(package);
        steps::run(&mut go)
    };
    compile(&["test", "-c"], "suite", ".")?;
    compile(&["build", "-buildvcs=false"], "echo-basic", ECHO_BASIC)?;
    compile(
        &["build", "-buildvcs=false"],
        "echo-advanced",
        "./echo-advanced",
    )?;
    // Last: they prove that the rest is there.
    copy_definitions(&module_directory(module)?, &scratch.join("crds"))
}

/// Where Go keeps the Gateway API, whose definitions are part of its module.
fn module_directory(module: &Built) -> Result<PathBuf> {
    let mut go = module.go()?;
    go.args(["list", "-m", "-f", "{{.Dir}}", GATEWAY_API]);
    let output = steps::run_quietly(&mut go, "finding the Gateway API")?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim() {
        "" => bail!("Go has no copy of {GATEWAY_API}"),
        path => Ok(PathBuf::from(path)),
    }
}

/// Those of the experimental channel: some features that are claimed have their fields
/// there alone.
fn copy_definitions(module: &Path, target: &Path) -> Result<()> {
    let source = module.join("config").join("crd").join("experimental");
    fs::create_dir_all(target)?;
    let mut names: Vec<String> = Vec::new();
    for entry in
        fs::read_dir(&source).with_context(|| format!("cannot list {}", source.display()))?
    {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "kustomization.yaml" {
            fs::write(target.join(&name), fs::read(entry.path())?)?;
            names.push(name);
        }
    }
    names.sort();
    let kustomization = format!("resources:\n- {}\n", names.join("\n- "));
    fs::write(target.join("kustomization.yaml"), kustomization).context("cannot write")
}
