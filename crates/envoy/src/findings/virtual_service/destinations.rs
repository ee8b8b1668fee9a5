//! Destinations and delegates that lead nowhere, or elsewhere than they seem to.

use flow::Reads;
use model::Severity;
use model::input::Destination;

use super::Report;
use crate::attachment::waypoints_of;
use crate::routes::Site;
use crate::traffic::{Seen, TrafficTables, subset_exists};
use crate::virtual_services::{Applied, find, full_name, port_of, rules};

impl Report<'_, '_> {
    /// Destinations of all rules, at the services for which they are consulted.
    pub(super) fn destinations(&mut self, reads: &mut Reads, sites: &[Site<'_>]) {
        let applied = Applied {
            key: self.key,
            spec: self.spec,
        };
        let table = self.view.tables.virtual_services;
        let (rules, lost) = rules(&applied, table, reads, self.mesh);
        for lost in lost {
            let what = format!(
                "Delegate {} does not contribute all of its rules here: {}; requests fall to later rules or get 404",
                lost.delegate, lost.reason
            );
            let at = format!("spec.http[{}].delegate", lost.index);
            let fix = "Correct its name, namespace, exportTo or matches";
            self.push("vs-delegate-missing", Severity::Error, at, what, fix);
        }
        let mut all = Vec::new();
        for rule in &rules {
            let at = format!("spec.http[{}]", rule.index);
            let delegated = self
                .spec
                .http
                .get(rule.index)
                .is_some_and(|root| root.delegate.is_some());
            let place = |part: String| {
                if delegated {
                    format!("{at}.delegate")
                } else {
                    format!("{at}.{part}")
                }
            };
            for (j, to) in rule.http.routes.iter().enumerate() {
                let used = rule.http.routes.len() == 1 || to.weight > 0;
                let at = place(format!("route[{j}].destination"));
                all.extend(used.then(|| (at, rule.ns.clone(), to.destination.clone())));
            }
            for (j, mirror) in rule.http.mirrors.iter().enumerate() {
                let at = place(format!("mirrors[{j}].destination"));
                all.push((at, rule.ns.clone(), mirror.destination.clone()));
            }
        }
        for (list, part) in [(&self.spec.tls, "tls"), (&self.spec.tcp, "tcp")] {
            for (i, rule) in list.iter().enumerate() {
                for (j, to) in rule.routes.iter().enumerate() {
                    let at = format!("spec.{part}[{i}].route[{j}].destination");
                    all.push((at, self.key.ns.clone(), to.destination.clone()));
                }
            }
        }
        for (at, ns, to) in all {
            for site in sites {
                self.destination(reads, site, &at, &ns, &to);
            }
        }
    }

    fn destination(
        &mut self,
        reads: &mut Reads,
        site: &Site<'_>,
        at: &str,
        ns: &str,
        to: &Destination,
    ) {
        let tables = self.view.tables;
        let host = full_name(&to.host, ns, &self.mesh.domain);
        let Some(service) = find(site, tables.services, reads, ns, &host) else {
            let what = format!(
                "Destination {host} is no service that namespace {} sees; its share is answered with 503",
                site.waypoint.key.ns
            );
            let fix = "Correct the host, or export the service to that namespace";
            let at = format!("{at}.host");
            self.push("vs-destination-unknown", Severity::Error, at, what, fix);
            return;
        };
        // A service has no port of its own here when the listener's is meant.
        let listener = site.service.ports.first().map_or(0, |row| row.port);
        let port = port_of(to, Some(service), listener);
        let has = |port: u16| service.ports.iter().any(|row| row.port == port);
        let ports = site.service.ports.iter();
        let by_listener = to.port.is_none() && service.ports.len() != 1;
        let by_any = by_listener && ports.clone().any(|row| has(row.port));
        if !has(port) && !by_any {
            let what = format!("{host} has no port {port}; its share is answered with 503");
            let fix = "Set port.number to a port of the service";
            let at = format!("{at}.port");
            self.push("vs-destination-unknown", Severity::Error, at, what, fix);
        }
        let rules = TrafficTables {
            destination_rules: tables.destination_rules,
        };
        let seen = Seen::from(&site.waypoint.key, service, self.mesh);
        if !subset_exists(rules, reads, &seen, &to.subset) {
            let what = format!(
                "No DestinationRule that applies here defines subset {} of {host}; its share is answered with 503",
                to.subset
            );
            let fix = "Define the subset, or correct its name";
            let at = format!("{at}.subset");
            self.push("vs-subset-unknown", Severity::Error, at, what, fix);
        }
        let mut owners = waypoints_of(service);
        if let Some(other) = &service.waypoint
            && !owners.any(|owner| *owner == site.waypoint.key)
        {
            let what = format!(
                "{host} is behind waypoint {}, which traffic that waypoint {} sends there does not pass: its policies are skipped",
                other.key, site.waypoint.key
            );
            let fix = "Bind both services to one waypoint";
            self.push("vs-destination-not-owned", Severity::Warning, at, what, fix);
        }
    }
}
