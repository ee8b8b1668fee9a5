//! Workload discovery: on demand, workloads alone, order on a fresh stream, urgency, size.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use prost::Message as _;
use proto::discovery::DeltaDiscoveryResponse;
use proto::workload::{Address as AddressMessage, Workload as WorkloadMessage, address};
use snapshot::{AddressFacts, AddressIndex, AddressKind, EncodedResource, ResourceMap};

use super::tests::{NOTHING, Stream, ask, reconnect, subscribe, ztunnel};
use super::*;
use ResourceType::{Address, Authorization, Workload};

/// Workloads as `uid ip node services content`, services as `ns/name vip content`;
/// `-` for nothing, content `x` for an unhealthy workload.
fn world(workloads: &[&str], services: &[&str]) -> ResourceMap {
    let word = |word: &str| Str::from(word.trim_matches('-'));
    let service = |line: &&str| {
        let [name, vip, content] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let facts = AddressFacts::service();
        EncodedResource::address(word(name), content.as_bytes(), vec![word(vip)], facts, 0)
    };
    let services: ResourceMap = services.iter().map(service).collect();
    let workload = |line: &&str| {
        let [uid, ip, node, of, content] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let of: Vec<Str> = of.split(',').map(word).filter(|s| !s.is_empty()).collect();
        let seed = of
            .iter()
            .filter_map(|s| services.get(s))
            .map(|s| s.version());
        let seed = seed.fold(0, u64::wrapping_add);
        let message = WorkloadMessage {
            uid: uid.to_owned(),
            name: content.to_owned(),
            hostname: format!("{ip} {node} {of:?}"),
            ..WorkloadMessage::default()
        };
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            node: word(node),
            unhealthy: content == "x",
            services: of.into(),
        };
        let r#type = Some(address::Type::Workload(message));
        let bytes = AddressMessage { r#type }.encode_to_vec();
        EncodedResource::address(word(uid), &bytes, vec![word(ip)], facts, seed)
    };
    let mut all: ResourceMap = workloads.iter().map(workload).collect();
    for service in services.iter() {
        all.insert(Arc::clone(service));
    }
    all
}

fn snapshot(workloads: &[&str], services: &[&str]) -> Arc<Snapshot> {
    let addresses = world(workloads, services);
    Arc::new(Snapshot {
        address_index: AddressIndex::of(&addresses),
        addresses,
        ..Snapshot::default()
    })
}

fn with_policies(snapshot: &Snapshot, policies: &[&str]) -> Arc<Snapshot> {
    let policy = |name: &&str| {
        EncodedResource::new(Str::from(*name), Authorization.type_url(), b"1", Vec::new())
    };
    Arc::new(Snapshot {
        authorizations: policies.iter().map(policy).collect(),
        ..snapshot.clone()
    })
}

fn on_demand(ty: ResourceType, snapshot: Arc<Snapshot>) -> Stream {
    let mut stream = Stream::delta(ztunnel(), snapshot);
    stream.send(subscribe(ty, "*", "*"));
    stream.ack(ty);
    stream
}

const PODS: [&str; 3] = [
    "uid//a /1 far ns/s 1",
    "uid//b /2 far ns/s 1",
    "uid//c /2 far - 1",
];
const SERVICES: [&str; 2] = ["ns/s /v1 1", "ns/t n/10.0.0.0/24 1"];

#[test]
fn on_demand_keys_lead_to_workloads_by_uid_then_by_address_then_to_services_with_their_workloads() {
    for (key, expected) in [
        ("uid//a", "wds +uid//a~"),
        ("/2", "wds +uid//b~ +uid//c~ -/2"),
        ("ns/s", "wds +ns/s~ +uid//a~ +uid//b~"),
        ("/v1", "wds +ns/s~ +uid//a~ +uid//b~ -/v1"),
        ("n/10.0.0.0/24", "wds +ns/t~ -n/10.0.0.0/24"),
        ("/3", "wds -/3"),
    ] {
        let mut stream = on_demand(Address, snapshot(&PODS, &SERVICES));
        assert_eq!(
            stream.send(subscribe(Address, key, "")),
            [expected],
            "{key}"
        );
        assert_eq!(stream.ack(Address), NOTHING, "{key}");
        assert_eq!(
            stream.send(subscribe(Address, key, "")),
            [expected],
            "{key} asked for again is sent again"
        );
    }
}

