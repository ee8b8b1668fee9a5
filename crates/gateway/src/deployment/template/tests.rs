#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::Value;

use super::super::PodForm;
use super::super::settings::PodForms;
use super::super::tests::World;

mod container;
mod env;
mod metadata;
mod pod;
mod service;
mod stock;

/// The value of a variable, or where it comes from.
fn variable(world: &World, name: &str) -> Option<Value> {
    let container = world.container();
    let env = container["env"].as_array().unwrap().clone();
    let mut found = env.iter().filter(|variable| variable["name"] == name);
    let first = found.next()?;
    assert!(found.next().is_none(), "{name} is there twice");
    first
        .get("value")
        .or_else(|| first.get("valueFrom"))
        .cloned()
}

fn text(world: &World, name: &str) -> Option<String> {
    variable(world, name).map(|value| value.as_str().unwrap().to_owned())
}

fn stock(mut world: World) -> World {
    world.settings.forms = PodForms::all(PodForm::Stock);
    world
}

fn east_west(text: &str) -> World {
    World::new("istio-east-west", text)
}

/// Names of volumes; each must be mounted, and nothing else.
fn volumes(world: &World) -> Vec<String> {
    let pod = world.pod()["spec"].clone();
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let volumes = names(&pod["volumes"]);
    assert_eq!(volumes, names(&pod["containers"][0]["volumeMounts"]));
    volumes
}
