//! PeerAuthentication as ztunnel policies: refuse plaintext exactly on STRICT ports.

use flow::{Output, Reads};
use model::derived::{L4Match, PolicyScope, StringCondition};
use model::input::MtlsMode;
use model::{AuthorizationRow, Finding, Kind, ObjectKey, ObjectRef, Parsed};

use super::AuthorizationView;
use crate::peer_binding::{self, PeerBinding};
use crate::tables::{self, error, warning};

/// The static policy, present as soon as any PeerAuthentication exists.
pub(super) fn static_strict(
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AuthorizationRow, Finding> {
    if view.peer_bindings.scan(reads).next().is_none() {
        return Output::none();
    }
    let key = peer_binding::static_key(&tables::mesh(view.mesh, reads).root_namespace);
    let row = deny(&key, vec![vec![vec![unauthenticated()]]]);
    Output::one(key, row)
}

/// The converted policy of a PeerAuthentication, if workloads can reference it.
pub(super) fn derive(
    key: &ObjectKey,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AuthorizationRow, Finding> {
    let Some(object) = view.peers.get(reads, key) else {
        return Output::gone();
    };
    let root = &tables::mesh(view.mesh, reads).root_namespace;
    let Some(peer) = view.peer_bindings.get(reads, key) else {
        return Output::none();
    };
    let notes = findings(object, peer, *root == key.ns, view, reads);
    let converts = key.ns != *root && peer.selector.is_some() && !peer.ports.is_empty();
    if !converts {
        return Output::none().with_notes(notes);
    }
    let inherited = peer_binding::inherited_strict(view.peer_bindings, reads, &key.ns, root);
    let exceptions = peer.exceptions(inherited);
    if exceptions.is_empty() {
        return Output::none().with_notes(notes);
    }
    let groups = if peer.is_strict(inherited) {
        vec![all_but(&exceptions)]
    } else {
        exceptions.iter().map(|port| only(*port)).collect()
    };
    let converted = peer_binding::converted_key(key);
    let row = deny(&converted, groups);
    Output::one(converted, row).with_notes(notes)
}

fn deny(key: &ObjectKey, groups: Vec<Vec<Vec<L4Match>>>) -> AuthorizationRow {
    AuthorizationRow {
        key: key.clone(),
        scope: PolicyScope::Selector,
        deny: true,
        dry_run: false,
        groups,
    }
}

fn unauthenticated() -> L4Match {
    L4Match {
        not_principals: vec![StringCondition::Presence],
        ..L4Match::default()
    }
}

/// Unauthenticated, and to none of these ports.
fn all_but(ports: &[u16]) -> Vec<Vec<L4Match>> {
    let exempt = ports.iter().map(|port| {
        vec![L4Match {
            not_destination_ports: vec![*port],
            ..L4Match::default()
        }]
    });
    std::iter::once(vec![unauthenticated()])
        .chain(exempt)
        .collect()
}

/// Unauthenticated, and to this port.
fn only(port: u16) -> Vec<Vec<L4Match>> {
    vec![vec![L4Match {
        destination_ports: vec![port],
        ..unauthenticated()
    }]]
}

fn findings(
    object: &Parsed<model::input::PeerAuthentication>,
    peer: &PeerBinding,
    is_root: bool,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let key = object.key();
    let reference = || ObjectRef::new(Kind::PeerAuthentication, key.clone());
    let mut notes = Vec::new();
    if let Err(invalid) = &object.body {
        let message = format!(
            "The PeerAuthentication cannot be read ({}); until it is corrected, namespace {} is treated as STRICT",
            invalid.reason, key.ns
        );
        let note = error(
            "pa-invalid-strict",
            reference(),
            message,
            "Correct the object",
        );
        notes.push(note.at(invalid.field.clone()));
        return notes;
    }
    if is_root && peer.selector.is_some() {
        let note = warning(
            "pa-root-selector",
            reference(),
            "A PeerAuthentication with a selector in the root namespace is ignored",
            "Move it to the namespace of the workload",
        );
        notes.push(note.at("spec.selector"));
        return notes;
    }
    if peer.mode == MtlsMode::Disable
        && view.selects_ambient_pod(reads, &key.ns, peer.selector.as_ref())
    {
        let note = warning(
            "pa-disable-ambient",
            reference(),
            "mTLS cannot be disabled in ambient; DISABLE equals PERMISSIVE",
            "Write PERMISSIVE or remove the mode",
        );
        notes.push(note.at("spec.mtls.mode"));
    }
    notes
}