#[test]
fn on_demand_address_that_appears_later_is_pushed_under_its_canonical_name() {
    // control-plane.md §10.34, §10.35, §10.36.
    for key in ["/9", "ns/u", "/v9", "uid//z"] {
        let mut stream = on_demand(Address, snapshot(&PODS, &SERVICES));
        assert_eq!(
            stream.send(subscribe(Address, key, "")),
            [format!("wds -{key}")]
        );
        stream.ack(Address);
        let pods = ["uid//a /1 far ns/s 2", "uid//z /9 far ns/u 1"];
        let log = stream.publish(snapshot(&pods, &["ns/u /v9 1"]));
        let expected = match key {
            "/9" | "uid//z" => "wds +uid//z~",
            _ => "wds +ns/u~ +uid//z~",
        };
        assert_eq!(log, [expected], "{key}");
        stream.ack(Address);
        assert_eq!(
            stream.publish(snapshot(&[], &["ns/u /v9 1"])),
            ["wds -uid//z"]
        );
    }
}

#[test]
fn on_demand_new_workloads_of_a_subscribed_service_and_of_the_own_node_are_announced() {
    let pods = ["uid//a /1 far ns/s 1", "uid//n /7 node - 1"];
    let mut stream = Stream::delta(ztunnel(), snapshot(&pods, &SERVICES));
    assert_eq!(stream.send(subscribe(Address, "*", "*")), ["wds +uid//n~"]);
    stream.ack(Address);
    stream.send(subscribe(Address, "ns/s", ""));
    stream.ack(Address);
    let more = [
        &pods[..],
        &[
            "uid//b /2 far ns/s 1",
            "uid//m /8 node - 1",
            "uid//o /4 far - 1",
        ],
    ];
    let log = stream.publish(snapshot(&more.concat(), &SERVICES));
    assert_eq!(log, ["wds +uid//m~ +uid//b~"], "local ones first");
}

#[test]
fn on_demand_changes_of_a_service_come_with_all_its_workloads_and_end_with_unsubscribing() {
    let mut stream = on_demand(Address, snapshot(&PODS, &SERVICES));
    stream.send(subscribe(Address, "ns/s", ""));
    stream.ack(Address);
    let changed = ["ns/s /v1 2", "ns/t n/10.0.0.0/24 2"];
    let log = stream.publish(snapshot(&PODS, &changed));
    assert_eq!(log, ["wds +ns/s~ +uid//a~ +uid//b~"]);
    stream.ack(Address);
    let all = "ns/s uid//a uid//b";
    assert_eq!(stream.send(subscribe(Address, "", all)), NOTHING);
    assert_eq!(stream.publish(snapshot(&PODS, &["ns/s /v1 3"])), NOTHING);
}

#[test]
fn on_demand_reconnect_is_subscribed_to_what_it_holds() {
    // workload-discovery.md §1.6, §8.62; control-plane.md §10.30.
    let now = snapshot(&PODS, &SERVICES);
    let version = |name: &str| now.addresses.get(name).unwrap().version_str();
    let (a, s) = (version("uid//a"), version("ns/s"));
    let held = [
        ("uid//a", a.as_str()),
        ("ns/s", &s),
        ("uid//gone", "1"),
        ("/2", ""),
        ("/9", ""),
    ];
    let mut stream = Stream::delta(ztunnel(), now.clone());
    let request = DeltaDiscoveryRequest {
        initial_resource_versions: reconnect(Address, &held).initial_resource_versions,
        ..subscribe(Address, "*", "*")
    };
    let log = stream.send(request);
    assert_eq!(log, ["wds +uid//b~ +uid//c~ -/2 -/9 -uid//gone"]);
    stream.ack(Address);
    let pods = [
        "uid//a /1 far ns/s 2",
        "uid//gone /5 far - 1",
        "uid//z /9 far - 1",
    ];
    let log = stream.publish(snapshot(&pods, &SERVICES));
    assert_eq!(log, ["wds +uid//a~ +uid//gone~ +uid//z~ -uid//b -uid//c"]);
}

