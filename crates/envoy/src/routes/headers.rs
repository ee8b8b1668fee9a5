//! Changes of headers. Source: spec/envoy-config.md §5.4.

use model::Str;
use model::input::HeaderEdits;

/// The changes that a proxy makes to headers, and the host that they ask for: a header `host` or
/// `:authority` becomes a rewrite of the host, of which `set` beats `add`. Other names that begin
/// with a colon are nothing that could be changed.
pub(super) fn split(edits: &HeaderEdits) -> (HeaderEdits, Option<Str>) {
    let is_host = |name: &Str| matches!(name.as_str(), "host" | ":authority");
    let plain = |name: &Str| !is_host(name) && !name.starts_with(':');
    let kept = |list: &[(Str, Str)]| {
        let list = list.iter().filter(|(name, _)| plain(name));
        list.cloned().collect()
    };
    let host = edits
        .set
        .iter()
        .chain(&edits.add)
        .find(|(name, _)| is_host(name));
    let edits = HeaderEdits {
        set: kept(&edits.set),
        add: kept(&edits.add),
        remove: edits
            .remove
            .iter()
            .filter(|name| plain(name))
            .cloned()
            .collect(),
    };
    (edits, host.map(|(_, value)| value.clone()))
}
