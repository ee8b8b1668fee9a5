//! Scenarios: a world, edits, and what clients must then hold. The form of the folders is
//! described in `tests/scenarios/README.md`.

mod client;
mod flags;
mod load;
pub mod matcher;
mod status;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use model::object::Input;
use model::{ObjectKey, ProxyClass};
use pipeline::Pipeline;
use serde_json::Value;
use snapshot::{ResourceMap, ResourceType, Snapshot};

use client::{Pushes, ScriptedClient};
pub use load::{Expectation, Scenario};
use world::World;

/// Seeds of the shuffled runs.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Who a scenario's client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRole {
    /// A node proxy.
    Ztunnel,
    /// A waypoint of this Gateway.
    Waypoint(ObjectKey),
    /// A waypoint that says more of itself.
    Classed(Box<ProxyClass>),
}

impl ClientRole {
    /// The class of an Envoy client.
    pub fn class(&self) -> Option<ProxyClass> {
        match self {
            Self::Ztunnel => None,
            Self::Waypoint(key) => Some(ProxyClass::waypoint(key.clone())),
            Self::Classed(class) => Some(ProxyClass::clone(class)),
        }
    }
}

/// Runs one scenario folder: its expectations, and that neither order nor batching shows.
///
/// # Errors
/// Everything that is not as expected, in one message.
pub fn run(dir: &Path) -> Result<()> {
    let scenario = Scenario::load(dir)?;
    let mut failures = Vec::new();
    let (last, pushes) = play(&scenario)?;
    check_expectations(&scenario, &last, &pushes, &mut failures)?;
    check_variants(&scenario, &last, &mut failures)?;
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("\n"))
    }
}

/// Keys that nobody can sign with, as the installation has them; always the same, so that runs
/// can be compared.
const NOBODY_JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fn new_pipeline(scenario: &Scenario) -> Pipeline {
    Pipeline::new(pipeline::MeshDefaults {
        nobody_jwks: NOBODY_JWKS.into(),
        ..scenario.defaults.clone()
    })
}

fn interests(scenario: &Scenario) -> Vec<Input> {
    let classes = scenario.clients.values().filter_map(ClientRole::class);
    classes.map(|class| Input::Interest(class, true)).collect()
}

/// What each step sent, by its name.
type StepPushes = Vec<(String, Pushes)>;

/// The straight run: the input in one batch, then a batch per step.
fn play(scenario: &Scenario) -> Result<(Arc<Snapshot>, StepPushes)> {
    let mut pipeline = new_pipeline(scenario);
    let mut world = World::new(&scenario.input);
    let mut batch = interests(scenario);
    batch.extend(world.changes());
    let mut last = pipeline
        .apply(batch)
        .context("no snapshot after the complete input")?;
    let mut clients: BTreeMap<&String, ScriptedClient> = scenario
        .clients
        .iter()
        .map(|(name, role)| (name, ScriptedClient::connect(name, role, &last)))
        .collect();
    let mut pushes = Vec::new();
    for client in clients.values_mut() {
        client.take_pushes()?;
    }
    for step in &scenario.steps {
        world.step(step)?;
        if let Some(next) = pipeline.apply(world.changes()) {
            last = next;
        }
        let mut of_step = Pushes::new();
        for (name, client) in &mut clients {
            client.on_snapshot(&last);
            of_step.insert((*name).clone(), client.take_pushes()?);
        }
        pushes.push((step.name.clone(), of_step));
    }
    for (name, client) in &clients {
        client
            .check_holds(&last)
            .with_context(|| format!("client {name} after the last step"))?;
    }
    Ok((last, pushes))
}

fn check_expectations(
    scenario: &Scenario,
    last: &Snapshot,
    pushes: &[(String, Pushes)],
    failures: &mut Vec<String>,
) -> Result<()> {
    for expectation in &scenario.expectations {
        let wrong = match expectation {
            Expectation::Addresses(want) => {
                exact(want, &json(ResourceType::Address, &last.addresses)?)
            }
            Expectation::Authorizations(want) => exact(
                want,
                &json(ResourceType::Authorization, &last.authorizations)?,
            ),
            Expectation::Findings(want) => findings(want, last)?,
            Expectation::Client { name, ty, want } => {
                let role = scenario
                    .clients
                    .get(name)
                    .with_context(|| format!("client {name}"))?;
                let class = role.class();
                let resources = last
                    .resources(class.as_ref(), *ty)
                    .with_context(|| format!("client {name} has no {}", ty.short()))?;
                matcher::mismatches(want, &json(*ty, resources)?)
            }
            Expectation::Statuses(want) => status::mismatches(want, last)?,
            Expectation::Pushes(want) => client::mismatches(want, pushes),
        };
        failures.extend(
            wrong
                .into_iter()
                .map(|text| format!("{}: {text}", expectation.file())),
        );
    }
    Ok(())
}

/// Both directions: nothing missing, nothing more.
fn exact(want: &Value, actual: &Value) -> Vec<String> {
    let mut out = matcher::mismatches(want, actual);
    for extra in matcher::mismatches(actual, want) {
        let text = format!("(not expected) {extra}");
        if !out.contains(&extra) {
            out.push(text);
        }
    }
    out
}

fn json(ty: ResourceType, resources: &ResourceMap) -> Result<Value> {
    let mut out = serde_json::Map::new();
    for resource in resources.iter() {
        let value = proto::json::to_json(ty.type_url(), &resource.payload())
            .with_context(|| resource.name().to_string())?;
        out.insert(resource.name().to_string(), value);
    }
    Ok(Value::Object(out))
}

