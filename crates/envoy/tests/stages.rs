//! Claims about what the stages derive, on small worlds.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "stages/clusters.rs"]
mod clusters;
#[path = "stages/policies.rs"]
mod policies;
#[path = "stages/routes.rs"]
mod routes;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use ambientd_envoy as envoy;
use envoy::ir::{
    ClassResource, Discovery, Health, Inspected, ListenerIr, MainIr, PortTarget, RangeTarget,
    WaypointResource,
};
use model::derived::{AppProtocol, BoundWaypoint, Locality};
use model::input::{
    Action, AuthorizationPolicy, AuthzOperation, AuthzRule, AuthzSource, HttpMatch, HttpRoute,
    PathMatch, ReferenceGrant, Resolution, Values,
};
use model::{Kind, ObjectKey, ObjectRef, ProxyClass, Str, WorkloadRow};
use support::*;

const HOST: &str = "web.app.svc.cluster.local";
const CHAIN: &str = "inbound-vip|80|http|web.app.svc.cluster.local";

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("app", name)
}

/// `app/web` and `app/v2` behind the waypoint, `other/api` elsewhere.
fn world() -> World {
    let mut world = World::new();
    let http = || vec![port(80, AppProtocol::Http)];
    world.service(service("app", "web", "10.96.0.1", http()));
    world.service(service("app", "v2", "10.96.0.2", http()));
    world.service(unbound("other", "api", "10.96.0.9", http()));
    world
}

fn main_internal(world: &World) -> MainIr {
    let class = world.proxies[0].clone();
    let listeners = world.derive().listeners;
    match &listeners[&ClassResource::new(class, "main_internal")] {
        ListenerIr::Main(main) => (**main).clone(),
        other => panic!("{other:?}"),
    }
}
