//! Incremental equals rebuild: after every batch of random edits the pipeline serves the
//! bytes, and reports the findings, that one made from scratch out of the same objects does.
//!
//! `PROPTEST_CASES` makes the search longer, `PROPTEST_RNG_SEED` takes it elsewhere.
//! A case that was found becomes a test of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "rebuild/many.rs"]
mod many;
#[path = "rebuild/objects.rs"]
mod objects;
#[path = "rebuild/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambientd_pipeline::Pipeline;
use model::object::Input;
use model::{Finding, Str};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use snapshot::{ResourceMap, ResourceType, SecretStore, Snapshot};

use objects::Choices;
use world::{Edit, Run, World, runs};

/// Name → version, payload, aliases.
type Resources = BTreeMap<String, (u64, Vec<u8>, Vec<Str>)>;

/// Everything served and reported.
#[derive(PartialEq)]
struct Served {
    resources: Resources,
    classes: BTreeSet<String>,
    findings: Arc<[Finding]>,
    /// Status, waypoints and mesh settings.
    unserved: BTreeMap<String, String>,
    /// Prints nothing of what it holds.
    secrets: SecretStore,
}

impl Served {
    fn of(snapshot: &Snapshot) -> Self {
        let mut resources = Resources::new();
        let mut add = |place: &str, map: &ResourceMap| {
            for resource in map.iter() {
                let name = format!("{place} {}", resource.name());
                let content = (
                    resource.version(),
                    resource.payload().to_vec(),
                    resource.aliases().to_vec(),
                );
                assert!(resources.insert(name, content).is_none());
            }
        };
        add("wds", &snapshot.addresses);
        add("authz", &snapshot.authorizations);
        for (class, proxy) in &snapshot.proxies {
            add(&format!("cds {class:?}"), &proxy.clusters);
            add(&format!("eds {class:?}"), &proxy.endpoints);
            add(&format!("lds {class:?}"), &proxy.listeners);
            add(&format!("rds {class:?}"), &proxy.routes);
        }
        let classes = snapshot
            .proxies
            .keys()
            .map(|class| format!("{class:?}"))
            .collect();
        let mut unserved = BTreeMap::from([("mesh".to_owned(), format!("{:?}", snapshot.mesh))]);
        // A part that is added must be compared too, here and in `many::equal`.
        let Snapshot {
            generation: _,
            addresses: _,
            address_index: _,
            workloads: _,
            authorizations: _,
            proxies: _,
            findings: _,
            statuses: _,
            deployments,
            foreign,
            waypoints: _,
            mesh: _,
            pods,
            secrets,
            jwks_wanted,
        } = snapshot;
        unserved.insert("key sets".to_owned(), format!("{jwks_wanted:?}"));
        unserved.insert("foreign".to_owned(), format!("{foreign:?}"));
        unserved.insert("pods".to_owned(), format!("{pods:?}"));
        let index = format!("{:?}", snapshot.address_index);
        unserved.insert("address index".to_owned(), index);
        for (key, row) in deployments {
            unserved.insert(format!("deployment {key}"), format!("{row:?}"));
        }
        for (key, row) in &snapshot.statuses {
            unserved.insert(format!("status {key:?}"), format!("{row:?}"));
        }
        for (key, row) in &snapshot.waypoints {
            unserved.insert(format!("waypoint {key}"), format!("{row:?}"));
        }
        Self {
            resources,
            classes,
            findings: Arc::clone(&snapshot.findings),
            unserved,
            secrets: secrets.clone(),
        }
    }

    /// The first difference, for people.
    fn difference(&self, want: &Self) -> Option<String> {
        if self == want {
            return None;
        }
        for name in want.resources.keys().chain(self.resources.keys()) {
            let (got, want) = (self.resources.get(name), want.resources.get(name));
            if got != want {
                return Some(format!(
                    "{name}\n   got {}\n  want {}",
                    text(got),
                    text(want)
                ));
            }
        }
        if self.classes != want.classes {
            return Some(format!(
                "classes {:?}, want {:?}",
                self.classes, want.classes
            ));
        }
        for name in want.unserved.keys().chain(self.unserved.keys()) {
            let (got, want) = (self.unserved.get(name), want.unserved.get(name));
            if got != want {
                return Some(format!("{name}\n   got {got:?}\n  want {want:?}"));
            }
        }
        if self.secrets != want.secrets {
            return Some(format!(
                "secrets {:?}, want {:?}",
                self.secrets, want.secrets
            ));
        }
        let lacks = |some: &Self, others: &Self| -> Vec<String> {
            let missing = some
                .findings
                .iter()
                .filter(|one| !others.findings.contains(one));
            missing.map(|one| format!("{one:?}")).collect()
        };
        Some(format!(
            "findings missing {:#?}, too many {:#?}",
            lacks(want, self),
            lacks(self, want)
        ))
    }
}

fn text(content: Option<&(u64, Vec<u8>, Vec<Str>)>) -> String {
    match content {
        None => "nothing".to_owned(),
        Some((version, bytes, aliases)) => {
            let readable: String = bytes
                .iter()
                .flat_map(|byte| byte.escape_ascii())
                .map(char::from)
                .collect();
            format!("{version:x} {aliases:?} {readable}")
        }
    }
}

/// A pipeline, the world that it was told, and what it published last.
struct Player {
    world: World,
    pipeline: Pipeline,
    last: Option<(u64, Served)>,
    defaults: Vec<u8>,
}

