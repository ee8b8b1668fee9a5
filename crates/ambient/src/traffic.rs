//! Words about traffic in labels and annotations.

use model::derived::Distribution;

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(crate) fn parse_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// `spec.trafficDistribution`; `None` for an unknown word. Source: spec/workload-discovery.md §3.2.
pub(crate) fn spec_distribution(word: &str) -> Option<Distribution> {
    match word {
        "PreferClose" | "PreferSameZone" => Some(Distribution::Zone),
        "PreferSameNode" => Some(Distribution::Node),
        _ => None,
    }
}

/// The annotation's distribution; `None` when empty, `Any` for an unknown word.
pub(crate) fn annotated_distribution(word: &str) -> Option<Distribution> {
    match word.to_ascii_lowercase().as_str() {
        "" => None,
        "preferclose" | "prefersamezone" => Some(Distribution::Zone),
        "prefersamenode" => Some(Distribution::Node),
        _ => Some(Distribution::Any),
    }
}
