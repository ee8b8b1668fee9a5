//! What of a PeerAuthentication has no effect, or not the one that it seems to have.
//! Source: spec/policy-and-traffic.md §10.2.

use flow::Reads;
use model::input::{MtlsMode, PeerAuthentication, TargetPort};
use model::{Finding, Kind, Labels, ObjectRef, Parsed, ServiceRow, Severity, Str};

use super::super::AuthorizationView;
use crate::peer_binding::{self, PeerBinding};
use crate::selector;
use crate::service::ServicesBySelector;
use crate::tables::{error, warning};

/// Findings on one PeerAuthentication.
pub(super) fn notes(
    object: &Parsed<PeerAuthentication>,
    peer: &PeerBinding,
    root: &Str,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let key = object.key();
    let reference = ObjectRef::new(Kind::PeerAuthentication, key.clone());
    if let Err(invalid) = &object.body {
        let range = if *root == key.ns {
            "the mesh, where a namespace says nothing else,".to_owned()
        } else {
            format!("namespace {}", key.ns)
        };
        let message = format!(
            "The PeerAuthentication cannot be read ({}); until it is corrected, {range} is treated as STRICT",
            invalid.reason
        );
        let note = error(
            "pa-invalid-strict",
            reference,
            message,
            "Correct the object",
        );
        return vec![note.at(invalid.field.clone())];
    }
    if *root == key.ns && peer.selector.is_some() {
        let note = warning(
            "pa-root-selector",
            reference,
            "A PeerAuthentication with a selector in the root namespace is ignored",
            "Move it to the namespace of the workload",
        );
        return vec![note.at("spec.selector")];
    }
    let mut notes = Vec::new();
    if let Some(winner) = peer_binding::older_of_same_scope(view.peer_bindings, reads, key, peer) {
        let note = warning(
            "pa-duplicate-scope",
            reference,
            format!("{winner} is older and has the same scope; this one has no effect"),
            "Delete one of them",
        );
        return vec![note];
    }
    if peer.mode == MtlsMode::Disable && view.selects_served(reads, &key.ns, peer.selector.as_ref())
    {
        let note = warning(
            "pa-disable-ambient",
            reference.clone(),
            "mTLS cannot be disabled in ambient; DISABLE equals PERMISSIVE",
            "Write PERMISSIVE or remove the mode",
        );
        notes.push(note.at("spec.mtls.mode"));
    }
    if let Some(selector) = &peer.selector {
        notes.extend(service_ports(&reference, peer, selector, view, reads));
        notes.extend(elsewhere(&reference, peer, root, view, reads));
    }
    notes
}

/// Ports that are those of services, where pods have others.
fn service_ports(
    object: &ObjectRef,
    peer: &PeerBinding,
    selector: &Labels,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    if peer.ports.is_empty() {
        return Vec::new();
    }
    let mut services: Vec<&ServiceRow> = Vec::new();
    for at in selector::places(&object.key.ns, selector).filter(|at| at.1.is_some()) {
        let found = view.services.by::<ServicesBySelector>(reads, &at);
        services.extend(found.map(|(_, row)| row.as_ref()).filter(|row| {
            let of_service = row.selector.as_ref();
            of_service.is_some_and(|own| selector::selects(own, selector))
        }));
    }
    let all = || services.iter().flat_map(|row| &row.ports);
    let mut notes = Vec::new();
    for port in peer.ports.keys() {
        // A named target may be any number, so it proves nothing.
        let may_be_target = all().any(|other| match &other.target {
            TargetPort::Number(0) => other.port == *port,
            TargetPort::Number(number) => number == port,
            TargetPort::Named(_) => true,
        });
        let Some(targeted) = all().find(|other| other.port == *port && !may_be_target) else {
            continue;
        };
        let TargetPort::Number(target) = targeted.target else {
            continue;
        };
        let note = warning(
            "pa-port-is-service-port",
            object.clone(),
            format!(
                "{port} is a port of the service, which the pods serve on {target}; the entry concerns no connection"
            ),
            format!("Write {target}"),
        );
        notes.push(note.at(format!("spec.portLevelMtls[{port}]")));
    }
    notes
}

/// What is enforced here and left open by other control planes.
fn elsewhere(
    object: &ObjectRef,
    peer: &PeerBinding,
    root: &Str,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Option<Finding> {
    let ns = &object.key.ns;
    let inherited = peer_binding::inherited_strict(view.peer_bindings, reads, ns, root);
    if peer.mode != MtlsMode::Unset || !inherited {
        return None;
    }
    let info = |code, message: String, fix: &str, port: &u16| {
        Finding::new(code, Severity::Info, object.clone(), message, fix)
            .at(format!("spec.portLevelMtls[{port}].mode"))
    };
    let port_with = |mode: MtlsMode| peer.ports.iter().find(|(_, own)| **own == mode);
    if let Some((port, _)) = port_with(MtlsMode::Disable) {
        return Some(info(
            "pa-port-disable-inherited",
            format!(
                "Port {port} accepts plain text here; istiod ignores DISABLE under an inherited STRICT and refuses it"
            ),
            "Write PERMISSIVE, which means the same everywhere",
            port,
        ));
    }
    let (port, _) = port_with(MtlsMode::Permissive)?;
    let hides = peer_binding::is_namespace_unset(view.peer_bindings, reads, ns);
    hides.then(|| {
        info(
            "pa-unset-namespace-hides-mesh",
            format!("STRICT of the mesh is enforced here except on port {port}; istiod leaves these workloads open, for the namespace has a PeerAuthentication without mode"),
            "Set the mode of the namespace's PeerAuthentication",
            port,
        )
    })
}
