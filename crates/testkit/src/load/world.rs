//! A mesh of any size: the same objects for the same [`Spec`], as an API server would give them.
//!
//! Objects are made when they are asked for, one at a time, so that a world of 100,000 pods
//! costs nobody memory but who keeps it. Edits are remembered by the [`World`], and an object
//! that is asked for afterwards has them.

mod objects;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use model::object::Input;
use model::parse::{Recognised, recognise};
use model::{Kind, Object};
use serde_json::Value;

const PODS_PER_SERVICE: usize = 10;
const SERVICES_PER_NAMESPACE: usize = 50;
const PODS_PER_NODE: usize = 100;
const PODS_PER_POLICY: usize = 100;
const BOUND_EVERY: usize = 10;
/// Of a file that is written; sources refuse larger ones.
const FILE_BYTES_MAX: usize = 8 << 20;

/// How many there are of what. [`Spec::of_pods`] has the densities of real clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Makes names, hashes and uids of two worlds differ.
    pub seed: u64,
    /// Namespaces, all in the mesh; services are spread over them in blocks.
    pub namespaces: usize,
    /// Nodes; pods go round them.
    pub nodes: usize,
    /// Services, with an `EndpointSlice` each; pods are spread over them in blocks.
    pub services: usize,
    /// Pods, all running and ready, besides those of waypoints.
    pub pods: usize,
    /// Authorization policies; they go round the namespaces.
    pub policies: usize,
    /// Waypoints, with a Service and a pod each.
    pub waypoints: usize,
    /// One service in so many is bound to a waypoint, if there is any; the bound ones are
    /// spread over the waypoints in blocks.
    pub bound_every: usize,
    /// `HTTPRoutes`; they go round the bound services.
    pub routes: usize,
    /// Objects carry what an API server adds and no mesh reads: managed fields and the rest of
    /// their spec. Without it memory and parsing of a source are not what they are in a cluster.
    pub ballast: bool,
}

impl Spec {
    /// With this many pods: 10 pods to a service, 50 services to a namespace, 100 pods to a
    /// node, a policy for 100 pods, a waypoint in every namespace for one service in 10, no
    /// routes, and with ballast.
    pub fn of_pods(pods: usize) -> Self {
        let services = pods.div_ceil(PODS_PER_SERVICE).max(1);
        let namespaces = services.div_ceil(SERVICES_PER_NAMESPACE);
        Self {
            seed: 1,
            namespaces,
            nodes: pods.div_ceil(PODS_PER_NODE).max(1),
            services,
            pods,
            policies: pods / PODS_PER_POLICY,
            waypoints: namespaces,
            bound_every: BOUND_EVERY,
            routes: 0,
            ballast: true,
        }
    }

    /// Without ballast: what a source leaves of it is the same.
    #[must_use]
    pub fn bare(self) -> Self {
        Self {
            ballast: false,
            ..self
        }
    }

    /// Services that are bound to a waypoint.
    pub fn bound(&self) -> usize {
        match self.waypoints {
            0 => 0,
            _ => self.services.div_ceil(self.bound_every.max(1)),
        }
    }

    /// Objects of all kinds.
    pub fn objects(&self) -> usize {
        KINDS.iter().map(|kind| self.count(*kind)).sum()
    }

    /// Objects of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces + 1,
            Kind::Node => self.nodes,
            Kind::Service => self.services + self.waypoints,
            Kind::EndpointSlice => self.services,
            Kind::Pod => self.pods + self.waypoints,
            Kind::AuthorizationPolicy => self.policies,
            Kind::Gateway => self.waypoints,
            Kind::HttpRoute => self.routes,
            _ => 0,
        }
    }
}

/// Kinds that a world has, what others refer to first.
pub const KINDS: [Kind; 8] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Gateway,
    Kind::AuthorizationPolicy,
    Kind::HttpRoute,
    Kind::Pod,
];

/// The objects of a [`Spec`], and what was edited since.
#[derive(Clone, Debug)]
pub struct World {
    spec: Spec,
    unready: BTreeSet<usize>,
    relabelled: BTreeSet<usize>,
    routes: BTreeMap<usize, u64>,
    edits: u64,
}

impl World {
    /// A world as it was made.
    pub fn generate(spec: Spec) -> Self {
        Self {
            spec,
            unready: BTreeSet::new(),
            relabelled: BTreeSet::new(),
            routes: BTreeMap::new(),
            edits: 0,
        }
    }

