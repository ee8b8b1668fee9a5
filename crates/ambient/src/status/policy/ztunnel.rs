//! What ztunnel makes of a policy without targets.

use model::Str;
use model::derived::Features;
use model::input::{Action, AuthorizationPolicy};
use model::status::Condition;

use super::super::ZTUNNEL_ACCEPTED;
use super::ACCEPTED;
use crate::authorization::unsupported::{self, Unsupported};

/// Reason: not everything that the policy says is enforced.
const UNSUPPORTED: &str = "UnsupportedValue";
/// Where the rest would be enforced.
const FIX: &str = "Only a waypoint can enforce them: use a policy with targetRefs";

/// The condition of a policy of namespace `ns`.
pub(super) fn condition(ns: &Str, policy: &AuthorizationPolicy, features: Features) -> Condition {
    if policy.dry_run && !features.dry_run_policies {
        return said(
            false,
            UNSUPPORTED,
            "Dry-run policies are not evaluated by ztunnel, so the policy has no effect".to_owned(),
        );
    }
    let action = match policy.action {
        Action::Allow | Action::Deny => None,
        Action::Audit => Some("AUDIT"),
        Action::Custom => Some("CUSTOM"),
    };
    if let Some(action) = action {
        return said(
            false,
            UNSUPPORTED,
            format!("ztunnel supports only ALLOW and DENY; this {action} policy is not enforced"),
        );
    }
    let found = unsupported::of(ns, policy);
    if found.attributes.is_empty() {
        let message = "The policy is enforced by ztunnel".to_owned();
        return said(true, ACCEPTED, message);
    }
    said(true, UNSUPPORTED, partly(policy.action, &found))
}

fn said(holds: bool, reason: &'static str, message: String) -> Condition {
    super::condition(ZTUNNEL_ACCEPTED, holds, reason, message)
}

fn partly(action: Action, found: &Unsupported) -> String {
    let names: Vec<&str> = found.attributes.iter().map(Str::as_str).collect();
    let effect = match (action, found.stricter, found.without_effect) {
        (Action::Deny, true, false) => {
            "in this DENY policy they are left out, so more is denied than written"
        }
        (Action::Deny, false, _) => {
            "conditions of this DENY policy that hold nothing else never match, so they deny nothing"
        }
        (Action::Deny, true, true) => {
            "in this DENY policy they are left out, so more is denied than written; conditions that hold nothing else never match"
        }
        _ => "in this ALLOW policy rules with them are left out, so less is allowed than written",
    };
    format!(
        "ztunnel cannot evaluate {}: {effect}. {FIX}",
        names.join(", ")
    )
}
