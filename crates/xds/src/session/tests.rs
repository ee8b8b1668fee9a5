#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod rejections;
mod sotw;

use std::collections::BTreeMap;

use model::ObjectKey;
use prost::Message;
use proto::discovery::{DeltaDiscoveryResponse, DiscoveryResponse};
use snapshot::{EncodedResource, ProxyResources, ResourceMap};

use super::*;
use crate::client::ClientKind;
use ResourceType::{Address, Authorization, Cluster, Endpoint, Listener, Route};

pub(crate) fn ztunnel() -> Client {
    Client {
        kind: ClientKind::Ztunnel,
        ip: [10, 0, 0, 1].into(),
        pod: "ztunnel-x.istio-system".into(),
        ns: "istio-system".into(),
        service_account: None,
        node_name: "node".into(),
        cluster_id: "Kubernetes".into(),
        version: Str::new(),
        class: None,
        identity: None,
    }
}

pub(crate) fn envoy(ns: &str, gateway: &str) -> Client {
    Client {
        kind: ClientKind::Envoy,
        pod: format!("{gateway}.{ns}").into(),
        ns: ns.into(),
        class: Some(ProxyClass::waypoint(ObjectKey::new(ns, gateway))),
        ..ztunnel()
    }
}

/// `name=content` pairs as a map.
pub(crate) fn map(ty: ResourceType, items: &str) -> ResourceMap {
    let item = |item: &str| {
        let (name, content) = item.split_once('=').unwrap_or((item, "1"));
        EncodedResource::new(
            name.into(),
            ty.type_url(),
            content.as_bytes(),
            vec!["/ip".into()],
        )
    };
    items.split_whitespace().map(item).collect()
}

pub(crate) fn mesh(addresses: &str, authorizations: &str) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation: 7,
        addresses: map(Address, addresses),
        authorizations: map(Authorization, authorizations),
        ..Snapshot::default()
    })
}

pub(crate) fn proxies(
    client: &Client,
    clusters: &str,
    endpoints: &str,
    listeners: &str,
    routes: &str,
) -> Arc<Snapshot> {
    let resources = ProxyResources {
        clusters: map(Cluster, clusters),
        endpoints: map(Endpoint, endpoints),
        listeners: map(Listener, listeners),
        routes: map(Route, routes),
    };
    let class = client.class.clone().unwrap();
    Arc::new(Snapshot {
        proxies: [(class, Arc::new(resources))].into_iter().collect(),
        ..Snapshot::default()
    })
}

/// A response in short: `cds +a +b -c`, resources in the order of the wire.
pub(crate) fn brief(response: &Response) -> String {
    let mut bytes = Vec::new();
    response.encode(&mut bytes);
    assert_eq!(bytes.len(), response.encoded_bytes());
    let decoded = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!(decoded.nonce, response.nonce);
    let mut text = response
        .ty
        .map_or("unknown", ResourceType::short)
        .to_owned();
    for resource in &decoded.resources {
        text = text + " +" + &resource.name;
        if !resource.aliases.is_empty() {
            text.push('~');
        }
    }
    for name in &decoded.removed_resources {
        text = text + " -" + name;
    }
    text
}

fn brief_sotw(response: &Response) -> String {
    let mut bytes = Vec::new();
    response.encode(&mut bytes);
    let decoded = DiscoveryResponse::decode(bytes.as_slice()).unwrap();
    let mut text = response
        .ty
        .map_or("unknown", ResourceType::short)
        .to_owned();
    for resource in &decoded.resources {
        assert_eq!(resource.type_url, decoded.type_url);
        text = text + " " + &String::from_utf8_lossy(&resource.value);
    }
    text
}

/// A client and its session.
pub(super) struct Stream {
    pub(super) session: Session,
    snapshot: Arc<Snapshot>,
    pub(super) nonces: BTreeMap<ResourceType, String>,
}

impl Stream {
    fn new(client: Client, flavour: Flavour, snapshot: Arc<Snapshot>) -> Self {
        let session = Session::new(client, flavour, Arc::default(), "n-");
        Self {
            session,
            snapshot,
            nonces: BTreeMap::new(),
        }
    }

    pub(super) fn delta(client: Client, snapshot: Arc<Snapshot>) -> Self {
        Self::new(client, Flavour::Delta, snapshot)
    }