    /// How many there are of what.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The object of a kind at an index below [`Spec::count`].
    pub fn object(&self, kind: Kind, at: usize) -> Value {
        let spec = &self.spec;
        match kind {
            Kind::Namespace => self.namespace(at),
            Kind::Node => self.node(at),
            Kind::Service if at < spec.services => self.service(at),
            Kind::Service => self.waypoint_service(at - spec.services),
            Kind::EndpointSlice => self.slice(at),
            Kind::Pod if at < spec.pods => self.pod(at),
            Kind::Pod => self.waypoint_pod(at - spec.pods),
            Kind::AuthorizationPolicy => self.policy(at),
            Kind::Gateway => self.gateway(at),
            Kind::HttpRoute => self.route(at),
            other => panic!("a world has no {other:?}"),
        }
    }

    /// All objects of a kind, made one at a time.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = Value> + '_ {
        (0..self.spec.count(kind)).map(move |at| self.object(kind, at))
    }

    /// The complete lists, as the first ones of a source: every kind, most of them empty.
    pub fn inputs(&self) -> Vec<Input> {
        let list = |kind| self.objects(kind).map(|value| object(&value)).collect();
        let lists = Kind::ALL.into_iter();
        lists.map(|kind| Input::Resync(kind, list(kind))).collect()
    }

    /// A pod turns unready, or ready again: the pod and the slice that says so too.
    pub fn flip_readiness(&mut self, pod: usize) -> Vec<Value> {
        self.edits += 1;
        if !self.unready.remove(&pod) {
            self.unready.insert(pod);
        }
        let service = self.service_of_pod(pod);
        vec![self.pod(pod), self.slice(service)]
    }

    /// The services of a namespace are bound to its waypoint by the namespace's label, or no
    /// longer: a change of all of them and of their pods. Without waypoints nothing follows.
    pub fn relabel_namespace(&mut self, namespace: usize) -> Vec<Value> {
        self.edits += 1;
        if !self.relabelled.remove(&namespace) {
            self.relabelled.insert(namespace);
        }
        vec![self.namespace(namespace)]
    }

    /// Another header value in an `HTTPRoute`, which waypoints answer with.
    pub fn edit_route(&mut self, route: usize) -> Vec<Value> {
        self.edits += 1;
        *self.routes.entry(route).or_default() += 1;
        vec![self.route(route)]
    }

    /// How often a route was edited, which its answers say in the header `x-revision`.
    pub fn route_revision(&self, route: usize) -> u64 {
        self.routes.get(&route).copied().unwrap_or_default()
    }

    /// Every kind as lists in files of their own, `pod-0.json` and so on. Returns the bytes.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_dir(&self, dir: &Path) -> anyhow::Result<u64> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let mut written = 0;
        for kind in KINDS {
            let mut files = 0;
            let mut file: Option<(BufWriter<File>, usize)> = None;
            for value in self.objects(kind) {
                let text = value.to_string();
                if let Some((full, bytes)) = &mut file
                    && *bytes + text.len() > FILE_BYTES_MAX
                {
                    written += end(full)?;
                    file = None;
                }
                let (out, bytes) = if let Some(open) = &mut file {
                    open
                } else {
                    let name = format!("{}-{files}.json", format!("{kind:?}").to_lowercase());
                    files += 1;
                    let mut out = BufWriter::new(File::create(dir.join(name))?);
                    out.write_all(br#"{"apiVersion":"v1","kind":"List","items":["#)?;
                    file.insert((out, 0))
                };
                if *bytes > 0 {
                    out.write_all(b",\n")?;
                }
                out.write_all(text.as_bytes())?;
                *bytes += text.len();
            }
            if let Some((mut full, _)) = file {
                written += end(&mut full)?;
            }
        }
        Ok(written)
    }

    // --- what is where ---

    /// The namespace that a service is in.
    pub fn namespace_of_service(&self, service: usize) -> usize {
        block(service, self.spec.services, self.spec.namespaces)
    }

    /// The service whose pod it is.
    pub fn service_of_pod(&self, pod: usize) -> usize {
        block(pod, self.spec.pods, self.spec.services)
    }

    /// The namespace that a pod is in.
    pub fn namespace_of_pod(&self, pod: usize) -> usize {
        self.namespace_of_service(self.service_of_pod(pod))
    }

    /// The pods of a service.
    pub fn pods_of_service(&self, service: usize) -> Range<usize> {
        members(service, self.spec.pods, self.spec.services)
    }

    /// The services that are bound to a waypoint.
    pub fn services_of_waypoint(&self, waypoint: usize) -> impl Iterator<Item = usize> + '_ {
        let bound = members(waypoint, self.spec.bound(), self.spec.waypoints);
        bound.map(|at| at * self.spec.bound_every.max(1))
    }

    /// The waypoint that a service is bound to.
    pub fn waypoint_of_service(&self, service: usize) -> Option<usize> {
        let every = self.spec.bound_every.max(1);
        (self.spec.waypoints > 0 && service.is_multiple_of(every))
            .then(|| block(service / every, self.spec.bound(), self.spec.waypoints))
    }

    /// The namespace that a waypoint is in: that of its first service.
    pub fn namespace_of_waypoint(&self, waypoint: usize) -> usize {
        let first = self.services_of_waypoint(waypoint).next();
        match first {
            Some(service) => self.namespace_of_service(service),
            None => waypoint % self.spec.namespaces,
        }
    }

    /// The service that a route belongs to.
    pub fn service_of_route(&self, route: usize) -> usize {
        let bound = self.spec.bound().max(1);
        route % bound * self.spec.bound_every.max(1)
    }

    /// Namespace and name of a waypoint.
    pub fn waypoint_name(&self, waypoint: usize) -> (String, String) {
        let ns = self.namespace_of_waypoint(waypoint);
        (self.namespace_name(ns), format!("waypoint-{waypoint}"))
    }

    /// The name of a namespace.
    pub fn namespace_name(&self, namespace: usize) -> String {
        match namespace {
            at if at == self.spec.namespaces => "istio-system".to_owned(),
            at => format!("team-{at}"),
        }
    }

    /// The name of a node.
    pub fn node_name(&self, node: usize) -> String {
        format!("node-{node}")
    }

    /// A number that looks random and depends on seed, purpose and index alone.
    fn mixed(&self, purpose: u64, at: usize) -> u64 {
        // splitmix64.
        let mut z = self
            .spec
            .seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(purpose << 48)
            .wrapping_add(at as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Reads an object as a source does.
///
/// # Panics
/// When it is none.
pub fn object(value: &Value) -> Object {
    match recognise(value, "load") {
        Recognised::Object(object) => object,
        _ => panic!("not an object: {value}"),
    }
}

fn end(file: &mut BufWriter<File>) -> anyhow::Result<u64> {
    file.write_all(b"]}\n")?;
    file.flush()?;
    Ok(file.get_ref().metadata()?.len())
}

/// Which of `groups` equal blocks of `count` members has the member `at`.
fn block(at: usize, count: usize, groups: usize) -> usize {
    at * groups / count.max(1)
}

/// The members of a block.
fn members(group: usize, count: usize, groups: usize) -> Range<usize> {
    let first = |group: usize| (group * count).div_ceil(groups.max(1));
    first(group)..first(group + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_in_the_block_that_has_it() {
        for (count, groups) in [(10, 3), (3, 10), (1000, 7), (5, 5), (1, 1)] {
            for at in 0..count {
                let group = block(at, count, groups);
                assert!(
                    members(group, count, groups).contains(&at),
                    "{at} {count} {groups}"
                );
            }
        }
    }

    #[test]
    fn a_world_is_the_same_again_and_every_object_is_read_without_complaint() {
        let spec = Spec {
            routes: 30,
            ..Spec::of_pods(1000)
        };
        let (one, other) = (World::generate(spec.clone()), World::generate(spec));
        for kind in KINDS {
            for (a, b) in one.objects(kind).zip(other.objects(kind)) {
                assert_eq!(a, b);
                let read = object(&a);
                assert_eq!(read.kind(), kind);
                assert_eq!(read.invalid(), None, "{a}");
                assert!(read.notes().is_empty(), "{a}: {:?}", read.notes());
            }
        }
    }

    #[test]
    fn what_is_flipped_twice_is_as_it_was() {
        let mut world = World::generate(Spec::of_pods(200));
        let before = world.pod(7);
        let unready = world.flip_readiness(7);
        assert_ne!(unready[0], before);
        assert_eq!(unready[1], world.slice(world.service_of_pod(7)));
        assert_eq!(world.flip_readiness(7)[0], before);
    }
}
