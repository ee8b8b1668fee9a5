//! Many small worlds: the property of the large ones, without proxies, tuned for count.
//!
//! A case is a function of its seed alone. `AMBIENTD_REBUILD_CASES` says how many are tried,
//! `AMBIENTD_REBUILD_SEED` where the search begins: the seed that a failure names, with one
//! case, replays it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ambientd_pipeline::Pipeline;
use model::Kind;
use snapshot::{ResourceMap, ResourceType, Snapshot};
use std::sync::Arc;

use crate::Served;
use crate::objects::{self, Choices};
use crate::world::{Edit, World};

/// As many as take a minute or two on two cores, with the pure crates optimized as the root
/// manifest says.
const CASES: u64 = 20_000;

/// What is written first, and how much of it at most.
const EARLY: [(Kind, u64); 21] = [
    (Kind::Namespace, 3),
    (Kind::MeshConfig, 1),
    (Kind::Node, 1),
    (Kind::GatewayClass, 1),
    (Kind::Gateway, 3),
    (Kind::Service, 3),
    (Kind::Pod, 3),
    (Kind::ServiceEntry, 2),
    (Kind::WorkloadEntry, 2),
    (Kind::EndpointSlice, 1),
    (Kind::AuthorizationPolicy, 2),
    (Kind::PeerAuthentication, 2),
    (Kind::HttpRoute, 1),
    (Kind::GrpcRoute, 1),
    (Kind::TcpRoute, 1),
    (Kind::TlsRoute, 1),
    (Kind::VirtualService, 1),
    (Kind::DestinationRule, 1),
    (Kind::RequestAuthentication, 1),
    (Kind::MutatingWebhookConfiguration, 1),
    (Kind::ValidatingWebhookConfiguration, 1),
];

/// What is edited then, as often as it stands here.
const EDITED: [Kind; 25] = [
    Kind::Pod,
    Kind::Pod,
    Kind::Pod,
    Kind::Service,
    Kind::Service,
    Kind::Service,
    Kind::ServiceEntry,
    Kind::ServiceEntry,
    Kind::ServiceEntry,
    Kind::Gateway,
    Kind::Gateway,
    Kind::Namespace,
    Kind::Namespace,
    Kind::WorkloadEntry,
    Kind::EndpointSlice,
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::Node,
    Kind::GatewayClass,
    Kind::MeshConfig,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::RequestAuthentication,
    Kind::MutatingWebhookConfiguration,
    Kind::ValidatingWebhookConfiguration,
];

/// Random numbers that a seed determines.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..=self.below(7))
            .flat_map(|_| self.next().to_le_bytes())
            .collect()
    }

    fn write(&mut self, kind: Kind) -> Edit {
        let slot = match kind {
            // Mostly waypoints that others name.
            Kind::Gateway if self.below(4) > 0 => 6 + self.below(2) as u8,
            _ => self.next() as u8,
        };
        // Half of the Gateways are as they should be, for else little comes of the rest.
        let bytes = match kind {
            Kind::Gateway if self.below(2) == 0 => Vec::new(),
            _ => self.bytes(),
        };
        Edit::Write(kind, slot, bytes)
    }
}

