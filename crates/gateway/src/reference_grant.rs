//! What ReferenceGrants permit. Source: spec/gateway-api.md §6.4.

use flow::{Reads, View};
use model::input::ReferenceGrant;
use model::{Kind, ObjectKey, Parsed, Str};

use crate::index::GrantByNamespace;

/// Whether a grant in the namespace of the target lets objects of a kind and namespace refer to
/// it. Who is in the same namespace need not ask.
pub fn is_granted(
    grants: View<'_, ObjectKey, Parsed<ReferenceGrant>>,
    reads: &mut Reads,
    (from_kind, from_ns): (Kind, &Str),
    (to_kind, to): (Kind, &ObjectKey),
) -> bool {
    grants
        .by::<GrantByNamespace>(reads, &to.ns)
        .any(|(_, parsed)| {
            let Some(grant) = parsed.ok() else {
                return false;
            };
            let from = grant.from.iter().any(|(group, kind, ns)| {
                group == from_kind.group() && kind == from_kind.as_str() && ns == from_ns
            });
            from && grant.to.iter().any(|(group, kind, name)| {
                matches!(group.as_str(), "" | "core")
                    && kind == to_kind.as_str()
                    && name.as_ref().is_none_or(|name| *name == to.name)
            })
        })
}
