//! The parts of a rule beside its matches and filters.

use std::time::Duration;

use crate::Str;
use crate::finding::Severity;
use crate::input::{
    BackendRef, HeaderEdits, HttpRetry, HttpRule, HttpTimeouts, RouteFilter, RouteRef,
    SessionPersistence,
};
use crate::object::Invalid;

use super::super::read::{Doc, at_most};
use super::{port_number, wire};

const BACKENDS_COUNT_MAX: usize = 16;
/// Largest weight of the API.
const WEIGHT_MAX: u32 = 1_000_000;
const RETRY_CODES: std::ops::RangeInclusive<i64> = 400..=599;
const RETRY_CODES_COUNT_MAX: usize = 200;
const SESSION_NAME_BYTES_MAX: usize = 128;

/// Reads one rule, and remembers whether a value of it cannot be.
pub(in crate::parse) struct RuleReader<'d, 'a> {
    doc: &'d mut Doc<'a>,
    at: String,
    /// Of a GRPCRoute, which has fewer filters.
    pub(super) grpc: bool,
    broken: bool,
    /// What happens to traffic of a broken rule.
    refusal: &'static str,
}

impl<'d, 'a> RuleReader<'d, 'a> {
    /// A reader of `spec.rules[index]`.
    pub(in crate::parse) fn new(doc: &'d mut Doc<'a>, index: usize, grpc: bool) -> Self {
        Self {
            doc,
            at: format!("spec.rules[{index}]"),
            grpc,
            broken: false,
            refusal: "requests that this rule matches are answered with 500",
        }
    }

    /// The same for a TCPRoute or TLSRoute.
    pub(in crate::parse) fn of_connections(doc: &'d mut Doc<'a>, index: usize) -> Self {
        Self {
            refusal: "connections of this rule are closed",
            ..Self::new(doc, index, false)
        }
    }

    /// Path of the rule.
    pub(in crate::parse) fn at(&self) -> &str {
        &self.at
    }

    /// Namespace of the route.
    pub(in crate::parse) fn ns(&self) -> &Str {
        &self.doc.meta.key.ns
    }

    /// Notes something about a field of the rule.
    pub(in crate::parse) fn note(&mut self, code: &'static str, at: &str, what: &str, fix: &str) {
        let field = arcstr::format!("{}.{at}", self.at);
        self.doc.note(code, Severity::Warning, field, what, fix);
    }

    /// Notes that a field of the rule is not applied.
    pub(super) fn not_applied(&mut self, at: &str, effect: &str) {
        self.doc
            .not_applied(arcstr::format!("{}.{at}", self.at), effect);
    }

    /// Notes a value that cannot be; the rule is broken by it.
    pub(super) fn bad(&mut self, at: &str, reason: &str) {
        self.broken = true;
        let message = arcstr::format!("This value cannot be: {reason}; {}", self.refusal);
        self.doc.note(
            "route-value-invalid",
            Severity::Error,
            arcstr::format!("{}.{at}", self.at),
            message,
            "Correct or remove it",
        );
    }

    /// The rule; a broken one keeps what it matches, and what voids the whole route, and
    /// neither forwards nor redirects.
    pub(in crate::parse) fn finish(self, mut rule: HttpRule) -> HttpRule {
        if !self.broken {
            return rule;
        }
        let defuse = |filter: &mut RouteFilter| {
            if !matches!(
                filter,
                RouteFilter::Unsupported(_) | RouteFilter::Invalid(..)
            ) {
                *filter = RouteFilter::RequestHeaders(HeaderEdits::default());
            }
        };
        rule.filters.iter_mut().for_each(defuse);
        self.disarm(&mut rule.backends);
        for backend in &mut rule.backends {
            backend.filters.iter_mut().for_each(defuse);
        }
        HttpRule {
            timeouts: HttpTimeouts::default(),
            retry: None,
            session: None,
            ..rule
        }
    }

    /// Leaves no traffic to the backends of a broken rule.
    pub(in crate::parse) fn disarm(&self, backends: &mut [BackendRef]) {
        if self.broken {
            for backend in backends {
                backend.weight = 0;
            }
        }
    }

    /// `backendRefs` of a rule with filters.
    pub(in crate::parse) fn backends(
        &mut self,
        wire: Vec<wire::Backend>,
    ) -> Result<Vec<BackendRef>, Invalid> {
        at_most(
            &wire,
            BACKENDS_COUNT_MAX,
            &format!("{}.backendRefs", self.at),
        )?;
        let mut out = Vec::with_capacity(wire.len());
        for (i, wire) in wire.into_iter().enumerate() {
            let at = format!("backendRefs[{i}]");
            let filters = self.backend_filters(&at, wire.filters.unwrap_or_default())?;
            let plain = wire::Target {
                group: wire.group,
                kind: wire.kind,
                namespace: wire.namespace,
                name: wire.name,
                port: wire.port,
                weight: wire.weight,
            };
            out.push(BackendRef {
                filters,
                ..self.backend(&at, plain)
            });
        }
        Ok(out)
    }

    /// `backendRefs` of a rule without filters.
    pub(in crate::parse) fn plain_backends(
        &mut self,
        wire: Vec<wire::Target>,
    ) -> Result<Vec<BackendRef>, Invalid> {
        at_most(
            &wire,
            BACKENDS_COUNT_MAX,
            &format!("{}.backendRefs", self.at),
        )?;
        let wire = wire.into_iter().enumerate();
        Ok(wire
            .map(|(i, wire)| self.backend(&format!("backendRefs[{i}]"), wire))
            .collect())
    }

