//! Keys that are not there, and places of tokens. Source: spec/policy-and-traffic.md §2.1, §2.2.

use flow::Reads;
use model::input::{JwtRule, RequestAuthentication};
use model::jwks::SOURCES_OF_OBJECT_COUNT_MAX;
use model::{Severity, Str};

use super::Report;
use crate::authn::{keys, wanted};

impl Report<'_, '_> {
    /// Rules whose tokens are all refused for want of keys.
    pub(super) fn keys(&mut self, spec: &RequestAuthentication, reads: &mut Reads) {
        let fetched = wanted::sources_of(spec);
        for (index, rule) in spec.rules.iter().enumerate() {
            let at = format!("spec.jwtRules[{index}]");
            if !rule.jwks.is_empty() {
                self.written(&at, rule);
            } else if let Some(source) = wanted::source(rule) {
                if fetched.contains(&source.key) {
                    self.fetched(&at, rule, &source.key, reads);
                } else {
                    self.beyond(&at, rule, &source.key, reads);
                }
            }
        }
    }

    fn written(&mut self, at: &str, rule: &JwtRule) {
        if let Err(reason) = keys::check(&rule.jwks) {
            let what = format!(
                "The keys of issuer {:?} cannot be used: {reason}; every token of it is refused",
                rule.issuer
            );
            let at = format!("{at}.jwks");
            let fix = "Write a JSON object with a list keys of RSA or EC keys";
            self.push("ra-jwks-unavailable", Severity::Error, &at, what, fix);
        }
    }

    /// A rule whose keys are not fetched for this object. They may be for another one.
    fn beyond(&mut self, at: &str, rule: &JwtRule, source: &Str, reads: &mut Reads) {
        if self.view.jwks.get(reads, source).is_some() {
            return self.fetched(at, rule, source, reads);
        }
        let what = format!(
            "The keys of issuer {:?} are not fetched, for one object gets no more than {SOURCES_OF_OBJECT_COUNT_MAX} key sets; every token of it is refused",
            rule.issuer
        );
        let fix = "Remove rules, or write their keys inline";
        self.push("ra-jwks-unavailable", Severity::Error, at, what, fix);
    }

    fn fetched(&mut self, at: &str, rule: &JwtRule, source: &Str, reads: &mut Reads) {
        // Without a row nobody has tried yet.
        let Some(row) = self.view.jwks.get(reads, source) else {
            return;
        };
        let field = if rule.jwks_uri.is_empty() {
            "issuer"
        } else {
            "jwksUri"
        };
        let at = format!("{at}.{field}");
        let bad = row.keys.as_ref().and_then(|keys| keys::check(keys).err());
        if let Some(reason) = bad {
            let what = format!(
                "The keys of issuer {:?} cannot be used: {reason}; every token of it is refused",
                rule.issuer
            );
            let fix = "Correct what the address serves";
            self.push("ra-jwks-unavailable", Severity::Error, &at, what, fix);
            return;
        }
        let Some(failure) = &row.failure else {
            return;
        };
        let (severity, effect) = match row.keys {
            None => (Severity::Error, "every token of it is refused"),
            Some(_) => (Severity::Warning, "the last good ones stay in use"),
        };
        let what = format!(
            "The keys of issuer {:?} cannot be fetched: {}; {effect}",
            rule.issuer, failure.reason
        );
        if failure.blocked {
            let fix = "Use an address that may be called";
            self.push("ra-jwks-blocked", severity, &at, what, fix);
        } else {
            let fix = "Correct the address, or let the control plane reach it";
            self.push("ra-jwks-unavailable", severity, &at, what, fix);
        }
    }

    /// Places of tokens that hide the usual one.
    pub(super) fn locations(&mut self, spec: &RequestAuthentication) {
        for (index, rule) in spec.rules.iter().enumerate() {
            let some = !(rule.from_headers.is_empty()
                && rule.from_params.is_empty()
                && rule.from_cookies.is_empty());
            let mut headers = rule.from_headers.iter();
            let usual = headers.any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
            if some && !usual {
                let what = format!(
                    "Tokens of issuer {:?} are looked for only where the rule says; one in the Authorization header counts as none",
                    rule.issuer
                );
                let at = format!("spec.jwtRules[{index}]");
                let fix =
                    "Add Authorization with prefix \"Bearer \" to fromHeaders if clients send it";
                let code = "ra-custom-location-hides-default";
                self.push(code, Severity::Info, &at, what, fix);
            }
        }
    }
}
