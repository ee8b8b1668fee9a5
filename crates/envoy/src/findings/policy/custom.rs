//! CUSTOM policies whose authorizer cannot be asked, or not as expected.
//! Source: spec/policy-and-traffic.md §1.8, §10.1.

use std::collections::BTreeSet;

use flow::Reads;
use model::input::{Action, JwtRule};
use model::{ServiceRow, Severity, Str, WaypointRow};

use super::{Reached, Report};
use crate::attachment::port_chains;
use crate::authn;
use crate::authz::{self, Asked};
use crate::index::{PolicyByTarget, Target};
use crate::ir::StrMatch;

const AT: &str = "spec.provider";

impl Report<'_, '_> {
    /// One finding: the first reason why its authorizer is not asked, or what it should know.
    pub(super) fn custom(&mut self, reads: &mut Reads, reached: &[Reached<'_>]) {
        if self.policy.action != Action::Custom {
            return;
        }
        let name = self.policy.provider.clone().unwrap_or_default();
        let asked = authz::authorizer(&name, self.mesh, self.view.services, reads);
        let asked = match asked {
            Ok(asked) => asked,
            Err(reason) => {
                let what = format!(
                    "Provider {name:?}: {reason}; every request that the rules match is refused"
                );
                let fix = "Correct extensionProviders of mesh config, or name another provider";
                self.push("authz-custom-provider", Severity::Error, AT, what, fix);
                return;
            }
        };
        let bound: Vec<_> = self.bound(reads, reached);
        if self.many(reads, &name, &bound) {
            return;
        }
        self.only_http(&asked, reached);
        self.before_tokens(reads, &asked, &bound);
    }

    /// Targets of the chains that the policy reaches, with what they are called.
    fn bound(&self, reads: &mut Reads, reached: &[Reached<'_>]) -> Vec<(Str, Vec<Target>)> {
        let mut out = Vec::new();
        for Reached { service, .. } in reached {
            if let Some(waypoint) = self.waypoint_of(reads, service) {
                let targets = authz::targets(self.mesh, waypoint, Some(service));
                out.push((service.key.hostname.clone(), targets));
            }
        }
        out
    }

    pub(super) fn waypoint_of(
        &self,
        reads: &mut Reads,
        service: &ServiceRow,
    ) -> Option<&'_ WaypointRow> {
        let bound = service.waypoint.as_ref()?;
        let row = self.view.waypoints.get(reads, &bound.key)?;
        Some(row)
    }

    /// Other providers on the same chain, where only one may be.
    fn many(&mut self, reads: &mut Reads, name: &Str, bound: &[(Str, Vec<Target>)]) -> bool {
        if self.mesh.features.many_authorizers {
            return false;
        }
        for (host, targets) in bound {
            let mut others = BTreeSet::new();
            for target in targets {
                for (_, row) in self.view.policies.by::<PolicyByTarget>(reads, target) {
                    let custom = row.ok().filter(|policy| policy.action == Action::Custom);
                    others.extend(custom.and_then(|policy| policy.provider.clone()));
                }
            }
            others.remove(name);
            if let Some(other) = others.first() {
                let what = format!(
                    "{host} has CUSTOM policies of {name} and {other} and only one provider is possible; every request that the rules match is refused there"
                );
                let fix = "Use one provider, or switch several on";
                let code = "authz-custom-many-providers";
                self.push(code, Severity::Error, AT, what, fix);
                return true;
            }
        }
        false
    }

    /// An authorizer that speaks HTTP on a port that does not.
    fn only_http(&mut self, asked: &Asked, reached: &[Reached<'_>]) {
        if asked.filter.http.is_none() {
            return;
        }
        let bound = reached.iter().map(|reached| reached.service);
        let mut ports = bound
            .filter(|service| service.waypoint.is_some())
            .flat_map(|service| service.ports.iter().map(move |port| (service, port)));
        let opaque = ports.find(|(_, port)| port_chains(port).is_some_and(|chains| chains.tcp()));
        let Some((service, port)) = opaque else {
            return;
        };
        let what = format!(
            "Provider {} speaks HTTP and cannot be asked about connections of port {} of {}; those that the rules match, HTTP conditions left out, are refused",
            asked.filter.provider, port.port, service.key.hostname
        );
        let fix = "Use a gRPC provider, or set appProtocol of the port";
        let code = "authz-custom-http-on-tcp";
        self.push(code, Severity::Error, AT, what, fix);
    }

    /// Tokens are looked at after the authorizer was asked, which then misses what they say.
    fn before_tokens(&mut self, reads: &mut Reads, asked: &Asked, bound: &[(Str, Vec<Target>)]) {
        let table = self.view.authentications;
        let missed = bound.iter().find_map(|(host, targets)| {
            let attached = authn::attached(table, reads, targets).into_iter();
            let rules = attached
                .filter_map(|row| row.ok())
                .flat_map(|spec| &spec.rules);
            let mut headers = rules.flat_map(written_headers);
            let header = headers.find(|header| sees(asked, header))?;
            Some((host, header))
        });
        let Some((host, header)) = missed else {
            return;
        };
        let what = format!(
            "The authorizer is asked before tokens for {host} are verified, so header {header} that it is given holds no claims yet"
        );
        let fix = "Let the authorizer verify tokens itself";
        let code = "authz-custom-before-jwt";
        self.push(code, Severity::Info, AT, what, fix);
    }
}

/// Headers that a rule fills from a verified token.
fn written_headers(rule: &JwtRule) -> impl Iterator<Item = &Str> {
    let payload = Some(&rule.payload_header).filter(|header| !header.is_empty());
    payload
        .into_iter()
        .chain(rule.claim_headers.iter().map(|(header, _)| header))
}

/// Whether the authorizer is given a header; gRPC gives it all of them.
fn sees(asked: &Asked, header: &Str) -> bool {
    let header = header.to_ascii_lowercase();
    let Some(http) = &asked.filter.http else {
        return true;
    };
    http.request_headers.iter().any(|wanted| match wanted {
        StrMatch::Exact(text) => header == text.to_ascii_lowercase(),
        StrMatch::Prefix(text) => header.starts_with(&text.to_ascii_lowercase()),
        StrMatch::Suffix(text) => header.ends_with(&text.to_ascii_lowercase()),
        StrMatch::Contains(text) => header.contains(&text.to_ascii_lowercase()),
        StrMatch::Present => true,
    })
}
