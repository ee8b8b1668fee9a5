//! Whom a listener, or a Gateway its ListenerSets, lets in. Source: spec/gateway-api.md §3.8.

use flow::{Reads, View};
use model::input::{AllowedNamespaces, Namespace};
use model::{ObjectKey, Parsed, Str};

/// Every namespace has its name as this label, also where nobody wrote it.
const LABEL_NAME: &str = "kubernetes.io/metadata.name";

/// Whether what is said in namespace `own` admits namespace `ns`. One that does not exist has no
/// labels that a selector could match, and is in no list.
pub fn admits(
    namespaces: View<'_, ObjectKey, Parsed<Namespace>>,
    reads: &mut Reads,
    (allowed, own): (&AllowedNamespaces, &str),
    ns: &Str,
) -> bool {
    match allowed {
        AllowedNamespaces::All => true,
        AllowedNamespaces::Same => *ns == own,
        AllowedNamespaces::None => false,
        AllowedNamespaces::Selector(selector) => namespaces
            .get(reads, &ObjectKey::cluster(ns.clone()))
            .is_some_and(|row| {
                let labels = &row.meta.labels;
                if labels.contains_key(LABEL_NAME) {
                    return selector.matches(labels);
                }
                let mut labels = labels.clone();
                labels.insert(Str::from(LABEL_NAME), ns.clone());
                selector.matches(&labels)
            }),
    }
}
