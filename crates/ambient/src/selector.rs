//! Equality selectors as plain index keys.
//!
//! A selecting object stands under its namespace and its *smallest* label pair (a match-all one
//! under no pair). A labelled object looks up each of its own pairs and then checks the whole
//! selector: the cost is that of its labels, whatever the number of selectors.

use model::{Labels, Str};

/// Where a selecting object stands: namespace and smallest label pair, `None` for match-all.
pub type SelectorAt = (Str, Option<(Str, Str)>);

/// The place of a selector.
pub fn place(ns: &Str, selector: &Labels) -> SelectorAt {
    let smallest = selector.iter().next();
    (
        ns.clone(),
        smallest.map(|(key, value)| (key.clone(), value.clone())),
    )
}

/// Every place whose selectors may select these labels, the match-all one first.
pub fn places(ns: &Str, labels: &Labels) -> impl Iterator<Item = SelectorAt> {
    let pairs = labels
        .iter()
        .map(|(key, value)| Some((key.clone(), value.clone())));
    std::iter::once(None)
        .chain(pairs)
        .map(|pair| (ns.clone(), pair))
}

/// Whether every pair of the selector is among the labels; an empty selector selects all.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
