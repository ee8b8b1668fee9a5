//! Where in which message maps may be, found once: most of a configuration holds none.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

use crate::descriptor;

const ANY: &str = "google.protobuf.Any";

/// The plans of all messages of the pool.
pub(super) struct Plans {
    by_name: HashMap<String, usize>,
    list: Vec<Plan>,
}

/// What to look at in a message.
#[derive(Default)]
pub(super) struct Plan {
    /// Fields that are maps or may hold some, by number.
    steps: Vec<(u32, Step)>,
    pub(super) is_any: bool,
    pub(super) has_maps: bool,
}

pub(super) enum Step {
    /// A message, by its plan.
    Message(usize),
    /// A map: the field of its keys, and the plan of its entries.
    Map { key: FieldDescriptor, entry: usize },
}

/// The plans of our pool.
pub(super) fn plans() -> &'static Plans {
    static PLANS: OnceLock<Plans> = OnceLock::new();
    PLANS.get_or_init(|| Plans::of(descriptor::pool()))
}

// === impl Plan ===

impl Plan {
    pub(super) fn step(&self, number: u32) -> Option<&Step> {
        let at = self.steps.binary_search_by_key(&number, |(it, _)| *it);
        at.ok().and_then(|at| self.steps.get(at)).map(|(_, it)| it)
    }
}

// === impl Plans ===

impl Plans {
    fn of(pool: &DescriptorPool) -> Self {
        let mut messages: Vec<MessageDescriptor> = pool.all_messages().collect();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        let mut at = 0;
        while let Some(message) = messages.get(at).cloned() {
            by_name.entry(message.full_name().to_owned()).or_insert(at);
            let inner = message.fields().filter_map(|it| inner(&it));
            let unknown = inner.filter(|it| !by_name.contains_key(it.full_name()));
            // Entries of maps, where the pool does not list them by themselves.
            messages.extend(unknown.filter(MessageDescriptor::is_map_entry));
            at += 1;
        }
        let holds = holding(&messages, &by_name);
        let plan = |message: &MessageDescriptor| {
            let step = |field: FieldDescriptor| {
                let inner = inner(&field)?;
                let at = *by_name.get(inner.full_name())?;
                let step = if field.is_map() {
                    let key = inner.map_entry_key_field();
                    Step::Map { key, entry: at }
                } else if holds.get(at).copied().unwrap_or_default() {
                    Step::Message(at)
                } else {
                    return None;
                };
                Some((field.number(), step))
            };
            let mut steps: Vec<(u32, Step)> = message.fields().filter_map(step).collect();
            steps.sort_by_key(|(number, _)| *number);
            Plan {
                is_any: message.full_name() == ANY,
                has_maps: steps.iter().any(|(_, it)| matches!(it, Step::Map { .. })),
                steps,
            }
        };
        let list = messages.iter().map(plan).collect();
        Self { by_name, list }
    }

    /// The plan of a message, by its full name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Plan> {
        self.list.get(at)
    }
}

fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    field.kind().as_message().cloned()
}

/// Which messages may hold a map at any depth; an `Any` may hold whatever there is.
fn holding(messages: &[MessageDescriptor], by_name: &HashMap<String, usize>) -> Vec<bool> {
    let mut holds: Vec<bool> = messages.iter().map(|it| it.full_name() == ANY).collect();
    loop {
        let more: Vec<usize> = messages
            .iter()
            .enumerate()
            .filter(|(at, _)| !holds.get(*at).copied().unwrap_or(true))
            .filter(|(_, message)| {
                message.fields().any(|field| {
                    let at = inner(&field).and_then(|it| by_name.get(it.full_name()).copied());
                    let through = at.and_then(|at| holds.get(at).copied());
                    field.is_map() || through.unwrap_or_default()
                })
            })
            .map(|(at, _)| at)
            .collect();
        if more.is_empty() {
            return holds;
        }
        for at in more {
            if let Some(it) = holds.get_mut(at) {
                *it = true;
            }
        }
    }
}
