//! Hard errors: what makes a route object contribute nothing at all.
//! Source: spec/gateway-api.md §4.3, §6.3.

use std::borrow::Cow;

use flow::Reads;
use model::input::{
    BackendRef, HttpMatch, HttpRoute, HttpRule, L4Route, PathMatch, PathModifier, RouteFilter,
    RouteRef, ValueMatch,
};
use model::{Kind, Str};

use super::RouteTables;
use super::backend::{Backend, Referrer, resolve};
use crate::regex;

/// Why a route object contributes no rule at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// Path of the field, from `spec`.
    pub(crate) field: String,
    /// Finding code.
    pub(crate) code: &'static str,
    /// What is wrong, as a clause.
    pub(crate) reason: String,
}

type RuleDefect = (String, &'static str, String);

/// The first hard error of an HTTPRoute or GRPCRoute of a namespace, which leaves nothing of it.
/// A bad value of a match costs that match alone, see [`bad_matches`].
pub(crate) fn defect(ns: &Str, route: &HttpRoute) -> Option<Defect> {
    let rules = route.rules.iter().enumerate();
    rules
        .map(|(i, rule)| in_rule(i, rule_defect(ns, rule)))
        .find_map(|found| found)
}

/// The same of a TCPRoute or TLSRoute.
pub(crate) fn l4_defect(ns: &Str, route: &L4Route) -> Option<Defect> {
    let mut rules = route.rules.iter().enumerate();
    rules.find_map(|(i, rule)| in_rule(i, backends_defect(ns, &rule.backends)))
}

/// A mirror of a GRPCRoute that leads nowhere; in an HTTPRoute it is just left out.
pub(crate) fn mirror_defect(
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    referrer: &Referrer<'_>,
    route: &HttpRoute,
) -> Option<Defect> {
    if referrer.kind != Kind::GrpcRoute {
        return None;
    }
    for (i, rule) in route.rules.iter().enumerate() {
        for (j, filter) in rule.filters.iter().enumerate() {
            let RouteFilter::Mirror(mirror) = filter else {
                continue;
            };
            let found = resolve(tables, reads, referrer, &mirror.target);
            if !matches!(found, Backend::Service(..)) {
                return Some(Defect {
                    field: format!("spec.rules[{i}].filters[{j}]"),
                    code: "route-filter-invalid",
                    reason: "the mirror leads to a service that is missing or not permitted"
                        .to_owned(),
                });
            }
        }
    }
    None
}

fn in_rule(index: usize, found: Option<RuleDefect>) -> Option<Defect> {
    found.map(|(field, code, reason)| Defect {
        field: format!("spec.rules[{index}].{field}"),
        code,
        reason,
    })
}

fn rule_defect(ns: &Str, rule: &HttpRule) -> Option<RuleDefect> {
    let mut unsupported = rule.unsupported.iter();
    if let Some(path) = unsupported.find(|path| path.contains("filters")) {
        let reason = "the filter is not supported".to_owned();
        return Some((path.to_string(), "route-filter-not-supported", reason));
    }
    let mut unsupported = rule.unsupported.iter();
    if let Some(path) = unsupported.find(|path| path.starts_with("matches")) {
        let reason = "the match is not supported".to_owned();
        return Some((path.to_string(), "route-match-not-supported", reason));
    }
    filters_defect("", &rule.filters)
        .or_else(|| {
            let mut backends = rule.backends.iter().enumerate();
            backends.find_map(|(i, backend)| {
                filters_defect(&format!("backendRefs[{i}]."), &backend.filters)
            })
        })
        .or_else(|| backends_defect(ns, &rule.backends))
        .or_else(|| prefix_defect(rule))
}

fn filters_defect(at: &str, filters: &[RouteFilter]) -> Option<RuleDefect> {
    filters.iter().enumerate().find_map(|(i, filter)| {
        let (code, reason) = match filter {
            RouteFilter::Unsupported(kind) => (
                "route-filter-not-supported",
                format!("a filter of type {kind} is not supported here"),
            ),
            RouteFilter::Invalid(kind, reason) => (
                "route-filter-invalid",
                format!("the {kind} is not valid: {reason}"),
            ),
            _ => return None,
        };
        Some((format!("{at}filters[{i}]"), code, reason))
    })
}

fn backends_defect(ns: &Str, backends: &[BackendRef]) -> Option<RuleDefect> {
    backends.iter().enumerate().find_map(|(i, backend)| {
        let reason = target_defect(ns, &backend.target)?;
        Some((format!("backendRefs[{i}]"), "route-backend-invalid", reason))
    })
}

fn target_defect(ns: &Str, target: &RouteRef) -> Option<String> {
    if target.port.is_none() {
        return Some("the backend has no port (1 to 65535)".to_owned());
    }
    match target.kind.as_str() {
        "Service" if target.name.contains('.') => Some("a Service name has no dot".to_owned()),
        "Hostname" if target.ns != *ns => Some("a Hostname has no namespace".to_owned()),
        _ => None,
    }
}

/// The matches that cannot be told to Envoy, which would refuse the routes of a whole chain for
/// one of them. Each is left out alone; its rule keeps the others.
pub(crate) fn bad_matches(route: &HttpRoute) -> Vec<Defect> {
    let mut out = Vec::new();
    for (i, rule) in route.rules.iter().enumerate() {
        for (j, m) in rule.matches.iter().enumerate() {
            out.extend(match_defect(m).map(|(field, reason)| Defect {
                field: format!("spec.rules[{i}].matches[{j}].{field}"),
                code: "route-match-invalid",
                reason,
            }));
        }
    }
    out
}

/// What a rule matches: everything where it has no match, nothing where all of them are bad.
pub(crate) fn matches_of(rule: &HttpRule) -> Vec<Cow<'_, HttpMatch>> {
    if rule.matches.is_empty() {
        return vec![Cow::Owned(HttpMatch::default())];
    }
    let good = rule.matches.iter().filter(|m| match_defect(m).is_none());
    good.map(Cow::Borrowed).collect()
}