    fn take(&mut self, effects: Effects) -> Vec<String> {
        let flavour = self.session.flavour;
        let line = |effect| match effect {
            Effect::Send(response) => {
                if let Some(ty) = response.ty {
                    self.nonces.insert(ty, response.nonce.clone());
                }
                match flavour {
                    Flavour::Delta => brief(&response),
                    Flavour::Sotw => brief_sotw(&response),
                }
            }
            Effect::Interest(class) => format!("interest {}", class.gateway),
            Effect::Close(code, _) => format!("close {code:?}"),
            Effect::Observe(Observation::Acked { ty, .. }) => format!("acked {}", ty.short()),
            Effect::Observe(Observation::Nacked { ty, .. }) => format!("nacked {}", ty.short()),
            Effect::Observe(Observation::StaleNonce { ty }) => format!("stale {}", ty.short()),
        };
        effects.into_iter().map(line).collect()
    }

    /// Sends a request, and waits as long as a ztunnel's addresses wait for its policies.
    pub(super) fn send(&mut self, request: impl Into<Request>) -> Vec<String> {
        let mut log = self.send_at(0, request);
        if let Some(deadline) = self.session.deadline() {
            log.extend(self.tick(deadline));
        }
        log
    }

    pub(super) fn send_at(&mut self, now_ms: u64, request: impl Into<Request>) -> Vec<String> {
        let snapshot = self.snapshot.clone();
        let effects = self.session.on_request(now_ms, request.into(), &snapshot);
        self.take(effects)
    }

    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<String> {
        let effects = self.session.on_tick(now_ms, &self.snapshot.clone());
        self.take(effects)
    }

    pub(super) fn ack(&mut self, ty: ResourceType) -> Vec<String> {
        let nonce = self.nonces[&ty].clone();
        let mut log = match self.session.flavour {
            Flavour::Delta => self.send(DeltaDiscoveryRequest {
                response_nonce: nonce,
                ..ask(ty)
            }),
            Flavour::Sotw => panic!("a SotW acknowledgement has names"),
        };
        assert_eq!(log.remove(0), format!("acked {}", ty.short()));
        log
    }

    pub(super) fn publish(&mut self, snapshot: Arc<Snapshot>) -> Vec<String> {
        self.snapshot = snapshot;
        let effects = self.session.on_snapshot(0, &self.snapshot.clone());
        self.take(effects)
    }

    fn status(&self, ty: ResourceType) -> TypeStatus {
        let all = self.session.status();
        all.into_iter()
            .find(|status| status.type_url == ty.type_url())
            .unwrap()
    }
}

pub(super) fn ask(ty: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ty.type_url().to_owned(),
        ..Default::default()
    }
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn subscribe(ty: ResourceType, on: &str, off: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names(on),
        resource_names_unsubscribe: names(off),
        ..ask(ty)
    }
}

pub(super) fn reconnect(ty: ResourceType, held: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let held = held
        .iter()
        .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
    DeltaDiscoveryRequest {
        initial_resource_versions: held.collect(),
        ..ask(ty)
    }
}

fn sotw(ty: ResourceType, on: &str, nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: ty.type_url().to_owned(),
        resource_names: names(on),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    }
}

pub(super) fn rejection(message: &str) -> Status {
    Status {
        message: message.to_owned(),
        ..Default::default()
    }
}

fn version(ty: ResourceType, content: &str) -> String {
    map(ty, &format!("x={content}"))
        .get("x")
        .unwrap()
        .version_str()
        .to_string()
}

pub(super) const NOTHING: [&str; 0] = [];

#[test]
fn first_wildcard_request_is_answered_whole_even_when_empty() {
    let mut stream = Stream::delta(ztunnel(), mesh("a b", ""));
    assert_eq!(stream.send(ask(Address)), ["wds +a +b"]);
    assert_eq!(stream.send(ask(Authorization)), ["wads"]);
    // §10.16: an acknowledgement is not answered.
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(stream.ack(Authorization), NOTHING);
}

#[test]
fn first_request_is_answered_whatever_nonce_it_carries() {
    // §10.22.
    let mut stream = Stream::delta(ztunnel(), mesh("a", ""));
    let old = DeltaDiscoveryRequest {
        response_nonce: "other".to_owned(),
        ..ask(Address)
    };
    assert_eq!(stream.send(old), ["wds +a"]);
}

