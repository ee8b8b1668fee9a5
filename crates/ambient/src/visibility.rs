//! Who sees the ServiceEntries of a namespace. Source: spec/workload-discovery.md §3.5.

use flow::Reads;
use model::derived::{EntryVisibility, Visibility};
use model::input::Namespace;
use model::{Labels, MeshRow, ObjectKey, Str};

use crate::tables::InputView;

/// The visibility of a namespace's entries. The namespace is read only when its labels count.
pub(crate) fn of_namespace(
    ns: &Str,
    mesh: &MeshRow,
    namespaces: InputView<'_, Namespace>,
    reads: &mut Reads,
) -> Visibility {
    let Some(settings) = &mesh.entry_visibility else {
        return Visibility::Public;
    };
    if settings.policies.is_empty() {
        return settings.default;
    }
    let none = Labels::new();
    let namespace = namespaces.get(reads, &ObjectKey::cluster(ns.clone()));
    let labels = namespace.map_or(&none, |namespace| &namespace.meta.labels);
    resolve(settings, labels)
}

/// The first policy whose rules all match counts, else the default.
fn resolve(settings: &EntryVisibility, labels: &Labels) -> Visibility {
    let matches = |rules: &[Option<model::input::LabelSelector>]| {
        let mut rules = rules.iter();
        rules.all(|rule| rule.as_ref().is_some_and(|rule| rule.matches(labels)))
    };
    let found = settings.policies.iter().find(|(rules, _)| matches(rules));
    found.map_or(settings.default, |(_, outcome)| *outcome)
}
