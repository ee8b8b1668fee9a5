//! What of a policy does not do what it says.

use flow::Reads;
use model::derived::AppProtocol;
use model::input::{BackendTlsPolicy, TlsMode};
use model::{Finding, MeshRow, ObjectKey, Parsed, ServiceRow, Severity, Str};

use super::{BackendTlsRow, BackendTlsView, TargetRow, of_service_port, reference};
use crate::attachment::mesh_row;
use crate::ir::Direction;
use crate::traffic::{self, Seen, TrafficTables};

pub(super) fn of(
    policy: &Parsed<BackendTlsPolicy>,
    row: &BackendTlsRow,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let key = &policy.meta.key;
    let mut out = Vec::new();
    for (index, target) in row.targets.iter().enumerate() {
        let at = arcstr::format!("spec.targetRefs[{index}]");
        match &target.defect {
            Some(defect) => out.push(refused(key, row, defect).at(at)),
            None => out.extend(
                beside(key, target, view, reads)
                    .into_iter()
                    .map(|one| one.at(at.clone())),
            ),
        }
    }
    if let Some(remark) = &row.remark {
        let message = arcstr::format!("{remark}: backends that another vouches for are refused");
        let fix = "Put all authorities into one ConfigMap";
        let finding = Finding::new(
            "btls-refs-unused",
            Severity::Warning,
            reference(key),
            message,
            fix,
        );
        out.push(finding.at("spec.validation.caCertificateRefs"));
    }
    out.sort_unstable();
    out.dedup();
    out
}

fn refused(key: &ObjectKey, row: &BackendTlsRow, defect: &model::gateway::Defect) -> Finding {
    let why = &defect.message;
    let (code, severity, message, fix) = match defect.reason {
        "TargetNotFound" => (
            "btls-target-missing",
            Severity::Error,
            arcstr::format!(
                "{why}: connections there stay as they are, without TLS of this policy"
            ),
            "Name a Service or ServiceEntry of this namespace, and one of its ports by name or none",
        ),
        "Conflicted" => (
            "btls-conflicted",
            Severity::Warning,
            arcstr::format!("{why}. That one decides, this one does nothing there"),
            "Keep one policy for the target",
        ),
        "IgnoredByIstio" => (
            "btls-ignored",
            Severity::Info,
            arcstr::format!("{why}: it does nothing"),
            "Remove the annotation to have it applied",
        ),
        _ if row.refs.is_some() => (
            "btls-ca-unusable",
            Severity::Error,
            arcstr::format!(
                "{why}. Connections to the target are refused, for nobody vouches for it"
            ),
            "Name a ConfigMap of this namespace with certificates in PEM as ca.crt",
        ),
        _ => (
            "btls-invalid",
            Severity::Error,
            arcstr::format!(
                "{why}. Connections to the target are refused, save where a DestinationRule has tls for it"
            ),
            "Correct spec.validation",
        ),
    };
    Finding::new(code, severity, reference(key), message, fix)
}

/// What stands in the way of a target that is accepted.
fn beside(
    key: &ObjectKey,
    target: &TargetRow,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let mesh = &*mesh_row(view.mesh, reads);
    let mut out = Vec::new();
    for host in &target.services {
        let Some(service) = view.services.get(reads, host) else {
            continue;
        };
        if let Some((rule, plain)) = overriding(target, service, mesh, view, reads) {
            let now = if plain {
                "there connections stay in plain text"
            } else {
                "that opens TLS there, as it says"
            };
            out.push(Finding::new(
                "btls-overridden",
                if plain { Severity::Error } else { Severity::Warning },
                reference(key),
                arcstr::format!("DestinationRule {rule} has tls settings for {}, which come before the policy: {now}", host.hostname),
                "Remove tls from the DestinationRule, or the policy",
            ));
        }
        if let Some(port) = opened_twice(target, service) {
            out.push(Finding::new(
                "btls-double-tls",
                Severity::Warning,
                reference(key),
                arcstr::format!("Port {port} of {} carries TLS that clients open, and its waypoint opens TLS of the policy around it: backends that expect one see two", host.hostname),
                "Let clients in the mesh speak plain HTTP to a port with appProtocol http, or leave opening TLS to them",
            ));
        }
    }
    out
}

/// The rule whose `tls` comes before the policy on a port of it, and whether that means plain
/// text. Seen from the service's own namespace.
fn overriding(
    target: &TargetRow,
    service: &ServiceRow,
    mesh: &MeshRow,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Option<(ObjectKey, bool)> {
    let from = ObjectKey::new(service.key.ns.clone(), Str::new());
    let seen = Seen {
        waypoint: &from,
        direction: Direction::InboundVip,
        service,
        mesh,
    };
    let tables = TrafficTables {
        destination_rules: view.destination_rules,
    };
    let rules = traffic::resolve(tables, reads, &seen)?;
    let mut ports = of_service_port(target, service);
    ports.find_map(|port| {
        let policy = traffic::policy_of(&rules, port.port, "");
        let mode = policy.base.tls.as_ref()?.mode;
        let plain = matches!(mode, TlsMode::Disable | TlsMode::IstioMutual);
        Some((policy.rule?, plain))
    })
}

/// A port that clients of a waypoint open TLS to themselves.
fn opened_twice(target: &TargetRow, service: &ServiceRow) -> Option<u16> {
    service.waypoint.as_ref()?;
    let mut ports = of_service_port(target, service);
    let port = ports.find(|port| matches!(port.protocol, AppProtocol::Https | AppProtocol::Tls))?;
    Some(port.port)
}