/// One world and what happens to it.
#[derive(Clone, Debug)]
struct Case {
    defaults: Vec<u8>,
    /// Told one by one before the first complete lists, or in these lists.
    early: Vec<Edit>,
    one_by_one: bool,
    batches: Vec<Vec<Edit>>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let defaults = random.bytes();
        let mut early = Vec::new();
        for (kind, max) in EARLY {
            for _ in 0..random.below(max + 1) {
                early.push(random.write(kind));
            }
        }
        for at in (1..early.len()).rev() {
            early.swap(at, random.below(at as u64 + 1) as usize);
        }
        let one_by_one = random.below(2) == 0;
        let mut written = early.clone();
        let batches = (0..=random.below(4))
            .map(|_| {
                let mut batch = Vec::new();
                for _ in 0..=random.below(3) {
                    edits(&mut random, &mut written, &mut batch);
                }
                batch
            })
            .collect();
        Self {
            defaults,
            early,
            one_by_one,
            batches,
        }
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline::new(objects::defaults(&mut Choices::new(&self.defaults)))
    }

    /// The last snapshot, and the comparisons that it took.
    fn play(&self) -> Result<(Arc<Snapshot>, u64), String> {
        let mut world = World::default();
        let mut pipeline = self.pipeline();
        for edit in &self.early {
            let input = world.edit(edit);
            if self.one_by_one && pipeline.apply(vec![input]).is_some() {
                return Err("published before anything was listed".to_owned());
            }
        }
        let mut last = pipeline
            .apply(world.complete())
            .ok_or("nothing published with every kind listed")?;
        let rebuilt = |world: &World| self.pipeline().apply(world.complete()).unwrap();
        compare(&last, &rebuilt(&world))
            .map_err(|text| format!("{text}\nafter the first lists"))?;
        for batch in &self.batches {
            let inputs: Vec<_> = batch.iter().map(|edit| world.edit(edit)).collect();
            let told = || format!("after {batch:?}");
            let published = pipeline.apply(inputs);
            let want = rebuilt(&world);
            match published {
                Some(got) => {
                    if equal(&last, &got) {
                        return Err(format!("published although nothing differs\n{}", told()));
                    }
                    last = got;
                    compare(&last, &want).map_err(|text| format!("{text}\n{}", told()))?;
                }
                None => compare(&last, &want)
                    .map_err(|text| format!("not published: {text}\n{}", told()))?,
            }
        }
        Ok((last, self.batches.len() as u64 + 1))
    }

    /// As `play`, a panic included.
    fn failure(&self) -> Option<String> {
        match catch_unwind(AssertUnwindSafe(|| self.play())) {
            Ok(Ok(_)) => None,
            Ok(Err(text)) => Some(text),
            Err(panic) => Some(match panic.downcast_ref::<String>() {
                Some(text) => format!("panic: {text}"),
                None => "panic".to_owned(),
            }),
        }
    }

    /// A smaller case that still fails.
    fn shrunk(mut self) -> Self {
        let mut left = 3_000;
        loop {
            let smaller = self.candidates().into_iter().find(|candidate| {
                left -= 1;
                left > 0 && candidate.failure().is_some()
            });
            match smaller {
                Some(smaller) => self = smaller,
                None => return self,
            }
        }
    }

    fn candidates(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Self)| {
            let mut candidate = self.clone();
            change(&mut candidate);
            all.push(candidate);
        };
        for at in 0..self.batches.len() {
            with(&|case| drop(case.batches.remove(at)));
        }
        for at in 0..self.early.len() {
            with(&|case| drop(case.early.remove(at)));
        }
        for (at, batch) in self.batches.iter().enumerate() {
            for edit in 0..batch.len() {
                with(&|case| drop(case.batches[at].remove(edit)));
            }
        }
        if self.one_by_one {
            with(&|case| case.one_by_one = false);
        }
        if !self.defaults.is_empty() {
            with(&|case| case.defaults.clear());
        }
        let sizes = |edit: &Edit| match edit {
            Edit::Write(.., bytes) => bytes.clone(),
            _ => Vec::new(),
        };
        let places = |case: &Self| -> Vec<Vec<u8>> {
            let all = case.early.iter().chain(case.batches.iter().flatten());
            all.map(sizes).collect()
        };
        for (at, bytes) in places(self).into_iter().enumerate() {
            let mut put = |new: Vec<u8>| {
                with(&|case| {
                    let mut all = case
                        .early
                        .iter_mut()
                        .chain(case.batches.iter_mut().flatten());
                    if let Some(Edit::Write(.., bytes)) = all.nth(at) {
                        bytes.clone_from(&new);
                    }
                });
            };
            if bytes.last().is_some() {
                put(bytes[..bytes.len() / 2].to_vec());
                put(bytes[..bytes.len() - 1].to_vec());
            }
            for zero in (0..bytes.len()).filter(|at| bytes[*at] != 0) {
                let mut plain = bytes.clone();
                plain[zero] = 0;
                put(plain);
            }
        }
        all
    }
}

/// One thing that happens: mostly one edit.
fn edits(random: &mut Random, written: &mut Vec<Edit>, batch: &mut Vec<Edit>) {
    let kind = EDITED[random.below(EDITED.len() as u64) as usize];
    match random.below(12) {
        0..=6 => {
            let edit = random.write(kind);
            written.push(edit.clone());
            batch.push(edit);
        }
        7 | 8 => batch.push(Edit::Delete(kind, random.next() as u8)),
        // Deleted and created again as it was, at once or later.
        9 | 10 if !written.is_empty() => {
            let edit = written[random.below(written.len() as u64) as usize].clone();
            if let Edit::Write(kind, slot, _) = &edit {
                batch.push(Edit::Delete(*kind, *slot));
            }
            if random.below(3) > 0 {
                batch.push(edit);
            }
        }
        _ => batch.push(Edit::Resync(kind, random.next() as u16)),
    }
}

fn equal(a: &Snapshot, b: &Snapshot) -> bool {
    let same = |ty| {
        let of = |snapshot: &Snapshot| {
            let map = snapshot.resources(None, ty);
            map.map(|map| (map.len(), map.bytes_total(), map.content_id()))
        };
        of(a) == of(b)
    };
    same(ResourceType::Address)
        && same(ResourceType::Workload)
        && same(ResourceType::Authorization)
        && a.address_index == b.address_index
        && a.findings == b.findings
        && a.statuses == b.statuses
        && a.deployments == b.deployments
        && a.foreign == b.foreign
        && a.waypoints == b.waypoints
        && a.mesh == b.mesh
        && a.pods == b.pods
        && a.secrets == b.secrets
        && a.jwks_wanted == b.jwks_wanted
        && a.proxies.is_empty()
        && b.proxies.is_empty()
}