#[test]
fn reconnect_sends_only_what_differs() {
    // §10.30, §10.31, and for every type (an intended difference).
    let held = |ty, cases: &[(&'static str, &'static str)]| {
        let held: Vec<(&str, String)> = cases.iter().map(|(n, c)| (*n, version(ty, c))).collect();
        let held: Vec<(&str, &str)> = held.iter().map(|(n, v)| (*n, v.as_str())).collect();
        reconnect(ty, &held)
    };
    let current = [("a", "1"), ("b", "2"), ("c", "3")];
    let outdated = [("a", "1"), ("b", "9"), ("gone", "1")];
    for (ty, snapshot, expected, later) in [
        (Address, mesh("a=1 b=2 c=3", ""), "wds +b +c -gone", None),
        // A policy leaves only after the workloads that may name it.
        (
            Authorization,
            mesh("", "a=1 b=2 c=3"),
            "wads +b +c",
            Some("wads -gone"),
        ),
    ] {
        let mut stream = Stream::delta(ztunnel(), snapshot.clone());
        assert_eq!(stream.send(held(ty, &current)), [ty.short()]);
        assert_eq!(stream.ack(ty), NOTHING);
        assert_eq!(stream.publish(snapshot.clone()), NOTHING);

        let mut stream = Stream::delta(ztunnel(), snapshot.clone());
        assert_eq!(stream.send(held(ty, &outdated)), [expected]);
        assert_eq!(stream.ack(ty), Vec::from_iter(later.map(str::to_owned)));
        if later.is_some() {
            assert_eq!(stream.ack(ty), NOTHING);
        }
        assert_eq!(stream.publish(snapshot.clone()), NOTHING);
    }
    let mut stream = Stream::delta(ztunnel(), mesh("a", ""));
    let empty = reconnect(Address, &[("a", ""), ("gone", "")]);
    assert_eq!(
        stream.send(empty),
        ["wds +a -gone"],
        "an empty version is never current"
    );
}

/// Envoy acknowledges clusters once they are warm, and they are warm once their endpoints are there.
#[test]
fn endpoints_that_are_asked_for_do_not_wait_for_clusters_in_flight() {
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(client.clone(), proxies(&client, "a", "a b", "", ""));
    stream.send(ask(Cluster));
    assert_eq!(
        stream.publish(proxies(&client, "a b", "a b", "", "")),
        NOTHING
    );
    assert_eq!(stream.send(subscribe(Endpoint, "a", "")), ["eds +a"]);
    // What else has changed of them follows what it may belong to.
    let next = proxies(&client, "a b", "a=2 b=2", "", "");
    assert_eq!(stream.ack(Endpoint), NOTHING);
    assert_eq!(stream.publish(next), NOTHING);
    assert_eq!(stream.send(subscribe(Endpoint, "b", "")), ["eds +b"]);
    assert_eq!(stream.ack(Endpoint), NOTHING);
    assert_eq!(stream.ack(Cluster), ["cds +b", "eds +a +b"]);
}

#[test]
fn one_response_in_flight_and_changes_merge_until_the_acknowledgement() {
    // §10.45.
    let mut stream = Stream::delta(ztunnel(), mesh("a=1", ""));
    assert_eq!(stream.send(ask(Address)), ["wds +a"]);
    assert_eq!(stream.publish(mesh("a=2 b", "")), NOTHING);
    assert_eq!(stream.publish(mesh("a=3 c", "")), NOTHING);
    assert!(stream.status(Address).in_flight);
    assert_eq!(stream.ack(Address), ["wds +a +c"]);
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(
        stream.publish(mesh("a=3 c", "")),
        NOTHING,
        "equal content with another history"
    );
}

#[test]
fn stale_nonce_is_ignored_with_everything_in_it() {
    // §10.17.
    let mut stream = Stream::delta(ztunnel(), mesh("a=1", ""));
    stream.send(ask(Address));
    let stale = DeltaDiscoveryRequest {
        response_nonce: "old".to_owned(),
        ..subscribe(Address, "unknown", "")
    };
    assert_eq!(stream.send(stale.clone()), ["stale wds"]);
    let stale = DeltaDiscoveryRequest {
        error_detail: Some(rejection("x")),
        ..stale
    };
    assert_eq!(stream.send(stale), ["stale wds"]);
    assert!(stream.status(Address).in_flight);
    assert_eq!(stream.status(Address).last_error, None);
}

