//! What holds for every world, and worlds in which nothing is wrong.

use std::collections::BTreeSet;

use serde_json::Value;
use snapshot::ResourceType;

use crate::world::{World, worlds};

/// Strings below any `key`, at any depth.
fn values_of<'v>(value: &'v Value, key: &str, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| values_of(value, key, out));
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(item, key, out)),
        _ => {}
    }
}

/// What is wrong with what a waypoint receives, given the hosts that have an address.
fn defects(held: &Value, addressed: &BTreeSet<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let clusters = World::of(held, ResourceType::Cluster);
    let endpoints = World::of(held, ResourceType::Endpoint);
    let eds: BTreeSet<&str> = clusters
        .values()
        .filter(|cluster| cluster["type"] == "EDS")
        .map(|cluster| {
            cluster["edsClusterConfig"]["serviceName"]
                .as_str()
                .or(cluster["name"].as_str())
                .unwrap()
        })
        .collect();
    let assigned: BTreeSet<&str> = endpoints.keys().map(String::as_str).collect();
    if eds != assigned {
        wrong.push(format!("EDS clusters {eds:?} but assignments {assigned:?}"));
    }
    let listeners = World::of(held, ResourceType::Listener);
    let main = &listeners["main_internal"];
    for listener in listeners.values() {
        let mut named = Vec::new();
        values_of(listener, "cluster", &mut named);
        let mut weighted = Vec::new();
        weighted_clusters(listener, &mut weighted);
        for name in named.into_iter().chain(weighted) {
            if name != "UnknownService" && !clusters.contains_key(name) {
                wrong.push(format!(
                    "{} leads to cluster {name}, which is missing",
                    listener["name"]
                ));
            }
        }
    }
    let chains = main["filterChains"].as_array().into_iter().flatten();
    let chains: BTreeSet<&str> = chains.filter_map(|chain| chain["name"].as_str()).collect();
    let mut actions = Vec::new();
    values_of(&main["filterChainMatcher"], "value", &mut actions);
    let actions: BTreeSet<&str> = actions.into_iter().collect();
    wrong.extend(
        actions
            .difference(&chains)
            .map(|name| format!("the matcher names chain {name}, which is missing")),
    );
    // Direct chains are always there; a Service without an address has nothing to match on.
    let unreached = chains.difference(&actions).filter(|name| {
        name.rsplit('|')
            .next()
            .is_some_and(|host| addressed.contains(host))
    });
    wrong.extend(unreached.map(|name| format!("nothing leads to chain {name}")));
    let mut types = Vec::new();
    for ty in [ResourceType::Cluster, ResourceType::Listener] {
        for resource in World::of(held, ty).values() {
            values_of(resource, "@type", &mut types);
        }
    }
    let ours = types.iter().filter(|ty| ty.contains("/istio."));
    wrong.extend(ours.map(|ty| format!("{ty} is no type of stock Envoy")));
    wrong
}

fn weighted_clusters<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            let clusters = map
                .get("weightedClusters")
                .and_then(|w| w["clusters"].as_array());
            out.extend(
                clusters
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one["name"].as_str()),
            );
            map.values().for_each(|value| weighted_clusters(value, out));
        }
        Value::Array(items) => items.iter().for_each(|item| weighted_clusters(item, out)),
        _ => {}
    }
}

#[test]
fn every_proxy_of_every_world_gets_configuration_that_holds_together() {
    let Some(worlds) = worlds() else { return };
    let mut wrong = Vec::new();
    let mut waypoints_count = 0;
    for path in &worlds {
        let world = match World::load(path) {
            Ok(world) => world,
            Err(error) => {
                wrong.push(format!("{}: {error:#}", path.display()));
                continue;
            }
        };
        if world.workloads().is_empty() || world.services().is_empty() {
            wrong.push(format!("{}: ztunnel gets nothing", world.name));
        }
        let services = world.services();
        let addressed = services
            .values()
            .filter(|service| !service["addresses"].is_null());
        let addressed = addressed
            .filter_map(|service| service["hostname"].as_str())
            .collect();
        for (gateway, held) in &world.waypoints {
            waypoints_count += 1;
            let defects = defects(held, &addressed).into_iter();
            wrong.extend(defects.map(|defect| format!("{} {gateway}: {defect}", world.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        waypoints_count >= worlds.len() / 2,
        "only {waypoints_count} waypoints"
    );
}

/// Claims "finding: none".
#[test]
fn claims_01_8_02_6_03_9_04_7_05_8_and_09_9_nothing_is_told() {
    for number in ["01", "02", "03", "04", "05", "09"] {
        let Some(world) = World::numbered(number) else {
            return;
        };
        assert_eq!(world.told(), [""; 0], "{}", world.name);
    }
}

/// Claims "finding: none" of worlds with routes, and one where advice alone is claimed.
#[test]
fn claims_12_10_20_9_22_8_and_29_7_nothing_is_told() {
    for number in ["12", "20", "22", "29"] {
        let Some(world) = World::numbered(number) else {
            return;
        };
        assert_eq!(world.told(), [""; 0], "{}", world.name);
    }
}

#[test]
fn correct_worlds_have_no_complaint() {
    let Some(world) = World::numbered("38") else {
        return;
    };
    assert_eq!(world.complaints(), [""; 0], "{}", world.name);
}