fn compare(got: &Snapshot, want: &Snapshot) -> Result<(), String> {
    if equal(got, want) {
        return Ok(());
    }
    let difference = Served::of(got).difference(&Served::of(want));
    Err(difference.unwrap_or_else(|| "totals of equal resources differ".to_owned()))
}

#[allow(clippy::disallowed_methods)] // The one argument that a test can be given.
fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => default,
    }
}

#[test]
fn many_small_worlds_equal_their_rebuild_after_every_batch() {
    let first = number("AMBIENTD_REBUILD_SEED", 1);
    let cases = number("AMBIENTD_REBUILD_CASES", CASES);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<u64>> = Mutex::new(None);
    let compared = Mutex::new(0_u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (stop, failed, compared) = (&stop, &failed, &compared);
            scope.spawn(move || {
                let mut count = 0;
                for at in (thread..cases).step_by(threads as usize) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let seed = first.wrapping_add(at);
                    let played = catch_unwind(|| Case::new(seed).play());
                    let Ok(Ok((_, comparisons))) = played else {
                        stop.store(true, Ordering::Relaxed);
                        *failed.lock().unwrap() = Some(seed);
                        break;
                    };
                    count += comparisons;
                }
                *compared.lock().unwrap() += count;
            });
        }
    });
    let seed = *failed.lock().unwrap();
    if let Some(seed) = seed {
        let text = Case::new(seed).failure().unwrap_or_default();
        let shrunk = Case::new(seed).shrunk();
        panic!(
            "{text}\n\nAMBIENTD_REBUILD_SEED={seed} AMBIENTD_REBUILD_CASES=1 replays it\n\nshrunk: {shrunk:#?}\n{}",
            shrunk.describe()
        );
    }
    let compared = compared.lock().unwrap();
    println!("{cases} cases from seed {first}, {compared} comparisons");
}

impl Case {
    /// The objects in words, and how it fails.
    fn describe(&self) -> String {
        let all = self.early.iter().chain(self.batches.iter().flatten());
        let mut lines: Vec<String> = all.map(Edit::describe).collect();
        lines.extend(self.failure());
        lines.join("\n")
    }
}

/// Cases would prove little if nothing happened in them.
#[test]
fn small_worlds_reach_what_is_served_and_said() {
    const PARTS: [&str; 16] = [
        "\"weightedWaypoints\"",
        "\"networkGateway\"",
        "\"applicationTunnel\"",
        "\"visibility\":\"NAMESPACE\"",
        "\"ingressUseWaypoint\"",
        "\"authorizationPolicies\"",
        "\"dryRun\"",
        "istio_allow_waypoint",
        "istio_converted_static_strict",
        "converted_peer_authentication",
        "\"locality\"",
        "\"loadBalancing\"",
        "HOST_NETWORK",
        "\"canonical\"",
        "istio.io/WaypointBound",
        "istio.io/VisibilityApplied",
    ];
    let mut codes = std::collections::BTreeSet::new();
    let mut conditions = std::collections::BTreeSet::new();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 1..=600 {
        let (snapshot, _) = Case::new(seed).play().unwrap();
        codes.extend(snapshot.findings.iter().map(|finding| finding.code));
        let mut text = String::new();
        for ty in [ResourceType::Address, ResourceType::Authorization] {
            let resources = snapshot.resources(None, ty);
            for resource in resources.into_iter().flat_map(ResourceMap::iter) {
                text += &proto::json::to_json(ty.type_url(), &resource.payload())
                    .unwrap()
                    .to_string();
            }
        }
        for row in snapshot.statuses.values() {
            for condition in &row.conditions {
                text += &condition.ty;
                conditions.insert(format!("{} {}", condition.ty, condition.reason));
            }
            *counts.entry("allocated").or_default() += usize::from(row.addresses.is_some());
        }
        for part in PARTS {
            *counts.entry(part).or_default() += text.matches(part).count();
        }
    }
    let rare: Vec<_> = PARTS
        .iter()
        .chain(&["allocated"])
        .filter(|part| counts.get(*part).copied().unwrap_or_default() < 3)
        .collect();
    assert!(rare.is_empty(), "hardly ever: {rare:?} of {counts:#?}");
    assert!(conditions.len() >= 15, "few conditions: {conditions:#?}");
    assert!(codes.len() >= 40, "few codes: {codes:#?}");
}