#[test]
fn star_on_and_off_is_on_demand_and_empty() {
    // §10.27, §10.34, §10.36.
    let mut stream = Stream::delta(ztunnel(), mesh("ns/a ns/b", ""));
    assert_eq!(stream.send(subscribe(Address, "*", "*")), ["wds"]);
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(stream.send(subscribe(Address, "ns/a", "")), ["wds +ns/a~"]);
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(
        stream.send(subscribe(Address, "ns/later", "")),
        ["wds -ns/later"]
    );
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(
        stream.publish(mesh("ns/a ns/b=2 ns/later", "")),
        ["wds +ns/later~"]
    );
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(
        stream.send(subscribe(Address, "", "ns/a unknown")),
        NOTHING,
        "§10.29"
    );
    assert_eq!(stream.publish(mesh("ns/a=2 ns/later", "")), NOTHING);
    assert_eq!(stream.publish(mesh("", "")), ["wds -ns/later"]);
}

#[test]
fn unsubscribing_wins_and_a_repeated_name_is_sent_again_unless_it_acknowledges() {
    // §10.26, §10.27.
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(client.clone(), proxies(&client, "", "e f", "", ""));
    let log = stream.send(subscribe(Endpoint, "e f", "f"));
    assert_eq!(log, ["interest app/wp", "eds +e"]);
    assert_eq!(stream.ack(Endpoint), NOTHING);
    assert_eq!(stream.send(subscribe(Endpoint, "e", "")), ["eds +e"]);
    let nonce = stream.nonces[&Endpoint].clone();
    let again = DeltaDiscoveryRequest {
        response_nonce: nonce,
        ..subscribe(Endpoint, "e", "")
    };
    assert_eq!(stream.send(again), ["acked eds"]);
}

#[test]
fn names_in_an_acknowledgement_or_a_rejection_are_answered() {
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(client.clone(), proxies(&client, "", "e f g", "", ""));
    stream.send(subscribe(Endpoint, "e", ""));
    let nonce = stream.nonces[&Endpoint].clone();
    let ack = DeltaDiscoveryRequest {
        response_nonce: nonce,
        ..subscribe(Endpoint, "f", "")
    };
    assert_eq!(stream.send(ack), ["acked eds", "eds +f"]);
    let nonce = stream.nonces[&Endpoint].clone();
    let nack = DeltaDiscoveryRequest {
        response_nonce: nonce,
        error_detail: Some(rejection("bad f")),
        ..subscribe(Endpoint, "g", "")
    };
    assert_eq!(stream.send(nack), ["nacked eds", "eds +g"]);
}

#[test]
fn named_types_get_nothing_without_names_and_removed_for_unknown_ones() {
    let client = envoy("app", "wp");
    let snapshot = proxies(&client, "c", "e", "l", "r");
    let mut stream = Stream::delta(client, snapshot);
    assert_eq!(stream.send(ask(Endpoint)), ["interest app/wp", "eds"]);
    assert_eq!(
        stream.send(subscribe(Route, "r none", "")),
        ["rds +r -none"]
    );
}

#[test]
fn unsubscribing_the_star_later_answers_in_full_and_stays_wildcard() {
    // §10.28.
    let mut stream = Stream::delta(ztunnel(), mesh("a b", ""));
    stream.send(ask(Address));
    stream.ack(Address);
    assert_eq!(stream.send(subscribe(Address, "", "*")), ["wds +a +b"]);
    stream.ack(Address);
    assert_eq!(stream.publish(mesh("a b c", "")), ["wds +c"]);
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(client.clone(), proxies(&client, "c", "", "", ""));
    stream.send(ask(Cluster));
    stream.ack(Cluster);
    assert_eq!(stream.send(subscribe(Cluster, "", "*")), NOTHING);
}

#[test]
fn name_asked_for_beside_the_wildcard_is_answered() {
    let mut stream = Stream::delta(ztunnel(), mesh("a b", ""));
    stream.send(ask(Address));
    stream.ack(Address);
    assert_eq!(
        stream.send(subscribe(Address, "a none", "")),
        ["wds +a -none"]
    );
}