fn findings(want: &Value, last: &Snapshot) -> Result<Vec<String>> {
    let want = want.as_array().context("findings.yaml must be a list")?;
    let mut actual: Vec<Value> = last
        .findings
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let mut out = Vec::new();
    for expected in want {
        match actual
            .iter()
            .position(|one| matcher::mismatches(expected, one).is_empty())
        {
            Some(at) => {
                actual.remove(at);
            }
            None => out.push(format!("no finding matches {expected}")),
        }
    }
    out.extend(
        actual
            .iter()
            .map(|extra| format!("unexpected finding {extra}")),
    );
    Ok(out)
}

/// Every other way to the same world must lead to the same bytes and findings.
fn check_variants(scenario: &Scenario, last: &Snapshot, failures: &mut Vec<String>) -> Result<()> {
    let mut world = World::new(&scenario.input);
    for step in &scenario.steps {
        world.step(step)?;
    }
    let want = fingerprint(last);
    let mut check = |name: &str, got: &Arc<Snapshot>| {
        let got = fingerprint(got);
        if got != want {
            failures.push(format!("{name}: {}", first_difference(&want, &got)));
        }
    };
    check("from scratch", &from_scratch(scenario, &world)?);
    for seed in SEEDS {
        check(
            &format!("shuffled ({seed})"),
            &shuffled(scenario, &world, seed)?,
        );
        check(
            &format!("one object per batch ({seed})"),
            &one_by_one(scenario, &world, seed)?,
        );
    }
    check("delete and recreate", &recreated(scenario, &world)?);
    Ok(())
}

fn from_scratch(scenario: &Scenario, world: &World) -> Result<Arc<Snapshot>> {
    let mut batch = interests(scenario);
    batch.extend(world.fresh().changes());
    new_pipeline(scenario).apply(batch).context("no snapshot")
}

fn shuffled(scenario: &Scenario, world: &World, seed: u64) -> Result<Arc<Snapshot>> {
    let mut batch = world.fresh().changes();
    let mut random = world::Random::new(seed);
    for input in &mut batch {
        if let Input::Resync(_, objects) = input {
            random.shuffle(objects);
        }
    }
    random.shuffle(&mut batch);
    let mut pipeline = new_pipeline(scenario);
    let mut last = pipeline.apply(batch);
    for interest in interests(scenario) {
        last = pipeline.apply(vec![interest]).or(last);
    }
    last.context("no snapshot")
}

fn one_by_one(scenario: &Scenario, world: &World, seed: u64) -> Result<Arc<Snapshot>> {
    let mut pipeline = new_pipeline(scenario);
    let mut building = World::new(&[]);
    let mut last = pipeline.apply(building.changes());
    last = pipeline.apply(interests(scenario)).or(last);
    let mut paths: Vec<String> = world.paths().cloned().collect();
    world::Random::new(seed).shuffle(&mut paths);
    for path in paths {
        building.copy(world, &path);
        last = pipeline.apply(building.changes()).or(last);
    }
    last.context("no snapshot")
}

fn recreated(scenario: &Scenario, world: &World) -> Result<Arc<Snapshot>> {
    let mut pipeline = new_pipeline(scenario);
    let mut changing = world.fresh();
    let mut batch = interests(scenario);
    batch.extend(changing.changes());
    let mut last = pipeline.apply(batch);
    for path in world.paths() {
        changing.remove(path);
        last = pipeline.apply(changing.changes()).or(last);
        changing.copy(world, path);
        last = pipeline.apply(changing.changes()).or(last);
    }
    last.context("no snapshot")
}

type Fingerprint = BTreeMap<String, String>;

/// Everything served and reported, by name: equal fingerprints mean equal bytes.
fn fingerprint(snapshot: &Snapshot) -> Fingerprint {
    let mut out = Fingerprint::new();
    let mut add = |prefix: String, resources: &ResourceMap| {
        for resource in resources.iter() {
            let key = format!("{prefix} {}", resource.name());
            out.insert(key, format!("{:?}", resource.payload()));
        }
    };
    add("wds".to_owned(), &snapshot.addresses);
    add("wads".to_owned(), &snapshot.authorizations);
    for (class, proxy) in &snapshot.proxies {
        let gateway = &class.gateway;
        add(format!("cds {gateway}"), &proxy.clusters);
        add(format!("eds {gateway}"), &proxy.endpoints);
        add(format!("lds {gateway}"), &proxy.listeners);
        add(format!("rds {gateway}"), &proxy.routes);
    }
    for (i, finding) in snapshot.findings.iter().enumerate() {
        out.insert(format!("finding {i}"), format!("{finding:?}"));
    }
    for (key, row) in &snapshot.statuses {
        out.insert(format!("status {key:?}"), format!("{row:?}"));
    }
    for (key, row) in &snapshot.waypoints {
        out.insert(format!("waypoint {key}"), format!("{row:?}"));
    }
    out.insert("mesh".to_owned(), format!("{:?}", snapshot.mesh));
    out
}

fn first_difference(want: &Fingerprint, got: &Fingerprint) -> String {
    for (key, value) in want {
        match got.get(key) {
            None => return format!("{key} is missing"),
            Some(other) if other != value => {
                return format!("{key} differs:\n  {}\n  {}", cut(value), cut(other));
            }
            Some(_) => {}
        }
    }
    let extra = got.keys().find(|key| !want.contains_key(*key));
    format!("{} is there too", extra.map_or("nothing", String::as_str))
}

fn cut(text: &str) -> String {
    text.chars().take(400).collect()
}
