//! PeerAuthentication as ztunnel policies: refuse plaintext exactly on STRICT ports.

mod notes;

use flow::{Output, Reads};
use model::derived::{L4Match, PolicyScope, StringCondition};
use model::{AuthorizationRow, Finding, ObjectKey};

use super::AuthorizationView;
use crate::peer_binding;
use crate::tables;

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
    let notes = notes::notes(object, peer, root, view, reads);
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