impl Player {
    fn new(run: &Run) -> Self {
        Self {
            world: World::default(),
            pipeline: new_pipeline(&run.defaults),
            last: None,
            defaults: run.defaults.clone(),
        }
    }

    /// Nothing may be published before the last list.
    fn get_ready(&mut self, run: &Run) -> Result<(), TestCaseError> {
        let (last, lists) = run.lists.split_last().unwrap();
        let mut early = run.early.chunks(run.early.len() / lists.len() + 1);
        for kind in lists {
            let mut batch = self.told(early.next().unwrap_or_default());
            // A relist of an early edit may stand for a first list, never for the last one.
            batch.retain(|input| !matches!(input, Input::Resync(kind, _) if kind == last));
            batch.push(self.world.list(*kind));
            let published = self.pipeline.apply(batch).is_some();
            prop_assert!(!published, "published before {last} was listed");
            prop_assert!(self.pipeline.waiting().any(|kind| kind == *last));
        }
        self.step(vec![self.world.list(*last)])
    }

    fn told(&mut self, edits: &[Edit]) -> Vec<Input> {
        edits.iter().map(|edit| self.world.edit(edit)).collect()
    }

    /// Applies a batch and compares with a pipeline that sees the world for the first time.
    fn step(&mut self, batch: Vec<Input>) -> Result<(), TestCaseError> {
        let described = format!("{batch:?}");
        let published = self.pipeline.apply(batch);
        let scratch = new_pipeline(&self.defaults).apply(self.world.complete());
        let want = Served::of(&scratch.expect("every kind is listed"));
        let differs = self.last.as_ref().is_none_or(|(_, last)| *last != want);
        if let Some(snapshot) = &published {
            let got = Served::of(snapshot);
            if let Some(difference) = got.difference(&want) {
                return Err(TestCaseError::fail(format!(
                    "{difference}\nafter {described}"
                )));
            }
            let before = self.last.as_ref().map_or(0, |(generation, _)| *generation);
            prop_assert!(snapshot.generation > before, "generation {before} again");
            prop_assert!(
                differs,
                "published although nothing differs\nafter {}",
                described
            );
            self.last = Some((snapshot.generation, got));
        } else if let Some((_, last)) = &self.last
            && let Some(difference) = last.difference(&want)
        {
            return Err(TestCaseError::fail(format!(
                "not published: {difference}\nafter {described}"
            )));
        }
        prop_assert!(
            self.last.is_some(),
            "nothing published with every kind listed"
        );
        Ok(())
    }

    fn play(&mut self, run: &Run) -> Result<(), TestCaseError> {
        self.get_ready(run)?;
        for edits in &run.batches {
            let batch = self.told(edits);
            self.step(batch)?;
        }
        Ok(())
    }
}

fn new_pipeline(defaults: &[u8]) -> Pipeline {
    Pipeline::new(objects::defaults(&mut Choices::new(defaults)))
}

/// The same search every time, unless `PROPTEST_RNG_SEED` asks for another one.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20),
        asked @ RngSeed::Fixed(_) => asked,
    };
    ProptestConfig {
        failure_persistence: None,
        rng_seed,
        max_shrink_iters: 20_000,
        ..config
    }
}

#[test]
fn incremental_equals_rebuild_after_every_batch() {
    TestRunner::new(config())
        .run(&runs(), |run| Player::new(&run).play(&run))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// The worlds above would prove little if nothing happened in them.
#[test]
fn random_worlds_reach_most_of_what_is_served_and_reported() {
    const PARTS: [&str; 11] = [
        "\"weightedClusters\"",
        "\"directResponse\"",
        "filters.http.rbac",
        "filters.network.rbac",
        "tunnelProtocol",
        "\"waypoint\"",
        "inbound-vip|80|http|",
        "inbound-vip|80|tcp|",
        "inbound-vip|80|http/v1|",
        "\"outlierDetection\"",
        "filters.http.fault.v3.HTTPFault",
    ];
    let mut runner = TestRunner::new(config());
    let mut codes: BTreeSet<&'static str> = BTreeSet::new();
    let mut reached = BTreeMap::<String, usize>::new();
    for _ in 0..80 {
        let run = runs().new_tree(&mut runner).unwrap().current();
        let mut player = Player::new(&run);
        player.told(&run.early);
        let snapshot = player.pipeline.apply(player.world.complete()).unwrap();
        codes.extend(snapshot.findings.iter().map(|finding| finding.code));
        let mut json = String::new();
        for class in std::iter::once(None).chain(snapshot.proxies.keys().map(Some)) {
            for ty in ResourceType::ALL {
                let resources = snapshot.resources(class, ty);
                for resource in resources.into_iter().flat_map(ResourceMap::iter) {
                    json += &proto::json::to_json(ty.type_url(), &resource.payload())
                        .unwrap()
                        .to_string();
                    *reached.entry(ty.short().to_owned()).or_default() += 1;
                }
            }
        }
        for part in PARTS {
            *reached.entry(part.to_owned()).or_default() += json.matches(part).count();
        }
    }
    // Types that this version serves, and the parts above.
    let want = ["wds", "wads", "cds", "eds", "lds", "rds"]
        .into_iter()
        .chain(PARTS);
    let missing: Vec<_> = want
        .filter(|what| reached.get(*what).copied().unwrap_or_default() < 5)
        .collect();
    assert!(
        missing.is_empty(),
        "hardly ever served: {missing:?} of {reached:#?}"
    );
    assert!(codes.len() >= 30, "few codes: {codes:#?}");
}
