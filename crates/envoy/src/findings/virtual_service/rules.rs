//! Conditions that a waypoint does not evaluate, or not as they read.

use model::Severity;
use model::derived::PortRow;
use model::input::{VirtualL4, VirtualL4Match};

use super::Report;
use crate::attachment::port_chains;
use crate::routes::Site;

impl Report<'_, '_> {
    /// Matches of all rules, at the services for which they are consulted.
    pub(super) fn rules(&mut self, sites: &[Site<'_>]) {
        self.http_matches(sites);
        let spec = self.spec;
        for (rules, part) in [(&spec.tls, "tls"), (&spec.tcp, "tcp")] {
            for (i, rule) in rules.iter().enumerate() {
                self.l4_matches(sites, &format!("spec.{part}[{i}]"), rule, part == "tls");
            }
        }
        let http = |port: &PortRow| port_chains(port).is_some_and(|chains| chains.http());
        let opaque = sites
            .iter()
            .find(|site| !site.service.ports.iter().any(http));
        let all = sites
            .iter()
            .all(|site| !site.service.ports.iter().any(http));
        if let Some(site) = opaque.filter(|_| all && !spec.http.is_empty()) {
            let host = &site.service.key.hostname;
            let what = format!("No port of {host} is HTTP, so the rules of http are never used");
            let fix = "Set appProtocol: http on the port, or use rules of tcp";
            self.push("vs-http-on-tcp", Severity::Warning, "spec.http", what, fix);
        }
    }

    fn http_matches(&mut self, sites: &[Site<'_>]) {
        let spec = self.spec;
        for (i, rule) in spec.http.iter().enumerate() {
            for (j, m) in rule.matches.iter().enumerate() {
                let at = format!("spec.http[{i}].match[{j}]");
                self.port(sites, &at, m.port);
                if !m.gateways.is_empty() {
                    continue;
                }
                if !m.source_labels.is_empty() {
                    let what =
                        "Waypoints know no labels of their clients, so this match is skipped";
                    let fix = "Match a header, or use an AuthorizationPolicy";
                    let at = format!("{at}.sourceLabels");
                    self.push("vs-source-labels", Severity::Warning, at, what, fix);
                }
                self.source_namespace(sites, &at, &m.source_namespace, "vs-source-namespace");
            }
        }
    }

    /// A port that no service has.
    fn port(&mut self, sites: &[Site<'_>], at: &str, port: Option<u16>) {
        let Some(port) = port else { return };
        let known = sites
            .iter()
            .any(|site| site.service.ports.iter().any(|row| row.port == port));
        if let Some(site) = sites.first().filter(|_| !known) {
            let host = &site.service.key.hostname;
            let what = format!("{port} is no port of {host}, so this match is never selected");
            let fix = "Use the port of the service, not that of its pods";
            let at = format!("{at}.port");
            self.push("vs-port-mismatch", Severity::Warning, at, what, fix);
        }
    }

    fn source_namespace(&mut self, sites: &[Site<'_>], at: &str, ns: &str, code: &'static str) {
        let Some(site) = sites.first().filter(|_| !ns.is_empty()) else {
            return;
        };
        let home = &site.waypoint.key.ns;
        let effect = if ns == *home {
            "always met"
        } else {
            "never met"
        };
        let what = format!(
            "sourceNamespace is compared with the namespace of the waypoint ({home}), not with that of the client, so it is {effect}"
        );
        let fix = "Remove it, and use an AuthorizationPolicy to tell clients apart";
        let at = format!("{at}.sourceNamespace");
        self.push(code, Severity::Warning, at, what, fix);
    }

    fn l4_matches(&mut self, sites: &[Site<'_>], at: &str, rule: &VirtualL4, tls: bool) {
        for (j, m) in rule.matches.iter().enumerate() {
            let at = format!("{at}.match[{j}]");
            self.port(sites, &at, m.port);
            self.l4_ignored(sites, &at, m);
            let named = |site: &Site<'_>| matches!(m.sni_hosts.as_slice(), [only] if *only == site.service.key.hostname);
            if let Some(site) = sites.first().filter(|_| tls && !sites.iter().any(named)) {
                let host = &site.service.key.hostname;
                let what = format!(
                    "A waypoint follows a rule of tls only if its sniHosts are exactly [{host}], so this match is ignored"
                );
                let fix = format!("Write sniHosts: [{host}], or use a rule of tcp");
                let at = format!("{at}.sniHosts");
                self.push("vs-sni-mismatch", Severity::Warning, at, what, fix);
            }
        }
    }

    fn l4_ignored(&mut self, sites: &[Site<'_>], at: &str, m: &VirtualL4Match) {
        let ignored = [
            ("destinationSubnets", m.destination_subnets.is_empty()),
            ("sourceSubnet", m.source_subnet.is_empty()),
        ];
        for (field, absent) in ignored {
            if !absent {
                let what =
                    format!("{field} is not evaluated at waypoints: the rule applies to all");
                let at = format!("{at}.{field}");
                self.push(
                    "vs-l4-match-ignored",
                    Severity::Warning,
                    at,
                    what,
                    "Remove it",
                );
            }
        }
        if !m.gateways.is_empty() {
            return;
        }
        if !m.source_labels.is_empty() {
            let what = "Waypoints know no labels of their clients, so this match is skipped";
            let at = format!("{at}.sourceLabels");
            self.push(
                "vs-l4-match-ignored",
                Severity::Warning,
                at,
                what,
                "Remove it",
            );
        }
        self.source_namespace(sites, at, &m.source_namespace, "vs-l4-match-ignored");
    }
}
