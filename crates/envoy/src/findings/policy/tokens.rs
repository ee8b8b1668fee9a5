//! Conditions on tokens that nobody verifies, or that no token can meet.
//! Source: spec/policy-and-traffic.md §1.4, §10.1.

use flow::Reads;
use model::input::{Action, TargetRef};
use model::{ObjectKey, Severity, Str};

use super::{Reached, Report};
use crate::authn;
use crate::authz::{self, token_fields};
use crate::index::{Target, TargetKind};

impl Report<'_, '_> {
    /// One finding per rule with such a condition, naming the first place without tokens.
    pub(super) fn tokens(&mut self, reads: &mut Reads, reached: &[Reached<'_>]) {
        let policy = self.policy;
        let rules = policy.rules.iter().enumerate();
        let rules = rules.filter_map(|(index, rule)| {
            let field = token_fields(rule).into_iter().next()?;
            Some(format!("spec.rules[{index}].{field}"))
        });
        let fields: Vec<String> = rules.collect();
        if fields.is_empty() {
            return;
        }
        let Some(place) = self.without_tokens(reads, reached) else {
            return;
        };
        let effect = match policy.action {
            Action::Allow => "so the rule allows nothing there",
            _ => "so the condition never holds there, and always where it is negated",
        };
        let fix = "Add a RequestAuthentication with the same target";
        for at in fields {
            let what = format!("No RequestAuthentication verifies tokens for {place}, {effect}");
            let code = "authz-jwt-without-requestauthn";
            self.push(code, Severity::Error, &at, what, fix);
        }
    }

    /// A place that the policy reaches and no RequestAuthentication does.
    fn without_tokens(&self, reads: &mut Reads, reached: &[Reached<'_>]) -> Option<Str> {
        let table = self.view.authentications;
        for Reached { service, .. } in reached {
            let Some(waypoint) = self.waypoint_of(reads, service) else {
                continue;
            };
            let targets = authz::targets(self.mesh, waypoint, Some(service));
            if authn::attached(table, reads, &targets).is_empty() {
                return Some(service.key.hostname.clone());
            }
        }
        let targets = self.policy.targets.iter();
        targets
            .filter(|_| reached.is_empty())
            .find_map(|target| self.gateway_without_tokens(reads, target))
    }

    /// A Gateway, or all of its class, without any service that could be looked at.
    fn gateway_without_tokens(&self, reads: &mut Reads, target: &TargetRef) -> Option<Str> {
        let kind = TargetKind::of(&target.group, &target.kind)?;
        let place = match kind {
            TargetKind::Gateway | TargetKind::GatewayClass => {
                let key = ObjectKey::new(self.key.ns.clone(), target.name.clone());
                Target::new(kind, key)
            }
            TargetKind::Service | TargetKind::ServiceEntry => return None,
        };
        let table = self.view.authentications;
        let found = authn::attached(table, reads, std::slice::from_ref(&place));
        found
            .is_empty()
            .then(|| arcstr::format!("{} {}", target.kind, target.name))
    }

    /// Request principals without a subject.
    pub(super) fn request_principals(&mut self) {
        let policy = self.policy;
        for (r, rule) in policy.rules.iter().enumerate() {
            for (i, from) in rule.from.iter().enumerate() {
                let at = format!("spec.rules[{r}].from[{i}].source");
                let list = &from.request_principals;
                self.shapes(&format!("{at}.requestPrincipals"), &list.values);
                self.shapes(&format!("{at}.notRequestPrincipals"), &list.not_values);
            }
            for (i, (key, list)) in rule.when.iter().enumerate() {
                if key == "request.auth.principal" {
                    let at = format!("spec.rules[{r}].when[{i}]");
                    self.shapes(&format!("{at}.values"), &list.values);
                    self.shapes(&format!("{at}.notValues"), &list.not_values);
                }
            }
        }
    }

    fn shapes(&mut self, at: &str, values: &[Str]) {
        let odd = |value: &&Str| !value.contains(['/', '*']);
        if let Some(value) = values.iter().find(odd) {
            let what =
                format!("{value:?} is not <issuer>/<subject>: it matches no token with a subject");
            let fix = format!("Write {value}/* or {value}/<subject>");
            let code = "authz-request-principal-shape";
            self.push(code, Severity::Error, at, what, &fix);
        }
    }
}
