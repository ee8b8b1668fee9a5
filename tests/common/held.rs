//! What an Envoy holds, as far as a test compares it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::ensure;
use model::ObjectKey;
use serde_json::Value;

const PREFIX: &str = "type.googleapis.com/envoy.config.";

/// Names of the resources of one proxy, and how many endpoints each cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) clusters: BTreeSet<String>,
    pub(crate) listeners: BTreeSet<String>,
    pub(crate) routes: BTreeSet<String>,
    pub(crate) endpoints: BTreeMap<String, usize>,
    /// What is there but not in use, with Envoy's reason where it has one.
    pub(crate) unusable: Vec<String>,
}

impl Held {
    /// What `ambientd render` says that a waypoint receives.
    pub(crate) fn rendered(config_dir: &Path, gateway: &ObjectKey) -> anyhow::Result<Self> {
        Self::rendered_with(config_dir, "waypoint", gateway, &[])
    }

    /// The same of a `waypoint` or `gateway`, with flags of the mesh.
    pub(crate) fn rendered_with(
        config_dir: &Path,
        kind: &str,
        gateway: &ObjectKey,
        flags: &[String],
    ) -> anyhow::Result<Self> {
        let target = format!("{kind}/{gateway}");
        let mut args = vec!["render", "--for", &target];
        args.extend(flags.iter().map(String::as_str));
        let all = super::ambientd_json(&args, config_dir)?;
        let of = |kind: &str| {
            all[format!("{PREFIX}{kind}")]
                .as_object()
                .cloned()
                .unwrap_or_default()
        };
        let names = |kind: &str| of(kind).keys().cloned().collect::<BTreeSet<_>>();
        let held = Self {
            clusters: names("cluster.v3.Cluster"),
            listeners: names("listener.v3.Listener"),
            routes: names("route.v3.RouteConfiguration"),
            endpoints: of("endpoint.v3.ClusterLoadAssignment")
                .iter()
                .map(|(name, assignment)| (name.clone(), endpoints_count(assignment)))
                .collect(),
            unusable: Vec::new(),
        };
        ensure!(
            !held.clusters.is_empty(),
            "{target} has no cluster: {all:#}"
        );
        ensure!(
            !held.listeners.is_empty(),
            "{target} lacks listeners: {all:#}"
        );
        Ok(held)
    }

    /// What `/config_dump?include_eds` shows of what came over ADS.
    pub(crate) fn dumped(dump: &Value) -> anyhow::Result<Self> {
        let mut held = Self::default();
        for config in items(dump, "configs") {
            for cluster in items(config, "dynamic_active_clusters") {
                held.clusters.insert(text(&cluster["cluster"]["name"]));
            }
            for cluster in items(config, "dynamic_warming_clusters") {
                held.unusable
                    .push(format!("warming cluster {}", cluster["cluster"]["name"]));
            }
            for listener in items(config, "dynamic_listeners") {
                let name = text(&listener["name"]);
                for state in ["warming_state", "draining_state", "error_state"] {
                    if !listener[state].is_null() {
                        let detail = &listener[state]["details"];
                        held.unusable
                            .push(format!("{state} of listener {name}: {detail}"));
                    }
                }
                if !listener["active_state"].is_null() {
                    held.listeners.insert(name);
                }
            }
            for route in items(config, "dynamic_route_configs") {
                held.routes.insert(text(&route["route_config"]["name"]));
            }
            for endpoint in items(config, "dynamic_endpoint_configs") {
                let assignment = &endpoint["endpoint_config"];
                let name = text(&assignment["cluster_name"]);
                held.endpoints.insert(name, endpoints_count(assignment));
            }
        }
        ensure!(!dump["configs"].is_null(), "a dump without configs: {dump}");
        Ok(held)
    }

    /// That `other` holds all of this: exactly these clusters and listeners, in use;
    /// these routes; and these endpoints among those of clusters that have their own.
    pub(crate) fn ensure_held_by(&self, other: &Self) -> anyhow::Result<()> {
        ensure!(
            other.unusable.is_empty(),
            "not in use: {:?}",
            other.unusable
        );
        let differ = |what: &str, want: &BTreeSet<String>, got: &BTreeSet<String>| {
            ensure!(
                want == got,
                "{what}: missing {:?}, unexpected {:?}",
                want.difference(got).collect::<Vec<_>>(),
                got.difference(want).collect::<Vec<_>>()
            );
            Ok(())
        };
        differ("clusters", &self.clusters, &other.clusters)?;
        differ("listeners", &self.listeners, &other.listeners)?;
        differ("routes", &self.routes, &other.routes)?;
        for (name, count) in &self.endpoints {
            let got = other.endpoints.get(name);
            ensure!(
                got == Some(count),
                "{count} endpoints of {name}: Envoy has {got:?}"
            );
        }
        Ok(())
    }
}

/// Endpoints of a cluster in one dump that may be used.
pub(crate) fn healthy_endpoints(dump: &Value, cluster: &str) -> Option<usize> {
    let assignment = items(dump, "configs")
        .flat_map(|config| items(config, "dynamic_endpoint_configs"))
        .map(|entry| &entry["endpoint_config"])
        .find(|assignment| assignment["cluster_name"] == cluster)?;
    let healthy = |endpoint: &&Value| {
        matches!(
            endpoint["health_status"].as_str(),
            None | Some("UNKNOWN" | "HEALTHY")
        )
    };
    let all = items(assignment, "endpoints").flat_map(|l| items(l, "lb_endpoints"));
    Some(all.filter(healthy).count())
}

fn endpoints_count(assignment: &Value) -> usize {
    items(assignment, "endpoints")
        .map(|l| {
            items(l, "lb_endpoints")
                .chain(items(l, "lbEndpoints"))
                .count()
        })
        .sum()
}

/// The items of a list that may be absent.
fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