#[test]
fn workload_type_has_bare_workloads_only_and_is_watched_apart_from_addresses() {
    // control-plane.md §10.37.
    let now = snapshot(&PODS, &SERVICES);
    let mut stream = Stream::delta(ztunnel(), now.clone());
    assert_eq!(stream.send(ask(Workload)), ["wds +uid//a +uid//b +uid//c"]);
    stream.ack(Workload);
    assert_eq!(
        stream.send(ask(Address)),
        ["wds +ns/s +ns/t +uid//a +uid//b +uid//c"]
    );
    let service_changed = snapshot(&PODS, &[SERVICES[0], "ns/t n/10.0.0.0/24 2"]);
    assert_eq!(
        stream.publish(service_changed),
        NOTHING,
        "no service, and addresses wait"
    );

    let mut session = Session::new(ztunnel(), Flavour::Delta, Arc::default(), "n-");
    let effects = session.on_request(0, ask(Workload).into(), &now);
    let [Effect::Send(response)] = &effects[..] else {
        panic!("{effects:?}")
    };
    let mut bytes = Vec::new();
    response.encode(&mut bytes);
    let decoded = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
    for resource in decoded.resources {
        let any = resource.resource.unwrap();
        assert_eq!(any.type_url, Workload.type_url());
        let workload = WorkloadMessage::decode(any.value.as_slice()).unwrap();
        assert_eq!(workload.uid, resource.name);
        let same = now.addresses.get(&resource.name).unwrap();
        assert_eq!(
            resource.version,
            same.version_str(),
            "the version of the address"
        );
    }

    let mut stream = on_demand(Workload, now);
    assert_eq!(
        stream.send(subscribe(Workload, "/v1 ns/none", "")),
        ["wds +uid//a~ +uid//b~ -ns/none"]
    );
}

#[test]
fn addresses_of_a_fresh_stream_wait_for_the_policies_that_they_name() {
    let now = with_policies(&snapshot(&PODS[..1], &[]), &["p"]);
    let mut stream = Stream::delta(ztunnel(), now.clone());
    assert_eq!(stream.send_at(1000, ask(Address)), NOTHING);
    assert_eq!(stream.session.deadline(), Some(1000 + HOLD_MS));
    assert_eq!(stream.publish(now.clone()), NOTHING);
    assert_eq!(stream.tick(1000 + HOLD_MS - 1), NOTHING);
    assert_eq!(
        stream.send_at(1010, ask(Authorization)),
        ["wads +p", "wds +uid//a"]
    );
    assert_eq!(stream.session.deadline(), None);

    let mut stream = Stream::delta(ztunnel(), now);
    assert_eq!(stream.send_at(1000, ask(Address)), NOTHING);
    assert_eq!(
        stream.tick(1000 + HOLD_MS),
        ["wds +uid//a"],
        "nobody asks for policies"
    );
    assert_eq!(stream.session.deadline(), None);
    assert_eq!(stream.send_at(1500, ask(Authorization)), ["wads +p"]);
}

#[test]
fn policies_of_an_older_connection_leave_after_its_workloads_are_replaced() {
    // workload-discovery.md §8.59: references go before the policy goes.
    let now = with_policies(&snapshot(&["uid//a /1 far - 2"], &[]), &["q"]);
    let mut stream = Stream::delta(ztunnel(), now);
    assert_eq!(
        stream.send_at(0, reconnect(Address, &[("uid//a", "1")])),
        NOTHING
    );
    assert_eq!(
        stream.send_at(0, reconnect(Authorization, &[("p", "1")])),
        ["wads +q", "wds +uid//a"]
    );
    assert_eq!(stream.ack(Authorization), ["wads -p"]);
}

fn with_limits(now: Arc<Snapshot>, limits: Limits) -> Stream {
    let mut stream = Stream::delta(ztunnel(), now);
    stream.session =
        Session::new(ztunnel(), Flavour::Delta, Arc::default(), "n-").with_limits(limits);
    stream
}

#[test]
fn urgent_part_of_a_large_change_goes_ahead_and_the_rest_is_never_overtaken_twice() {
    let limits = Limits {
        urgent_count_min: 2,
        ..Limits::default()
    };
    let old = [
        "uid//a /1 far ns/s 1",
        "uid//b /2 far - 1",
        "uid//c /3 far - 1",
    ];
    let old = with_policies(&snapshot(&old, &SERVICES), &["p"]);
    let mut stream = with_limits(old, limits);
    stream.send_at(0, ask(Address));
    assert_eq!(
        stream.send_at(0, ask(Authorization)),
        ["wads +p", "wds +ns/s +ns/t +uid//a +uid//b +uid//c"],
        "the first answer is whole"
    );
    stream.ack(Authorization);
    stream.ack(Address);
    let next = [
        "uid//a /1 far - x",
        "uid//b /2 far - 2",
        "uid//l /8 node - 1",
        "uid//r /9 far - 1",
    ];
    assert_eq!(
        stream.publish(snapshot(&next, &["ns/t n/10.0.0.0/24 2"])),
        ["wds +uid//a +uid//l -uid//c"],
        "a service goes with the rest, and the policy after it"
    );
    let next = [
        "uid//a /1 far - x",
        "uid//b /2 far - x",
        "uid//r /9 far - 1",
    ];
    assert_eq!(
        stream.publish(snapshot(&next, &["ns/t n/10.0.0.0/24 2"])),
        NOTHING
    );
    assert_eq!(
        stream.ack(Address),
        ["wds +uid//b +ns/t +uid//r -ns/s -uid//l", "wads -p"],
        "urgent first within the rest"
    );
}