/// Whether some rule of a route matches anything.
pub(crate) fn contributes(route: &HttpRoute) -> bool {
    let good = |rule: &HttpRule| {
        rule.matches.is_empty() || rule.matches.iter().any(|m| match_defect(m).is_none())
    };
    route.rules.iter().any(good)
}

/// Methods that requests can have.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

fn match_defect(m: &HttpMatch) -> Option<(String, String)> {
    if let Some(reason) = m.path.as_ref().and_then(path_defect) {
        return Some(("path".to_owned(), reason));
    }
    if let Some(method) = &m.method
        && !METHODS.contains(&method.as_str())
    {
        let reason = format!("there is no method of that name; write one of {METHODS:?}");
        return Some(("method".to_owned(), reason));
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let header = |name: &Str| name.bytes().all(token);
    let query = |name: &Str| !name.contains(['\0', '\r', '\n']);
    named_defect("headers", &m.headers, header)
        .or_else(|| named_defect("queryParams", &m.query, query))
}

/// The first bad name or value of a list of them.
fn named_defect(
    list: &str,
    pairs: &[(Str, ValueMatch)],
    fits: impl Fn(&Str) -> bool,
) -> Option<(String, String)> {
    pairs.iter().enumerate().find_map(|(i, (name, value))| {
        if name.is_empty() || !fits(name) {
            let reason = "the name is not valid".to_owned();
            return Some((format!("{list}[{i}].name"), reason));
        }
        let reason = match value {
            ValueMatch::Regex(text) if text.is_empty() || text == "*" => None,
            ValueMatch::Regex(text) => regex::check(text).err(),
            ValueMatch::Exact(text) => text
                .contains(['\0', '\r', '\n'])
                .then(|| "the value is one that no request can have".to_owned()),
        };
        Some((format!("{list}[{i}].value"), reason?))
    })
}

/// Longest method whose service is left open: templates of Envoy have at most 256 characters, of
/// which three stand for the service.
const METHOD_CHARS_MAX: usize = 253;

fn path_defect(path: &PathMatch) -> Option<String> {
    match path {
        PathMatch::Regex(text) => regex::check(text).err(),
        PathMatch::Exact(text) | PathMatch::Prefix(text) => {
            let wrong = |c: char| matches!(c, '?' | '#') || c.is_ascii_control();
            (!text.starts_with('/') || text.contains(wrong))
                .then(|| "it is not an absolute path".to_owned())
        }
        PathMatch::AnyServiceMethod(name) => {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(fits) {
                return Some("it is not the name of a method".to_owned());
            }
            let long = name.len() > METHOD_CHARS_MAX;
            long.then(|| format!("without a service it has at most {METHOD_CHARS_MAX} characters"))
        }
    }
}

/// `ReplacePrefixMatch` has nothing to replace where a path is matched by an expression.
fn prefix_defect(rule: &HttpRule) -> Option<RuleDefect> {
    let shaped = |m: &HttpMatch| {
        matches!(
            m.path,
            Some(PathMatch::Regex(_) | PathMatch::AnyServiceMethod(_))
        )
    };
    let index = rule.filters.iter().position(|filter| {
        let path = match filter {
            RouteFilter::Redirect(redirect) => &redirect.path,
            RouteFilter::Rewrite(rewrite) => &rewrite.path,
            _ => return false,
        };
        matches!(path, Some(PathModifier::Prefix(_)))
    })?;
    rule.matches.iter().any(shaped).then(|| {
        let reason = "ReplacePrefixMatch works with matches of type PathPrefix only".to_owned();
        (format!("filters[{index}]"), "route-filter-invalid", reason)
    })
}
