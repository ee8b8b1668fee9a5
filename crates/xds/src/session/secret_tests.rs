//! Secrets on a stream: judged for every request and every push.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};

use model::derived::WaypointFor;
use model::input::AllowedNamespaces;
use model::secret::{CredentialGrants, Material, MaterialKey};
use model::{ObjectKey, SecretBytes, SpiffeId, WaypointRow};
use snapshot::{ProxyResources, SecretStore};

use super::tests::{Stream, ask, envoy, reconnect, subscribe};
use super::*;
use ResourceType::{Cluster, Secret};

/// What there is: `ns/name=content` Secrets, and the names that Gateway `a/gw` may have.
fn world(secrets: &str, granted: &str) -> Arc<Snapshot> {
    let mut store = SecretStore::default();
    for item in secrets.split_whitespace() {
        let (at, content) = item.split_once('=').unwrap();
        let material = Material {
            certificate: Some(SecretBytes::new(content.as_bytes())),
            authority: Some(SecretBytes::new(format!("ca:{content}").into_bytes())),
            ..Material::default()
        };
        let at = MaterialKey::Secret(at.parse().unwrap());
        store.put_material(at, Some(Arc::new(material)));
    }
    let names = granted.split_whitespace();
    let grants = CredentialGrants {
        names: names
            .map(|name| (name.into(), vec![name.parse().unwrap()]))
            .collect(),
        account: Some("gw".into()),
        ..CredentialGrants::default()
    };
    let gateway = ObjectKey::new("a", "gw");
    store.put_grants(gateway.clone(), Some(Arc::new(grants)));
    let row = WaypointRow {
        key: gateway.clone(),
        class: Str::new(),
        controller: None,
        ready: true,
        address: None,
        serves: WaypointFor::None,
        allowed: AllowedNamespaces::None,
        listener: None,
        takes: Vec::new(),
        service_accounts: vec!["gw".into()],
        binding: None,
        forwards_identity: false,
    };
    let classes = ["gw", "other"].map(|name| {
        let class = ProxyClass::waypoint(ObjectKey::new("a", name));
        (class, Arc::new(ProxyResources::default()))
    });
    Arc::new(Snapshot {
        proxies: classes.into_iter().collect(),
        waypoints: [(gateway, Arc::new(row))].into_iter().collect(),
        secrets: store,
        ..Snapshot::default()
    })
}

/// A proxy of `a/gw` under this account, if it proved one.
fn client(account: Option<&str>) -> Client {
    Client {
        identity: account.map(|sa| SpiffeId::new("cluster.local", "a", sa)),
        ..envoy("a", "gw")
    }
}

const OWN: &str = "kubernetes-gateway://a/s";
const GRANTED: &str = "kubernetes-gateway://b/s";

/// A stream that asked for these names, with what it was told first (without its interest).
fn stream(client: Client, snapshot: &Arc<Snapshot>, names: &str) -> (Stream, Vec<String>) {
    let mut stream = Stream::delta(client, Arc::clone(snapshot));
    let mut log = stream.send(subscribe(Secret, names, ""));
    log.retain(|line| !line.starts_with("interest"));
    (stream, log)
}

#[test]
fn denied_and_missing_names_look_the_same_and_do_not_hold_up_the_rest() {
    let world = world("a/s=1 b/s=1 b/t=1", "a/s");
    let names = format!("{OWN} {GRANTED} kubernetes://gone kubernetes://b/t invalid://x");
    let (_, log) = stream(client(Some("gw")), &world, &names);
    assert_eq!(
        log,
        [
            "sds +kubernetes-gateway://a/s -invalid://x -kubernetes-gateway://b/s -kubernetes://b/t -kubernetes://gone"
        ]
    );
}

#[test]
fn nobody_gets_anything_without_an_identity_or_with_that_of_another() {
    let world = world("a/s=1", "a/s");
    for account in [None, Some("app")] {
        let (_, log) = stream(client(account), &world, &format!("{OWN} kubernetes://s"));
        assert_eq!(
            log,
            ["sds -kubernetes-gateway://a/s -kubernetes://s"],
            "{account:?}"
        );
    }
    let other = Client {
        identity: client(Some("gw")).identity,
        ..envoy("a", "other")
    };
    let (_, log) = stream(other, &world, OWN);
    assert_eq!(log, ["sds -kubernetes-gateway://a/s"], "of another Gateway");
}

#[test]
fn a_wildcard_gets_nothing_but_what_it_names() {
    let world = world("a/s=1 a/t=1", "a/s");
    let (mut all, log) = stream(client(Some("gw")), &world, "*");
    assert_eq!(log, ["sds"]);
    assert_eq!(all.ack(Secret), [""; 0]);
    assert_eq!(
        all.send(subscribe(Secret, OWN, "")),
        ["sds +kubernetes-gateway://a/s"]
    );
}

