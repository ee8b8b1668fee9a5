//! `bootstrap`: a certificate, and what stock Envoy is started with.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use envoy::bootstrap::BootstrapRole;
use model::gateway::ANNOTATION_SERVICE_ACCOUNT;
use model::labels::LABEL_GATEWAY_NAME;
use model::object::Input;
use model::{GatewayController, Object, ObjectKey, SpiffeId, Str};

use super::{format, load, objects, pipeline, print};
use crate::config::BootstrapArgs;
use crate::target::Target;

/// Lifetime of a certificate that `bootstrap` issues.
const CERTIFICATE_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// `ambientd bootstrap`: issues the certificate of a waypoint or gateway and prints its
/// bootstrap.
///
/// # Errors
/// When the target is neither, its address is not known, or the state directory
/// cannot be used.
pub fn bootstrap(args: &BootstrapArgs) -> anyhow::Result<ExitCode> {
    let inputs = args
        .config_dir
        .as_deref()
        .map(load)
        .transpose()?
        .unwrap_or_default();
    let (role, gateway) = role(&args.target, &inputs)?;
    let pod = pod_of(&inputs, gateway);
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
        .unwrap_or_else(|| account(&inputs, gateway, role));
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
        .write_workload_files(&dir, &identity, CERTIFICATE_TTL, SystemTime::now())
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

struct ProxyPod {
    name: String,
    ip: Option<IpAddr>,
    service_account: String,
}

/// What the proxy of a target is, and of which Gateway.
///
/// # Errors
/// When the target is no proxy of Envoy.
fn role<'t>(
    target: &'t Target,
    inputs: &[Input],
) -> anyhow::Result<(BootstrapRole, &'t ObjectKey)> {
    Ok(match target {
        Target::Waypoint(gateway) => (BootstrapRole::Waypoint, gateway),
        Target::EastWest(gateway) => (BootstrapRole::EastWest, gateway),
        Target::Gateway(gateway) => {
            let controller = deployed(inputs, gateway).map(|(controller, _)| controller);
            let role = match controller {
                Some(GatewayController::EastWest) => BootstrapRole::EastWest,
                _ => BootstrapRole::Router,
            };
            (role, gateway)
        }
        other => bail!(
            "--for {other}: only waypoint/NAMESPACE/NAME, gateway/NAMESPACE/NAME and east-west/NAMESPACE/NAME can be bootstrapped"
        ),
    })
}

/// The service account with which a Gateway is deployed; of one that is not known, with the
/// class that is created for its role.
fn account(inputs: &[Input], gateway: &ObjectKey, role: BootstrapRole) -> String {
    let account = deployed(inputs, gateway).map(|(_, account)| account);
    let account = account.unwrap_or_else(|| {
        let controller = match role {
            BootstrapRole::Router => GatewayController::Ingress,
            BootstrapRole::Waypoint => GatewayController::Waypoint,
            BootstrapRole::EastWest => GatewayController::EastWest,
        };
        controller.resource_name(&gateway.name, controller.class())
    });
    account.to_string()
}

/// Who controls a Gateway, and with which service account it is deployed.
fn deployed(inputs: &[Input], gateway: &ObjectKey) -> Option<(GatewayController, Str)> {
    let row = objects(inputs).find_map(|object| match object {
        Object::Gateway(row) if row.key() == gateway => Some(row),
        _ => None,
    })?;
    let class = &row.ok()?.class;
    let object = objects(inputs).find_map(|object| match object {
        Object::GatewayClass(row) if row.key().name == *class => Some(&**row),
        _ => None,
    });
    let controller = GatewayController::of(object, class)?;
    let own = row.meta.annotation(ANNOTATION_SERVICE_ACCOUNT);
    let own = own.filter(|account| !account.is_empty()).cloned();
    let account = own.unwrap_or_else(|| controller.resource_name(&gateway.name, class));
    Some((controller, account))
}

/// The pod of a Gateway's proxy.
fn pod_of(inputs: &[Input], gateway: &ObjectKey) -> Option<ProxyPod> {
    objects(inputs).find_map(|object| match object {
        Object::Pod(pod)
            if pod.meta.key.ns == gateway.ns
                && pod.meta.label(LABEL_GATEWAY_NAME) == Some(&gateway.name) =>
        {
            let body = pod.ok()?;
            Some(ProxyPod {
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
