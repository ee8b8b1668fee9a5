//! Thousands of AuthorizationPolicies at a real waypoint, against an evaluator of their meaning
//! that was written from the contract alone.
//!
//! `AMBIENTD_AUTHZ_SEED` and `AMBIENTD_AUTHZ_CASES` (policies) vary what is tried; a failure
//! prints the seed, the policies and the request.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::struct_field_names
)]

#[path = "e2e_authz/eval.rs"]
mod eval;
#[path = "e2e_authz/generate.rs"]
mod generate;
#[path = "e2e_authz/policy.rs"]
mod policy;
#[path = "e2e_authz/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use generate::{CLIENTS, Dice};
use policy::{Policy, Request};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use world::{Answer, HTTP_PORT, SERVICES_COUNT, TCP_PORT, World};

const SEED_DEFAULT: u64 = 20_261_121;
const POLICIES_COUNT_DEFAULT: usize = 2_000;
const REQUESTS_PER_SERVICE: usize = 7;
const CONNECTIONS_PER_SERVICE: usize = 1;
const AT_ONCE: usize = 24;
const SHOWN_MAX: usize = 3;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().ok().expect("a number"))
}

struct Case {
    service: usize,
    request: Request,
    allowed: bool,
}

/// What differs, in words.
struct Difference {
    service: usize,
    text: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_envoy_judges_as_the_contract_says() {
    let seed = setting("AMBIENTD_AUTHZ_SEED", SEED_DEFAULT);
    let policies_min = setting("AMBIENTD_AUTHZ_CASES", POLICIES_COUNT_DEFAULT);
    let world = Arc::new(Box::pin(World::start()).await.unwrap());
    let mut dice = Dice(seed);
    let (mut policies_count, mut cases_count, mut allowed_count) = (0, 0, 0);
    let mut batch = 0;
    while policies_count < policies_min {
        batch += 1;
        let policies: Vec<Policy> = (0..SERVICES_COUNT)
            .flat_map(|index| generate::policies(&mut dice, &world::service(index)))
            .collect();
        world.apply(batch, &policies).await.unwrap();
        let cases = cases(&mut dice, &world, &policies);
        policies_count += policies.len();
        cases_count += cases.len();
        allowed_count += cases.iter().filter(|case| case.allowed).count();
        let found = Box::pin(differences(&world, cases)).await;
        if let Some(text) = report(&found, &policies) {
            panic!("seed {seed}, batch {batch}: {text}");
        }
    }
    // Otherwise little was proved.
    let share = allowed_count * 100 / cases_count;
    assert!((20..=80).contains(&share), "{share} % are allowed");
    println!("{policies_count} policies, {cases_count} requests, {share} % allowed");
}

/// Requests and connections to every service, with what must become of them.
fn cases(dice: &mut Dice, world: &World, policies: &[Policy]) -> Vec<Case> {
    let mut by_service: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
    for policy in policies {
        by_service.entry(&policy.service).or_default().push(policy);
    }
    let mut out = Vec::new();
    for service in 0..SERVICES_COUNT {
        let own = &by_service[world::service(service).as_str()];
        let count = REQUESTS_PER_SERVICE + CONNECTIONS_PER_SERVICE;
        for index in 0..count {
            let http = index < REQUESTS_PER_SERVICE;
            let port = if http { HTTP_PORT } else { TCP_PORT };
            let request = generate::request(dice, world.tokens.len(), port);
            let facts = eval::Facts {
                request: &request,
                identity: world::identity(request.client),
                source: world::source(request.client),
                destination: world::vip(service),
                claims: request.token.map(|token| &world.tokens[token].claims),
                http,
            };
            let allowed = eval::allowed(own, &facts);
            out.push(Case {
                service,
                request,
                allowed,
            });
        }
    }
    out
}

/// Sends everything, several at once.
async fn differences(world: &Arc<World>, cases: Vec<Case>) -> Vec<Difference> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for case in cases {
        let (world, turns) = (Arc::clone(world), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            difference(&world, &case).await
        });
    }
    let mut all: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_by_key(|difference| difference.service);
    all
}

async fn difference(world: &World, case: &Case) -> Option<Difference> {
    let got = Box::pin(world.send(case.service, &case.request)).await;
    let expected = if case.allowed {
        Answer::Allowed
    } else {
        Answer::Denied
    };
    (got != expected).then(|| Difference {
        service: case.service,
        text: format!(
            "expected {expected:?}, got {got:?}\n{:#?}\nfrom {:?}",
            case.request, CLIENTS[case.request.client]
        ),
    })
}

fn report(found: &[Difference], policies: &[Policy]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let mut out = format!("{} answers differ\n", found.len());
    for Difference { service, text } in found.iter().take(SHOWN_MAX) {
        let name = world::service(*service);
        for policy in policies.iter().filter(|policy| policy.service == name) {
            out += &serde_json::to_string_pretty(&policy.manifest()).unwrap();
            out.push('\n');
        }
        out += text;
        out.push('\n');
    }
    Some(out)
}