#[test]
fn changed_bytes_go_to_who_has_the_secret_and_to_nobody_else() {
    let first = world("a/s=1 a/t=1", "a/s");
    let (mut one, log) = stream(client(Some("gw")), &first, OWN);
    assert_eq!(log, ["sds +kubernetes-gateway://a/s"]);
    one.ack(Secret);
    let (mut other, _) = stream(client(Some("gw")), &first, "kubernetes://t");
    other.ack(Secret);
    let mut clusters = Stream::delta(client(Some("gw")), Arc::clone(&first));
    clusters.send(ask(Cluster));
    clusters.ack(Cluster);

    let rotated = world("a/s=2 a/t=1", "a/s");
    assert_eq!(
        one.publish(Arc::clone(&rotated)),
        ["sds +kubernetes-gateway://a/s"]
    );
    assert_eq!(other.publish(Arc::clone(&rotated)), [""; 0]);
    assert_eq!(clusters.publish(Arc::clone(&rotated)), [""; 0]);
    one.ack(Secret);
    // The same again, from another history.
    assert_eq!(one.publish(world("a/s=2 a/t=1", "a/s")), [""; 0]);
}

#[test]
fn a_withdrawn_grant_ends_what_is_served_and_a_new_one_brings_it_back() {
    let granted = || world("b/s=1", "b/s");
    let (mut stream, log) = stream(client(Some("gw")), &granted(), GRANTED);
    assert_eq!(log, ["sds +kubernetes-gateway://b/s"]);
    stream.ack(Secret);
    assert_eq!(
        stream.publish(world("b/s=1", "")),
        ["sds -kubernetes-gateway://b/s"]
    );
    stream.ack(Secret);
    // Rotated while it must not be had.
    assert_eq!(stream.publish(world("b/s=2", "")), [""; 0]);
    let again = stream.send(subscribe(Secret, GRANTED, ""));
    assert_eq!(again, ["sds -kubernetes-gateway://b/s"]);
    stream.ack(Secret);
    assert_eq!(stream.publish(granted()), ["sds +kubernetes-gateway://b/s"]);
}

#[test]
fn what_was_denied_then_granted_then_withdrawn_is_told_each_time() {
    let (mut stream, log) = stream(client(Some("gw")), &world("b/s=1", ""), GRANTED);
    assert_eq!(log, ["sds -kubernetes-gateway://b/s"]);
    stream.ack(Secret);
    for _ in 0..2 {
        assert_eq!(stream.publish(world("b/s=1", "")), [""; 0]);
        let log = stream.publish(world("b/s=1", "b/s"));
        assert_eq!(log, ["sds +kubernetes-gateway://b/s"]);
        // Withdrawn before it was accepted.
        assert_eq!(stream.publish(world("b/s=1", "")), [""; 0]);
        assert_eq!(stream.ack(Secret), ["sds -kubernetes-gateway://b/s"]);
        stream.ack(Secret);
    }
}

#[test]
fn a_secret_deleted_and_created_again_is_sent_again() {
    let (mut stream, _) = stream(client(Some("gw")), &world("a/s=1", "a/s"), OWN);
    stream.ack(Secret);
    assert_eq!(
        stream.publish(world("", "a/s")),
        ["sds -kubernetes-gateway://a/s"]
    );
    stream.ack(Secret);
    assert_eq!(
        stream.publish(world("a/s=1", "a/s")),
        ["sds +kubernetes-gateway://a/s"]
    );
}

#[test]
fn what_a_reconnecting_client_says_it_holds_opens_nothing() {
    let version = {
        let world = world("b/s=1", "b/s");
        let caller = client(Some("gw")).identity;
        let gateway = ObjectKey::new("a", "gw");
        let access = snapshot::GatewayAccounts(&world);
        let secret = world.secret(caller.as_ref(), Some(&gateway), GRANTED, &access);
        secret.unwrap().version_str().to_string()
    };
    for (granted, log) in [("b/s", "sds"), ("", "sds -kubernetes-gateway://b/s")] {
        let mut stream = Stream::delta(client(Some("gw")), world("b/s=1", granted));
        let sent = stream.send(reconnect(Secret, &[(GRANTED, &version)]));
        assert_eq!(sent[1..], [log.to_owned()]);
    }
}

/// An access review whose answer changes.
#[derive(Debug, Default)]
struct Review(AtomicBool);

impl SecretAccess for Review {
    fn may_list_secrets(&self, _: &SpiffeId) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn access_is_asked_again_for_each_request_and_each_push() {
    let review = Arc::new(Review::default());
    let mut stream = Stream::delta(client(Some("app")), world("a/s=1", ""));
    let access: Arc<dyn SecretAccess> = review.clone();
    let session = Session::new(client(Some("app")), Flavour::Delta, Arc::default(), "n-");
    stream.session = session.with_secret_access(access);
    let log = stream.send(subscribe(Secret, "kubernetes://s", ""));
    assert_eq!(log[1..], ["sds -kubernetes://s"]);
    stream.ack(Secret);
    review.0.store(true, Ordering::Relaxed);
    assert_eq!(stream.publish(world("a/s=1", "")), ["sds +kubernetes://s"]);
    stream.ack(Secret);
    review.0.store(false, Ordering::Relaxed);
    assert_eq!(stream.publish(world("a/s=2", "")), ["sds -kubernetes://s"]);
}

#[test]
fn responses_print_without_content() {
    let mut session = Session::new(client(Some("gw")), Flavour::Delta, Arc::default(), "n-");
    let world = world("a/s=canary-4711", "a/s");
    let request = subscribe(Secret, OWN, "").into();
    let effects = session.on_request(0, request, &world);
    let shown = format!("{effects:?} {session:?} {world:?}");
    assert!(shown.contains(OWN), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}
