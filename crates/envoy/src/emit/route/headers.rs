//! Changes of headers. Source: spec/envoy-config.md §5.4, spec/gateway-api.md §6.3.
//!
//! Envoy applies what a weighted destination says before what the route says, whatever
//! `most_specific_header_mutations_wins` is, while ours are to come after. So there is only
//! ever one level: the edits of both are joined at the destinations where one of them has any,
//! and at the route otherwise. Within a level Envoy removes first and adds then.

use core::header_value_option::HeaderAppendAction as Append;
use envoy_types::pb::envoy::config::core::v3 as core;
use model::Str;
use model::input::HeaderEdits;

use super::super::format;
use crate::ir::{RouteAction, RouteIr, WeightedCluster};

/// What one level of Envoy has: additions in order, and removals.
type Level = (Vec<core::HeaderValueOption>, Vec<String>);

/// How a value is read.
#[derive(Clone, Copy)]
enum Reading {
    /// As it stands.
    Literal,
    /// With the command operators of Envoy that it may hold.
    Format,
}

/// The edits of a route and of its destinations, put where they work.
pub(super) struct Levels<'a> {
    route: &'a RouteIr,
    clusters: &'a [WeightedCluster],
    reading: Reading,
}

/// Which edits go where. Values of Gateway API are literal.
pub(super) fn levels(ir: &RouteIr) -> Levels<'_> {
    let literal = ir
        .origin
        .as_ref()
        .is_none_or(|object| object.kind != "VirtualService");
    Levels {
        route: ir,
        clusters: match &ir.action {
            RouteAction::Forward(to) => &to.clusters,
            RouteAction::Redirect(_) | RouteAction::Respond(..) => &[],
        },
        reading: if literal {
            Reading::Literal
        } else {
            Reading::Format
        },
    }
}

impl Levels<'_> {
    /// Of requests, at the route.
    pub(super) fn route_request(&self) -> Level {
        self.at_route(&self.route.request, |to| &to.request)
    }

    /// Of responses, at the route.
    pub(super) fn route_response(&self) -> Level {
        self.at_route(&self.route.response, |to| &to.response)
    }

    /// Of requests, at a destination of several.
    pub(super) fn cluster_request(&self, to: &WeightedCluster) -> Level {
        self.at_cluster(&self.route.request, |to| &to.request, to)
    }

    /// Of responses, at a destination of several.
    pub(super) fn cluster_response(&self, to: &WeightedCluster) -> Level {
        self.at_cluster(&self.route.response, |to| &to.response, to)
    }

    fn at_route(&self, own: &HeaderEdits, of: fn(&WeightedCluster) -> &HeaderEdits) -> Level {
        match self.clusters {
            [only] => self.join(own, of(only)),
            several if several.iter().all(|to| of(to).is_empty()) => {
                self.join(own, &HeaderEdits::default())
            }
            _ => Level::default(),
        }
    }

    fn at_cluster(
        &self,
        route: &HeaderEdits,
        of: fn(&WeightedCluster) -> &HeaderEdits,
        to: &WeightedCluster,
    ) -> Level {
        if self.clusters.iter().all(|to| of(to).is_empty()) {
            return Level::default();
        }
        self.join(route, of(to))
    }

    /// One after the other: what the second removes, the first need not add.
    fn join(&self, first: &HeaderEdits, second: &HeaderEdits) -> Level {
        let gone = |name: &Str| second.remove.iter().any(|r| r.eq_ignore_ascii_case(name));
        let kept = additions(first).filter(|(name, ..)| !gone(name));
        let add = kept
            .chain(additions(second))
            .filter(|(name, value, _)| usable(name, value))
            .map(|(name, value, action)| self.option(name, value, action))
            .filter(is_short)
            .collect();
        let mut remove: Vec<String> = Vec::new();
        for name in first.remove.iter().chain(&second.remove) {
            if usable(name, "") && !remove.iter().any(|r| r.eq_ignore_ascii_case(name)) {
                remove.push(name.to_string());
            }
        }
        (add, remove)
    }

    fn option(&self, name: &str, value: &str, action: Append) -> core::HeaderValueOption {
        let value = match self.reading {
            Reading::Literal => format::literal(value),
            Reading::Format => format::operators(value),
        };
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: name.into(),
                value,
                ..Default::default()
            }),
            append_action: action as i32,
            ..Default::default()
        }
    }
}

/// What is set, by name, then what is added, by name.
fn additions(edits: &HeaderEdits) -> impl Iterator<Item = (&Str, &Str, Append)> {
    fn sorted(list: &[(Str, Str)]) -> impl Iterator<Item = &(Str, Str)> {
        let mut list: Vec<&(Str, Str)> = list.iter().collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list.into_iter()
    }
    let (set, add) = (sorted(&edits.set), sorted(&edits.add));
    set.map(|(name, value)| (name, value, Append::OverwriteIfExistsOrAdd))
        .chain(add.map(|(name, value)| (name, value, Append::AppendIfExistsOrAdd)))
}

/// Whether Envoy takes the length of an entry; it refuses a whole route configuration for one.
fn is_short(option: &core::HeaderValueOption) -> bool {
    const BYTES_MAX: usize = 16_384;
    let header = option.header.as_ref();
    header.is_none_or(|header| header.key.len().max(header.value.len()) <= BYTES_MAX)
}

/// The last guard: Envoy refuses a whole route configuration for one entry that is not so.
fn usable(name: &str, value: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty()
        && name.bytes().all(token)
        && !name.eq_ignore_ascii_case("host")
        && !value.contains(['\0', '\r', '\n'])
}
