//! The offline commands: `render`, `analyze`, `bootstrap`.

use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use model::labels::LABEL_GATEWAY_NAME;
use model::object::Input;
use model::{GatewayController, Object, ObjectKey, Severity, SpiffeId};
use pipeline::{MeshDefaults, Pipeline};
use serde_json::Value;
use snapshot::Snapshot;
use source::Directory;

use crate::analyze::{Palette, report};
use crate::config::{AnalyzeArgs, AnalyzeFormat, BootstrapArgs, Format, MeshArgs, RenderArgs};
use crate::render;
use crate::target::Target;

/// Lifetime of a waypoint certificate that `bootstrap` issues.
const WAYPOINT_CERTIFICATE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

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
/// When the directory cannot be read.
pub fn render(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let snapshot = render::snapshot(pipeline(&args.mesh)?, load(&args.config_dir)?, &args.target)?;
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

/// `ambientd bootstrap`: issues the certificate of a waypoint or gateway and prints its
/// bootstrap.
///
/// # Errors
/// When the target is neither, its address is not known, or the state directory
/// cannot be used.
pub fn bootstrap(args: &BootstrapArgs) -> anyhow::Result<ExitCode> {
    use envoy::bootstrap::BootstrapRole;
    let inputs = args
        .config_dir
        .as_deref()
        .map(load)
        .transpose()?
        .unwrap_or_default();
    let (role, gateway) = match &args.target {
        Target::Waypoint(gateway) => (BootstrapRole::Waypoint, gateway),
        Target::Gateway(gateway) if is_east_west(&inputs, gateway) => {
            (BootstrapRole::EastWest, gateway)
        }
        Target::Gateway(gateway) => (BootstrapRole::Router, gateway),
        Target::EastWest(gateway) => (BootstrapRole::EastWest, gateway),
        other => bail!(
            "--for {other}: only waypoint/NAMESPACE/NAME, gateway/NAMESPACE/NAME and east-west/NAMESPACE/NAME can be bootstrapped"
        ),
    };
    let pod = waypoint_pod(&inputs, gateway);
    let trust_domain = trust_domain(args, inputs.clone())?;
    let ip = args
        .ip
        .or_else(|| pod.as_ref().and_then(|pod| pod.ip))
        .with_context(|| {
            format!("no pod of Gateway {gateway} with an address is known; give --ip")
        })?;
    let service_account = args
        .service_account
        .clone()
        .or_else(|| pod.as_ref().map(|pod| pod.service_account.clone()))
        .unwrap_or_else(|| gateway.name.to_string());
    let ca = ca::DevCa::load_or_create(&args.state_dir, &trust_domain, SystemTime::now())
        .with_context(|| format!("--state-dir {}", args.state_dir.display()))?;
    let identity = SpiffeId::new(
        trust_domain.as_str(),
        gateway.ns.clone(),
        service_account.as_str(),
    );
    let dir = args
        .state_dir
        .join("workloads")
        .join(gateway.ns.as_str())
        .join(&service_account);
    let files = ca
        .write_workload_files(&dir, &identity, WAYPOINT_CERTIFICATE_TTL, SystemTime::now())
        .with_context(|| format!("cannot write the certificate of {identity}"))?;
    let (xds_host, xds_port) = host_port(&args.xds_addr, "--xds-addr")?;
    let options = envoy::bootstrap::BootstrapOptions {
        role,
        gateway: gateway.clone(),
        pod_name: pod.map_or_else(|| format!("{}-0", gateway.name), |pod| pod.name),
        service_account,
        cluster_id: args.mesh.cluster_id.clone(),
        network: String::new(),
        domain: args.mesh.domain.clone(),
        ip,
        bind_ip: args.bind_ip,
        admin_port: args.admin_port,
        xds_host,
        xds_port,
        xds_name: args.xds_name.clone(),
        sotw: args.sotw,
        secrets: envoy::bootstrap::BootstrapSecrets::Files {
            cert_chain: absolute(&files.cert_chain)?,
            private_key: absolute(&files.key)?,
            root: absolute(&files.root)?,
        },
        stats_port: None,
        metadata: std::collections::BTreeMap::new(),
        pod: envoy::bootstrap::PodInfo::default(),
    };
    print(&format(
        &envoy::bootstrap::bootstrap(&options),
        args.output,
    )?)?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)
        .with_context(|| format!("cannot make {} absolute", path.display()))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("{} is not UTF-8, which Envoy needs", path.display()))
}

/// Reads HOST:PORT, the host in brackets or not.
///
/// # Errors
/// Naming the flag.
pub fn host_port(text: &str, flag: &str) -> anyhow::Result<(String, u16)> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then_some((host.to_owned(), port.parse::<u16>().ok()?))
    });
    parsed.with_context(|| format!("{flag} {text:?} is not HOST:PORT"))
}

struct WaypointPod {
    name: String,
    ip: Option<IpAddr>,
    service_account: String,
}

fn objects(inputs: &[Input]) -> impl Iterator<Item = &Object> {
    inputs.iter().flat_map(|input| match input {
        Input::Resync(_, objects) => objects.as_slice(),
        _ => &[],
    })
}

/// Whether the class of a Gateway is that of gateways between networks.
fn is_east_west(inputs: &[Input], gateway: &ObjectKey) -> bool {
    let class = objects(inputs).find_map(|object| match object {
        Object::Gateway(row) if row.meta.key == *gateway => row.ok().map(|row| row.class.clone()),
        _ => None,
    });
    let object = objects(inputs).find_map(|object| match object {
        Object::GatewayClass(row) if Some(&row.meta.key.name) == class.as_ref() => Some(&**row),
        _ => None,
    });
    let controller = class.and_then(|class| GatewayController::of(object, &class));
    controller == Some(GatewayController::EastWest)
}

fn waypoint_pod(inputs: &[Input], gateway: &ObjectKey) -> Option<WaypointPod> {
    objects(inputs).find_map(|object| match object {
        Object::Pod(pod)
            if pod.meta.key.ns == gateway.ns
                && pod.meta.label(LABEL_GATEWAY_NAME) == Some(&gateway.name) =>
        {
            let body = pod.ok()?;
            Some(WaypointPod {
                name: pod.meta.key.name.to_string(),
                ip: body.ips.as_ref().and_then(|ips| ips.first().copied()),
                service_account: body.service_account.to_string(),
            })
        }
        _ => None,
    })
}

fn trust_domain(args: &BootstrapArgs, inputs: Vec<Input>) -> anyhow::Result<String> {
    if inputs.is_empty() {
        return Ok(model::defaults::TRUST_DOMAIN.to_owned());
    }
    let mut pipeline = pipeline(&args.mesh)?;
    pipeline
        .apply(inputs)
        .context("the source did not deliver every kind")?;
    Ok(pipeline.mesh().trust_domain.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_plane_addresses_are_read_with_and_without_brackets() {
        assert_eq!(
            host_port("127.0.0.1:1", "--x").ok(),
            Some(("127.0.0.1".to_owned(), 1))
        );
        assert_eq!(
            host_port("[::1]:15012", "--x").ok(),
            Some(("::1".to_owned(), 15012))
        );
        assert!(host_port("localhost", "--x").is_err());
        assert!(host_port(":1", "--x").is_err());
    }
}
