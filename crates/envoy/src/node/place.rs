//! Where a node runs. Source: spec/envoy-config.md §1.1.

use model::Str;
use model::derived::Locality;
use model::labels::{LABEL_REGION, LABEL_SUBZONE, LABEL_ZONE};
use proto::core::Node;

/// Label of a pod that says where it runs: `region.zone.subzone`, or with slashes.
const LABEL_LOCALITY: &str = "istio-locality";
/// Longest name of a region, zone or subzone, in bytes.
const PART_BYTES_MAX: usize = 63;

/// The locality that the labels of the node's place give, else its own label, else
/// `node.locality`. A name that is too long counts as not given: a proxy that exaggerates has
/// no preference, and that is all.
pub(super) fn locality<'n>(node: &Node, label: &dyn Fn(&str) -> Option<&'n str>) -> Locality {
    let topology = |key| label(key).unwrap_or_default();
    let place = [LABEL_REGION, LABEL_ZONE, LABEL_SUBZONE].map(topology);
    if place.iter().any(|part| !part.is_empty()) {
        return of(place);
    }
    if let Some(text) = label(LABEL_LOCALITY).filter(|text| !text.is_empty()) {
        let separator = if text.contains('/') { '/' } else { '.' };
        let mut parts = text.splitn(3, separator);
        return of([(); 3].map(|()| parts.next().unwrap_or_default()));
    }
    node.locality.as_ref().map_or_else(Locality::default, |at| {
        of([&at.region, &at.zone, &at.sub_zone])
    })
}

/// A part counts only below one that is given.
fn of(parts: [&str; 3]) -> Locality {
    let good = |part: &&str| !part.is_empty() && part.len() <= PART_BYTES_MAX;
    let mut parts = parts.into_iter().take_while(good).map(Str::from);
    let mut next = || parts.next().unwrap_or_default();
    Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    }
}