#[test]
fn mesh_order_is_policies_workloads_removed_workloads_removed_policies() {
    // workload-discovery.md §1.6, §5.1.
    let mut stream = Stream::delta(ztunnel(), mesh("w1=1 w2", "p1 p2"));
    assert_eq!(stream.send(ask(Address)), ["wds +w1 +w2"]);
    assert_eq!(stream.send(ask(Authorization)), ["wads +p1 +p2"]);
    stream.ack(Address);
    stream.ack(Authorization);
    let next = mesh("w1=2 w3", "p2 p3");
    assert_eq!(stream.publish(next), ["wads +p3", "wds +w1 +w3 -w2"]);
    assert_eq!(stream.ack(Authorization), ["wads -p1"]);
    stream.ack(Address);
    stream.ack(Authorization);
    // Only a removal: still after the workloads, which wait for an acknowledgement.
    assert_eq!(stream.publish(mesh("w1=3 w3", "p2 p3")), ["wds +w1"]);
    assert_eq!(stream.publish(mesh("w1=4 w3", "p2")), NOTHING);
    assert_eq!(stream.ack(Address), ["wds +w1", "wads -p3"]);
}

#[test]
fn workloads_wait_for_the_policies_that_they_may_name() {
    let mut stream = Stream::delta(ztunnel(), mesh("w=1", "p=1"));
    stream.send(ask(Address));
    stream.ack(Address);
    stream.send(ask(Authorization));
    assert_eq!(stream.publish(mesh("w=2", "p=1 q")), NOTHING);
    assert_eq!(stream.ack(Authorization), ["wads +q", "wds +w"]);
}

#[test]
fn proxy_order_is_make_before_break() {
    // control-plane.md §2.6.
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(
        client.clone(),
        proxies(&client, "c1 c2", "c1 c2", "l1", "r1"),
    );
    stream.send(ask(Cluster));
    stream.send(subscribe(Endpoint, "c1 c2", ""));
    stream.send(ask(Listener));
    stream.send(subscribe(Route, "r1", ""));
    for ty in [Cluster, Endpoint, Listener, Route] {
        assert_eq!(stream.ack(ty), NOTHING);
    }
    let next = proxies(&client, "c2=2 c3", "c2 c3", "l2", "r1=2");
    assert_eq!(
        stream.publish(next),
        ["cds +c2 +c3", "eds +c2", "lds +l2 -l1", "rds +r1"],
        "changed clusters get their endpoints again"
    );
    assert_eq!(stream.ack(Endpoint), NOTHING);
    assert_eq!(stream.ack(Cluster), ["cds -c1", "eds -c1"]);
    assert_eq!(stream.send(subscribe(Endpoint, "c3", "c1")), NOTHING);
    assert_eq!(stream.ack(Endpoint), ["eds +c3"]);
}

#[test]
fn proxy_whose_class_is_not_translated_yet_waits() {
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(client.clone(), mesh("a", ""));
    let held = reconnect(Cluster, &[("c", "1")]);
    assert_eq!(stream.send(held), ["interest app/wp"]);
    assert_eq!(stream.send(ask(Listener)), NOTHING);
    assert_eq!(
        stream.send(ask(Address)),
        ["wds +a"],
        "what is of the mesh need not wait"
    );
    assert_eq!(stream.publish(mesh("a", "")), NOTHING);
    assert_eq!(
        stream.publish(proxies(&client, "", "", "l", "")),
        ["cds -c", "lds +l"]
    );
    // A class that vanishes leaves its proxies as they are.
    for ty in [Cluster, Listener] {
        stream.ack(ty);
    }
    assert_eq!(stream.publish(mesh("a", "")), NOTHING);
}

#[test]
fn ztunnel_asking_for_clusters_gets_an_empty_answer() {
    let mut stream = Stream::delta(ztunnel(), mesh("a", ""));
    assert_eq!(stream.send(ask(Cluster)), ["cds"]);
    assert_eq!(stream.send(ask(Address)), ["wds +a"]);
}

#[test]
fn unknown_type_is_answered_empty_once_and_health_never() {
    // §10.38, §10.43.
    let mut stream = Stream::delta(ztunnel(), mesh("a", ""));
    for type_url in ["", "type.googleapis.com/nobody.Knows"] {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            ..Default::default()
        };
        assert_eq!(stream.send(request.clone()), ["unknown"]);
        assert_eq!(stream.send(request), NOTHING);
    }
    let health = DeltaDiscoveryRequest {
        type_url: HEALTH_TYPE.to_owned(),
        ..Default::default()
    };
    assert_eq!(stream.send(health), NOTHING);
}

