#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::derived::Locality;
use model::labels::{LABEL_NETWORK, LABEL_REGION, LABEL_ZONE};
use model::{ObjectKey, Str, WorkloadRow, WorkloadUid};

use super::members::Member;
use super::place::{Place, by_locality, preferred};
use crate::ir::{EndpointGroup, EndpointIr, Health, LocalityPolicy};

fn at(text: &str) -> Locality {
    let mut parts = text.split('/').map(Str::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    }
}

fn workload(locality: &str, labels: &[(&str, &str)]) -> WorkloadRow {
    WorkloadRow {
        uid: WorkloadUid::pod("c", &ObjectKey::new("ns", locality)),
        name: Str::from(locality),
        ns: "ns".into(),
        addresses: Vec::new(),
        hostname: Str::new(),
        network: Str::new(),
        hbone: true,
        native_tunnel: false,
        trust_domain: Str::new(),
        service_account: Str::new(),
        waypoint: None,
        blocked: None,
        network_gateway: None,
        application_tunnel: None,
        node: Str::new(),
        canonical_name: Str::new(),
        canonical_revision: Str::new(),
        workload_name: Str::new(),
        policies: Vec::new(),
        healthy: true,
        terminating: false,
        host_network: false,
        is_slice_endpoint: false,
        locality: at(locality).into(),
        capacity: 0,
        cluster_id: "c".into(),
        services: model::derived::Memberships::new(),
        labels: labels
            .iter()
            .map(|(key, value)| (Str::from(*key), Str::from(*value)))
            .collect(),
    }
}

fn members(workloads: &[WorkloadRow]) -> Vec<Member<'_>> {
    let member = |(host, workload)| Member {
        endpoint: EndpointIr {
            ip: IpAddr::from([10, 0, 0, host]),
            more: Vec::new(),
            port: 80,
            tunnel: true,
            waypoint: None,
            health: Health::Healthy,
            weight: 1,
            workload: Str::new(),
        },
        workload,
    };
    (1..).zip(workloads).map(member).collect()
}

/// `locality@priority` or, where localities have weights, `locality@priority*weight`.
fn shown(groups: &[EndpointGroup]) -> Vec<String> {
    let one = |group: &EndpointGroup| {
        let Locality {
            region,
            zone,
            subzone,
        } = &group.locality;
        let weight = group.weight.map(|w| format!("*{w}")).unwrap_or_default();
        format!("{region}/{zone}/{subzone}@{}{weight}", group.priority)
    };
    groups.iter().map(one).collect()
}

fn seen(policy: &LocalityPolicy, from: &str, workloads: &[WorkloadRow]) -> Vec<String> {
    let locality = at(from);
    let place = Place {
        locality: &locality,
        network: &Str::new(),
    };
    shown(&preferred(policy, place, &members(workloads)))
}

fn everywhere() -> Vec<WorkloadRow> {
    ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1"]
        .map(|text| workload(text, &[]))
        .into()
}

#[test]
fn nearer_endpoints_come_first_without_gaps() {
    let failover = LocalityPolicy::Failover(Vec::new());
    let expected = [
        "r1/z1/s1@0",
        "r1/z1/s2@1",
        "r1/z2/s1@2",
        "r2/z1/s1@3",
        "r3/z1/s1@3",
    ];
    assert_eq!(seen(&failover, "r1/z1/s1", &everywhere()), expected);
    // Nobody in the proxy's zone: the region comes first, at 0.
    let expected = [
        "r1/z1/s1@0",
        "r1/z1/s2@0",
        "r1/z2/s1@0",
        "r2/z1/s1@1",
        "r3/z1/s1@1",
    ];
    assert_eq!(seen(&failover, "r1/z9/s1", &everywhere()), expected);
    let all = |list: Vec<String>| list.iter().all(|one| one.ends_with("@0"));
    assert!(all(seen(&failover, "r9/z1/s1", &everywhere())));
    assert!(all(seen(&failover, "", &everywhere())));
}

#[test]
fn an_entry_says_which_region_takes_over() {
    let entries = vec![("r1".into(), "r3".into()), ("r2".into(), "r1".into())];
    let failover = LocalityPolicy::Failover(entries);
    let expected = [
        "r1/z1/s1@0",
        "r1/z1/s2@1",
        "r1/z2/s1@2",
        "r3/z1/s1@3",
        "r2/z1/s1@4",
    ];
    assert_eq!(seen(&failover, "r1/z1/s1", &everywhere()), expected);
}

#[test]
fn the_first_label_that_differs_decides() {
    let keys = [LABEL_NETWORK, LABEL_REGION, LABEL_ZONE].map(Str::from);
    let labels = LocalityPolicy::Labels(keys.into());
    let expected = [
        "r1/z1/s1@0",
        "r1/z1/s2@0",
        "r1/z2/s1@1",
        "r2/z1/s1@2",
        "r3/z1/s1@2",
    ];
    assert_eq!(seen(&labels, "r1/z1/s1", &everywhere()), expected);
    // Without a place of its own a proxy is like nobody.
    let all = seen(&labels, "", &everywhere());
    assert!(all.iter().all(|one| one.ends_with("@0")), "{all:?}");
}

#[test]
fn a_value_is_compared_with_the_endpoint_alone() {
    let two = [
        workload("r1//", &[("tier", "gold")]),
        workload("r2//", &[("tier", "tin")]),
    ];
    let by = |key: &str| LocalityPolicy::Labels(vec![key.into()]);
    assert_eq!(seen(&by("tier=tin"), "r1//", &two), ["r2//@0", "r1//@1"]);
    // What the proxy's own value is nobody knows, so it is like neither.
    assert_eq!(seen(&by("tier"), "r1//", &two), ["r1//@0", "r2//@0"]);
    let region = format!("{LABEL_REGION}=r2");
    assert_eq!(seen(&by(&region), "r1//", &two), ["r2//@0", "r1//@1"]);
}

#[test]
fn shares_go_to_the_listed_localities_only() {
    let to = |list: &[(&str, u32)]| -> BTreeMap<Str, u32> {
        list.iter().map(|(to, w)| (Str::from(*to), *w)).collect()
    };
    let entries = vec![
        ("r1/z1/*".into(), to(&[("r1/z1/*", 80), ("r1/z2/*", 20)])),
        ("r1/*".into(), to(&[("r2/*", 100)])),
    ];
    let distribute = LocalityPolicy::Distribute(entries);
    let expected = ["r1/z1/s1@0*40", "r1/z1/s2@0*40", "r1/z2/s1@0*20"];
    assert_eq!(seen(&distribute, "r1/z1/s1", &everywhere()), expected);
    assert_eq!(
        seen(&distribute, "r1/z2/s1", &everywhere()),
        ["r2/z1/s1@0*100"]
    );
    // Without an entry for the proxy nothing is distributed.
    assert_eq!(seen(&distribute, "r2/z1/s1", &everywhere()).len(), 5);
    // The narrowest pattern takes a locality.
    let narrow = vec![("*".into(), to(&[("r1/*", 50), ("r1/z1/s1", 50)]))];
    let expected = ["r1/z1/s1@0*50", "r1/z1/s2@0*25", "r1/z2/s1@0*25"];
    let narrow = LocalityPolicy::Distribute(narrow);
    assert_eq!(seen(&narrow, "", &everywhere()), expected);
}

#[test]
fn without_policy_localities_are_alike() {
    let all = everywhere();
    let plain = by_locality(&members(&all));
    assert_eq!(shown(&plain), seen(&LocalityPolicy::None, "r1/z1/s1", &all));
    assert!(plain.iter().all(|group| group.priority == 0));
}