    fn backend(&mut self, at: &str, wire: wire::Target) -> BackendRef {
        let weight = match wire.weight.map(u32::try_from) {
            None => 1,
            Some(Ok(weight)) if weight <= WEIGHT_MAX => weight,
            Some(_) => {
                let reason = format!("a weight is 0 to {WEIGHT_MAX}");
                self.bad(&format!("{at}.weight"), &reason);
                0
            }
        };
        BackendRef {
            target: target(wire, self.ns()),
            weight,
            filters: Vec::new(),
        }
    }

    /// `timeouts`.
    pub(super) fn timeouts(&mut self, wire: Option<wire::Timeouts>) -> HttpTimeouts {
        let Some(wire) = wire else {
            return HttpTimeouts::default();
        };
        let out = HttpTimeouts {
            request: self.duration("timeouts.request", wire.request),
            backend_request: self.duration("timeouts.backendRequest", wire.backend_request),
        };
        if let (Some(request), Some(backend)) = (out.request, out.backend_request)
            && !request.is_zero()
            && backend > request
        {
            self.bad("timeouts.backendRequest", "it is longer than request");
        }
        out
    }

    /// `retry`.
    pub(super) fn retry(&mut self, wire: wire::Retry) -> HttpRetry {
        let mut codes = Vec::new();
        let written = wire.codes.unwrap_or_default();
        for (i, code) in written.iter().enumerate().take(RETRY_CODES_COUNT_MAX) {
            match u16::try_from(*code) {
                Ok(status) if RETRY_CODES.contains(code) => codes.push(status),
                _ => self.bad(&format!("retry.codes[{i}]"), "a code is 400 to 599"),
            }
        }
        let attempts = wire.attempts.map(|attempts| {
            u32::try_from(attempts).unwrap_or_else(|_| {
                self.bad("retry.attempts", "it is a number of retries");
                0
            })
        });
        HttpRetry {
            codes,
            attempts,
            backoff: self.duration("retry.backoff", wire.backoff),
        }
    }

    /// `sessionPersistence`.
    pub(in crate::parse) fn session(&mut self, wire: wire::Persistence) -> SessionPersistence {
        let at = |field: &str| format!("sessionPersistence.{field}");
        let name = wire.session_name.unwrap_or_default();
        if !name.is_empty() && (!is_token(&name) || name.len() > SESSION_NAME_BYTES_MAX) {
            self.bad(&at("sessionName"), "it is no name of a cookie or header");
        }
        let header = match wire.r#type.as_deref() {
            None | Some("Cookie") => false,
            Some("Header") => true,
            Some(_) => {
                self.bad(&at("type"), "it is Cookie or Header");
                false
            }
        };
        let life = wire.cookie_config.and_then(|config| config.lifetime_type);
        let permanent = match life.as_deref() {
            None | Some("Session") => false,
            Some("Permanent") => true,
            Some(_) => {
                let field = at("cookieConfig.lifetimeType");
                self.bad(&field, "it is Permanent or Session");
                false
            }
        };
        let absolute_timeout = self.duration(&at("absoluteTimeout"), wire.absolute_timeout);
        let idle_timeout = self.duration(&at("idleTimeout"), wire.idle_timeout);
        if permanent && absolute_timeout.is_none_or(|timeout| timeout.is_zero()) {
            let field = at("cookieConfig.lifetimeType");
            self.bad(&field, "Permanent needs an absoluteTimeout");
        }
        if idle_timeout.is_some() {
            let effect = "a session does not end because it rests";
            self.not_applied(&at("idleTimeout"), effect);
        }
        if absolute_timeout.is_some() && (header || !permanent) {
            let effect = "only a cookie of lifetimeType Permanent ends by time";
            self.not_applied(&at("absoluteTimeout"), effect);
        }
        SessionPersistence {
            name: Str::from(name),
            header,
            absolute_timeout,
            idle_timeout,
            permanent,
        }
    }

    fn duration(&mut self, at: &str, text: Option<String>) -> Option<Duration> {
        let text = text?;
        let found = duration(&text);
        if found.is_none() {
            self.bad(at, "it is no duration such as 10s, 500ms or 1h30m");
        }
        found
    }
}

/// A reference to a backend. A port that cannot be is none, which voids the route.
pub(in crate::parse) fn target(wire: wire::Target, ns: &Str) -> RouteRef {
    RouteRef {
        group: Str::from(wire.group.unwrap_or_default()),
        kind: Str::from(wire.kind.as_deref().unwrap_or("Service")),
        ns: wire.namespace.map(Str::from).unwrap_or_else(|| ns.clone()),
        name: Str::from(wire.name),
        port: wire.port.and_then(port_number),
        ..RouteRef::default()
    }
}

/// A token of HTTP: what names of headers, cookies and methods are made of.
pub(super) fn is_token(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(fits)
}

/// A duration of Gateway API (GEP-2257): up to four whole numbers of at most five digits, each
/// with a unit.
fn duration(text: &str) -> Option<Duration> {
    const PARTS_MAX: usize = 4;
    const DIGITS_MAX: usize = 5;
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..PARTS_MAX {
        let (digits, more) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        if digits.len() > DIGITS_MAX {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        let unit = more
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(more.len());
        let (unit, more) = more.split_at(unit);
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = more;
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}
