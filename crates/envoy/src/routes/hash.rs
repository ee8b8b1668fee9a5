//! Keys of consistent hashing that routes carry. Source: spec/envoy-config.md §5.1, §5.2.

use flow::Reads;
use model::ServiceRow;
use model::input::HashKey;

use super::{At, RouteTables, Site};
use crate::traffic::{self, TrafficTables};

/// Keys of a destination.
pub(super) fn of(
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    service: &ServiceRow,
    port: u16,
) -> Vec<HashKey> {
    keys(at, tables, reads, service, port, false)
}

/// Keys of the default route, which looks at the policy for all ports alone.
pub(super) fn of_default(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
) -> Vec<HashKey> {
    keys(site.at(), tables, reads, site.service, port, true)
}

fn keys(
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    service: &ServiceRow,
    port: u16,
    only_top_level: bool,
) -> Vec<HashKey> {
    let rules = TrafficTables {
        destination_rules: tables.destination_rules,
    };
    let seen = at.seen(service);
    traffic::hash_of(rules, reads, &seen, (port, ""), only_top_level)
}