#[test]
fn service_sent_ahead_of_its_workloads_has_them_sent_whatever_happens_to_it_meanwhile() {
    // workload-discovery.md §1.8, "Service replaced"; §8.65.
    let limits = Limits {
        response_bytes_max: 1,
        ..Limits::default()
    };
    let one = ["uid//a /1 far ns/s 1"];
    let mut stream = with_limits(snapshot(&one, &["ns/s /v1 1"]), limits);
    stream.send(ask(Address));
    assert_eq!(stream.ack(Address), ["wds +uid//a"]);
    stream.ack(Address);
    assert_eq!(
        stream.publish(snapshot(&one, &["ns/s /v1 2"])),
        ["wds +ns/s"]
    );
    assert_eq!(stream.publish(snapshot(&one, &["ns/s /v1 1"])), NOTHING);
    assert_eq!(stream.ack(Address), ["wds +ns/s"]);
    assert_eq!(
        stream.ack(Address),
        ["wds +uid//a"],
        "though its version is the old one"
    );
    assert_eq!(stream.ack(Address), NOTHING);
    // A service that goes for good goes last, and takes its workloads along when it returns.
    let alone = ["uid//a /1 far - 1"];
    assert_eq!(stream.publish(snapshot(&alone, &[])), ["wds +uid//a"]);
    assert_eq!(stream.ack(Address), ["wds -ns/s"]);
    stream.ack(Address);
    assert_eq!(
        stream.publish(snapshot(&one, &["ns/s /v1 1"])),
        ["wds +ns/s"]
    );
    assert_eq!(stream.ack(Address), ["wds +uid//a"]);
}

#[test]
fn hundred_thousand_workloads_reach_a_fresh_client_in_messages_that_it_accepts() {
    let count = 100_000_u32;
    let workload = |n: u32| {
        let uid = format!("Kubernetes//Pod/namespace-{}/workload-{n}", n % 100);
        let message = WorkloadMessage {
            uid: uid.clone(),
            name: format!("workload-{n}"),
            namespace: format!("namespace-{}", n % 100),
            addresses: vec![n.to_be_bytes().to_vec().into()],
            service_account: "default".to_owned(),
            node: format!("node-{}", n % 1000),
            canonical_name: "workload".to_owned(),
            workload_name: "workload".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            ..WorkloadMessage::default()
        };
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            node: Str::from(message.node.as_str()),
            unhealthy: false,
            services: Box::default(),
        };
        let r#type = Some(address::Type::Workload(message));
        let bytes = AddressMessage { r#type }.encode_to_vec();
        EncodedResource::address(uid.into(), &bytes, Vec::new(), facts, 0)
    };
    let addresses: ResourceMap = (0..count).map(workload).collect();
    let all = Arc::new(Snapshot {
        addresses,
        ..Snapshot::default()
    });
    // What ztunnel accepts, and a client that accepts less.
    for (limits, client_bytes_max) in [
        (Limits::default(), 200 << 20),
        (
            Limits {
                response_bytes_max: 5 << 20,
                ..Limits::default()
            },
            6 << 20,
        ),
    ] {
        let mut session =
            Session::new(ztunnel(), Flavour::Delta, Arc::default(), "n-").with_limits(limits);
        session.on_request(0, ask(Address).into(), &all);
        let mut effects = session.on_tick(HOLD_MS, &all);
        let (mut received, mut messages) = (0, 0);
        while let Some(Effect::Send(response)) = effects.pop() {
            assert!(response.encoded_bytes() <= client_bytes_max);
            received += response.resources_count();
            messages += 1;
            let ack = DeltaDiscoveryRequest {
                response_nonce: response.nonce,
                ..ask(Address)
            };
            effects = session.on_request(0, ack.into(), &all);
            effects.retain(|effect| matches!(effect, Effect::Send(_)));
        }
        assert_eq!(received, count as usize);
        let whole = all.addresses.bytes_total() <= limits.response_bytes_max;
        assert_eq!(
            messages == 1,
            whole,
            "complete in one message where it fits"
        );
    }
}
