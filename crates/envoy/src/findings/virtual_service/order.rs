//! Which rules are reached at all, and what happens to requests that none matches.

use std::collections::{BTreeMap, BTreeSet};

use flow::Reads;
use model::{ObjectKey, Severity};

use super::Report;
use crate::attachment::port_chains;
use crate::ir::RouteIr;
use crate::routes::{self, Site};
use crate::virtual_services::{admits, applied, catches_all, entry, rules};

/// Most routes that a route is compared with, to tell that it is one of them again.
const COMPARED_COUNT_MAX: usize = 1_000;

/// Most names of other objects in one message.
const NAMES_COUNT_MAX: usize = 10;

/// What was seen of the rules of the VirtualService at all ports.
#[derive(Default)]
struct Order {
    /// Whether some match of a rule is ever reached, for rules with a match for some port.
    reached: BTreeMap<usize, bool>,
    /// Somebody else's routes decide: what they are called, and where.
    decided: Option<(String, String)>,
    /// Hosts and ports whose requests can go unmatched.
    open: BTreeSet<String>,
    /// Further VirtualServices for the same hosts.
    others: BTreeSet<ObjectKey>,
}

impl Report<'_, '_> {
    /// The order of rules, with those of other objects for the same services.
    pub(super) fn order(&mut self, reads: &mut Reads, sites: &[Site<'_>]) {
        let mut order = Order::default();
        for site in sites {
            let mut seen = BTreeSet::new();
            for port in &site.service.ports {
                let http = port_chains(port).is_some_and(|chains| chains.http());
                if seen.insert(port.port) && http {
                    self.at_port(reads, site, port.port, &mut order);
                }
            }
        }
        for (index, reached) in &order.reached {
            if !reached {
                let what = "This rule is never reached: what it matches is taken by rules before it or by other routes";
                let at = format!("spec.http[{index}]");
                let fix = "Put it before them, or remove it";
                self.push("vs-shadowed-route", Severity::Warning, at, what, fix);
            }
        }
        if let Some((route, host)) = order.decided {
            let what = format!(
                "{route} and VirtualService {} both route {host}; {route} decides, VirtualService {} is not applied",
                self.key, self.key
            );
            let fix = "Keep one of them";
            self.push(
                "vs-and-httproute",
                Severity::Warning,
                "spec.hosts",
                what,
                fix,
            );
        }
        if let Some(host) = order.open.first() {
            let what = format!("Requests to {host} that no rule matches are answered with 404");
            let fix = "Add a last rule without match";
            self.push(
                "vs-no-fallthrough",
                Severity::Warning,
                "spec.http",
                what,
                fix,
            );
        }
        if !order.others.is_empty() {
            let shown = order.others.iter().take(NAMES_COUNT_MAX);
            let mut names: Vec<_> = shown.map(ToString::to_string).collect();
            let more = order.others.len().saturating_sub(NAMES_COUNT_MAX);
            if more > 0 {
                names.push(format!("{more} more"));
            }
            let what = format!(
                "Other VirtualServices have the same host: {}; their rules stand one after the other, private ones first, then older ones",
                names.join(", ")
            );
            let fix = "Put all rules of a host into one VirtualService";
            self.push(
                "vs-conflicting-hosts",
                Severity::Warning,
                "spec.hosts",
                what,
                fix,
            );
        }
    }

    fn at_port(&self, reads: &mut Reads, site: &Site<'_>, port: u16, order: &mut Order) {
        let tables = &self.view.tables;
        let host = format!("{}:{port}", site.service.key.hostname);
        let other = if routes::has_any(site, tables, reads, port) {
            let all = routes::for_port(site, tables, reads, port, &site.service.key.hostname);
            all.routes.into_iter().find_map(|route| route.origin)
        } else {
            None
        };
        if let Some(route) = &other {
            let name = format!("{} {}", route.kind, route.key);
            order.decided.get_or_insert((name, host.clone()));
        }
        let (mut before, mut ended): (Vec<RouteIr>, bool) = (Vec::new(), other.is_some());
        let mut contributes = false;
        for one in applied(site, tables.virtual_services, reads) {
            let own = one.key == self.key;
            if !own && !self.spec.http.is_empty() && !one.spec.http.is_empty() {
                order.others.insert(one.key.clone());
            }
            let mut own_end = false;
            for rule in &rules(&one, tables.virtual_services, reads, self.mesh).0 {
                for m in rule.matches().filter(|m| admits(m, site, port)) {
                    let sink = &mut BTreeSet::new();
                    let made = entry(site, tables, reads, rule, (m, port), sink);
                    let shut = ended || own_end || before.iter().any(|b| same(b, &made));
                    if own {
                        contributes = true;
                        *order.reached.entry(rule.index).or_default() |= !shut;
                    }
                    own_end |= catches_all(&made);
                    if before.len() < COMPARED_COUNT_MAX {
                        before.push(made);
                    }
                }
            }
            ended |= own_end;
        }
        if contributes && !ended {
            order.open.insert(host);
        }
    }
}

/// Whether two routes match the same requests by their form.
fn same(a: &RouteIr, b: &RouteIr) -> bool {
    a.path == b.path
        && a.ignore_case == b.ignore_case
        && a.headers == b.headers
        && a.query == b.query
        && a.claims == b.claims
}