#[test]
fn excess_closes_the_stream() {
    let many: Vec<String> = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
    let (half, rest) = many.split_at(NAMES_MAX / 2);
    let with = |names: &[String]| DeltaDiscoveryRequest {
        resource_names_subscribe: names.to_vec(),
        ..ask(Endpoint)
    };
    let long = [String::from_utf8(vec![b'x'; NAME_BYTES_MAX + 1]).unwrap()];
    let types: Vec<_> = (0..=TYPES_MAX)
        .map(|n| DeltaDiscoveryRequest {
            type_url: n.to_string(),
            ..Default::default()
        })
        .collect();
    let cases = [
        (
            "names in one request",
            vec![with(&many)],
            "close ResourceExhausted",
        ),
        (
            "names over time",
            vec![with(half), with(rest)],
            "close ResourceExhausted",
        ),
        ("long name", vec![with(&long)], "close InvalidArgument"),
        ("types", types, "close ResourceExhausted"),
    ];
    for (case, requests, expected) in cases {
        let mut stream = Stream::delta(ztunnel(), mesh("", ""));
        let mut last = Vec::new();
        for request in requests {
            last = stream.send(request);
        }
        assert_eq!(last, [expected], "{case}");
        assert_eq!(
            stream.send(ask(Address)),
            NOTHING,
            "{case}: a closed stream stays silent"
        );
    }
}

#[test]
fn nonces_and_responses_are_never_repeated() {
    let mut stream = Stream::delta(ztunnel(), mesh("a", "p"));
    let mut seen = BTreeSet::new();
    stream.send(ask(Address));
    assert!(seen.insert(stream.nonces[&Address].clone()));
    stream.send(ask(Authorization));
    assert!(seen.insert(stream.nonces[&Authorization].clone()));
    stream.ack(Address);
    stream.publish(mesh("b", "p"));
    assert!(seen.insert(stream.nonces[&Address].clone()));
}

#[test]
fn clients_of_one_generation_share_their_frames() {
    let cache = Arc::new(DeltaCache::default());
    let snapshot = mesh("a b", "");
    let next = mesh("a=2 c", "");
    let delta = |_| {
        let mut session = Session::new(ztunnel(), Flavour::Delta, Arc::clone(&cache), "n-");
        session.on_request(0, ask(Address).into(), &snapshot);
        let first = session.on_tick(HOLD_MS, &snapshot);
        let Effect::Send(first) = &first[0] else {
            panic!("{first:?}")
        };
        let ack = DeltaDiscoveryRequest {
            response_nonce: first.nonce.clone(),
            ..ask(Address)
        };
        session.on_request(0, ack.into(), &snapshot);
        let effects = session.on_snapshot(0, &next);
        let Effect::Send(response) = &effects[0] else {
            panic!("{effects:?}")
        };
        let Payload::Shared(delta, _) = &response.payload else {
            panic!("not shared")
        };
        Arc::clone(delta)
    };
    let deltas = [0, 1, 2].map(delta);
    assert!(deltas.iter().all(|d| Arc::ptr_eq(d, &deltas[0])));
    assert_eq!(cache.len(), 2);
}

#[test]
fn versions_of_responses_follow_the_content_and_not_the_history() {
    let version = |flavour, generation, addresses| {
        let snapshot = Snapshot {
            generation,
            ..Snapshot::clone(&mesh(addresses, ""))
        };
        let request: Request = match flavour {
            Flavour::Delta => ask(Address).into(),
            Flavour::Sotw => sotw(Address, "", "").into(),
        };
        let mut session = Session::new(ztunnel(), flavour, Arc::default(), "n-");
        let snapshot = Arc::new(snapshot);
        let mut effects = session.on_request(0, request, &snapshot);
        effects.extend(session.on_tick(HOLD_MS, &snapshot));
        let [Effect::Send(response)] = effects.as_slice() else {
            panic!("{effects:?}");
        };
        response.version.clone()
    };
    for flavour in [Flavour::Delta, Flavour::Sotw] {
        let first = version(flavour, 1, "a b=2");
        assert_eq!(first, version(flavour, 9, "b=2 a"), "{flavour:?}");
        assert_ne!(first, version(flavour, 1, "a b=3"), "{flavour:?}");
    }
}
