//! Whether what a route refers to exists and may be used. Source: spec/gateway-api.md §4.3.

use flow::Reads;
use model::Kind;
use model::input::{BackendRef, HttpRoute, L4Route, RouteFilter, RouteRef};

use crate::routes::{
    Backend, Referrer, RouteTables, defect, is_backend, l4_defect, mirror_defect, resolve,
};

/// The rules of a route.
#[derive(Clone, Copy)]
pub(super) enum Rules<'t> {
    /// HTTPRoute, GRPCRoute.
    Requests(&'t HttpRoute),
    /// TCPRoute, TLSRoute.
    Connections(&'t L4Route),
}

/// What became of the references.
pub(super) enum Refs {
    /// All is well.
    Resolved,
    /// Reason and message.
    Unresolved(&'static str, String),
}

/// Reason and message of a reference that leads nowhere.
type Broken = (&'static str, String);

impl Refs {
    /// A hard error decides alone; else the last rule with an error does, where backends come
    /// before mirrors. The message holds them all.
    pub(super) fn of(
        rules: Rules<'_>,
        referrer: &Referrer<'_>,
        tables: &RouteTables<'_>,
        reads: &mut Reads,
    ) -> Self {
        let hard = match rules {
            Rules::Requests(route) => defect(referrer.ns, route),
            Rules::Connections(route) => l4_defect(referrer.ns, route),
        };
        if let Some(found) = hard {
            let message = format!("No rule applies: {}: {}", found.field, found.reason);
            return Self::Unresolved(reason_of(found.code), message);
        }
        let mut look = Look {
            referrer,
            tables,
            reads,
        };
        let broken: Vec<Broken> = match rules {
            Rules::Requests(route) => route
                .rules
                .iter()
                .enumerate()
                .filter_map(|(i, rule)| {
                    let backend = look.backends(i, &rule.backends);
                    joined(backend, look.mirrors(i, &rule.filters))
                })
                .collect(),
            Rules::Connections(route) => route
                .rules
                .iter()
                .enumerate()
                .filter_map(|(i, rule)| look.backends(i, &rule.backends))
                .collect(),
        };
        let Some((reason, _)) = broken.last() else {
            return Self::Resolved;
        };
        let voided = match rules {
            Rules::Requests(route) => mirror_defect(tables, reads, referrer, route).is_some(),
            Rules::Connections(_) => false,
        };
        let effect = if voided { "No rule applies: " } else { "" };
        let messages: Vec<&str> = broken.iter().map(|(_, text)| text.as_str()).collect();
        Self::Unresolved(reason, format!("{effect}{}", messages.join("; ")))
    }
}

/// The reason for a hard error.
fn reason_of(code: &str) -> &'static str {
    match code {
        "route-backend-invalid" => "InvalidDestination",
        "route-filter-invalid" | "route-filter-not-supported" => "InvalidFilter",
        _ => "InvalidConfiguration",
    }
}

/// Both in one, by the reason of the first.
fn joined(first: Option<Broken>, second: Option<Broken>) -> Option<Broken> {
    match (first, second) {
        (Some((reason, a)), Some((_, b))) => Some((reason, format!("{a}; {b}"))),
        (first, second) => first.or(second),
    }
}

struct Look<'a, 't> {
    referrer: &'a Referrer<'a>,
    tables: &'a RouteTables<'t>,
    reads: &'a mut Reads,
}

impl Look<'_, '_> {
    fn backends(&mut self, rule: usize, backends: &[BackendRef]) -> Option<Broken> {
        let mut out = None;
        for (i, backend) in backends.iter().enumerate() {
            let at = format!("spec.rules[{rule}].backendRefs[{i}]");
            out = joined_last(out, self.reference(&at, &backend.target));
        }
        out
    }

    fn mirrors(&mut self, rule: usize, filters: &[RouteFilter]) -> Option<Broken> {
        let mut out = None;
        for (i, filter) in filters.iter().enumerate() {
            if let RouteFilter::Mirror(mirror) = filter {
                let at = format!("spec.rules[{rule}].filters[{i}].requestMirror");
                out = joined_last(out, self.reference(&at, &mirror.target));
            }
        }
        out
    }

    fn reference(&mut self, at: &str, target: &RouteRef) -> Option<Broken> {
        let RouteRef { kind, ns, name, .. } = target;
        let found = resolve(self.tables, self.reads, self.referrer, target);
        let (reason, problem) = match found {
            Backend::Service(..) => return None,
            Backend::NotPermitted => (
                "RefNotPermitted",
                format!(
                    "no ReferenceGrant in namespace {ns} lets {} of namespace {} refer to {kind} {name}",
                    self.referrer.kind, self.referrer.ns
                ),
            ),
            Backend::Missing if !is_backend(target) => {
                let group = &target.group;
                (
                    "InvalidKind",
                    format!("{kind} of group {group:?} cannot be a backend"),
                )
            }
            Backend::Missing if kind == Kind::Service.as_str() => (
                "BackendNotFound",
                format!("{kind} {ns}/{name} does not exist"),
            ),
            Backend::Missing => ("BackendNotFound", format!("{kind} {name} does not exist")),
        };
        Some((reason, format!("{at}: {problem}")))
    }
}

/// Both in one, by the reason of the last.
fn joined_last(before: Option<Broken>, last: Option<Broken>) -> Option<Broken> {
    match (before, last) {
        (Some((_, a)), Some((reason, b))) => Some((reason, format!("{a}; {b}"))),
        (before, last) => last.or(before),
    }
}
