//! The offline commands: `render`, `analyze`, `bootstrap`.

mod bootstrap;

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use model::object::Input;
use model::{Object, ObjectKey, Severity};
use pipeline::{MeshDefaults, Pipeline};
use serde_json::Value;
use snapshot::Snapshot;
use source::Directory;

use crate::analyze::{Palette, report};
use crate::config::{AnalyzeArgs, AnalyzeFormat, Format, MeshArgs, RenderArgs};
use crate::render;
use crate::target::Target;

pub use bootstrap::{bootstrap, host_port};

/// How many Gateways are named in place of one that is not there.
const NAMED_MAX: usize = 10;

/// Prints to standard output; a closed pipe is not an error.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// The pipeline of objects of files, with the settings of the flags.
///
/// # Errors
/// When settings are in a file that cannot be read.
pub fn pipeline(mesh: &MeshArgs) -> anyhow::Result<Pipeline> {
    let deployments = mesh.deployments()?;
    Ok(Pipeline::new(defaults(mesh)).with_deployments(deployments))
}

/// The settings of the flags.
pub fn defaults(mesh: &MeshArgs) -> MeshDefaults {
    MeshDefaults {
        system_namespace: mesh.system_namespace.as_str().into(),
        cluster_id: mesh.cluster_id.as_str().into(),
        domain: mesh.domain.as_str().into(),
        revision: mesh.revision.as_str().into(),
        features: mesh.features.features(),
        nobody_jwks: jwks::nobody().unwrap_or_default(),
        is_alone: true,
    }
}

fn load(dir: &Path) -> anyhow::Result<Vec<Input>> {
    Directory::load(dir).with_context(|| format!("--config-dir {}", dir.display()))
}

fn format(value: &Value, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(value)? + "\n"),
        Format::Yaml => serde_saphyr::to_string(value).context("cannot write YAML"),
    }
}

/// `ambientd render`.
///
/// # Errors
/// When the directory cannot be read, or has no Gateway of the target's name.
pub fn render(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let inputs = load(&args.config_dir)?;
    if let Some(gateway) = args.target.gateway() {
        require_gateway(&inputs, gateway).with_context(|| {
            let dir = args.config_dir.display();
            format!("--for {}: {dir} has no Gateway {gateway}", args.target)
        })?;
    }
    let snapshot = render::snapshot(pipeline(&args.mesh)?, inputs, &args.target)?;
    let value = render::render(&snapshot, &args.target, &args.types)?;
    let missing = match &args.target {
        Target::Waypoint(key) => Some((key, "no waypoint Gateway")),
        Target::Gateway(key) => Some((key, "no Gateway with a listener")),
        Target::EastWest(key) => Some((key, "no active gateway between networks")),
        Target::Ztunnel | Target::Deployment(_) | Target::Findings | Target::Status => None,
    };
    if let Some((key, what)) = missing
        && render::class_of(&snapshot, &args.target).is_none()
    {
        let dir = args.config_dir.display();
        eprintln!("ambientd: {key} is {what} of {dir}");
    }
    print(&format(&value, args.output)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `ambientd analyze`: exit status 1 when a finding has severity error.
///
/// # Errors
/// When the directory cannot be read.
pub fn analyze(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let snapshot = render::snapshot(
        pipeline(&args.mesh)?,
        load(&args.config_dir)?,
        &Target::Findings,
    )?;
    let terminal = std::io::stdout().is_terminal();
    let text = match args.output {
        Some(AnalyzeFormat::Text) => true,
        Some(AnalyzeFormat::Json) => false,
        None => terminal,
    };
    let findings = render::all_findings(&snapshot);
    print(&if text {
        report(&findings, Palette::new(terminal))
    } else {
        format(&render::findings(&findings), Format::Json)?
    })?;
    Ok(exit_code(&snapshot))
}

fn exit_code(snapshot: &Arc<Snapshot>) -> ExitCode {
    let failed = snapshot
        .findings
        .iter()
        .any(|f| f.severity == Severity::Error);
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn objects(inputs: &[Input]) -> impl Iterator<Item = &Object> {
    inputs.iter().flat_map(|input| match input {
        Input::Resync(_, objects) => objects.as_slice(),
        _ => &[],
    })
}

/// That a Gateway is there, of whatever class and however wrong.
///
/// # Errors
/// Naming those that are.
fn require_gateway(inputs: &[Input], key: &ObjectKey) -> anyhow::Result<()> {
    let keys = objects(inputs).filter_map(|object| match object {
        Object::Gateway(row) => Some(row.key()),
        _ => None,
    });
    let there: BTreeSet<&ObjectKey> = keys.collect();
    if there.contains(key) {
        return Ok(());
    }
    if there.is_empty() {
        bail!("write one, or name a directory that has some");
    }
    let names: Vec<String> = there
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    let more = if there.len() > NAMED_MAX { ", …" } else { "" };
    bail!("name one that is there: {}{more}", names.join(", "))
}
