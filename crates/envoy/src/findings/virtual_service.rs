//! Stage `findings::virtual_service`: what of a VirtualService has no effect at waypoints or
//! another one than it says. Source: spec/policy-and-traffic.md §10.5.

mod destinations;
mod order;
mod rules;

use flow::{Output, Reads, View};
use model::input::{Gateway, VirtualService};
use model::{
    Finding, Kind, MeshRow, ObjectKey, ObjectRef, Parsed, ServiceRow, Severity, Str, WaypointRow,
};

use crate::attachment::mesh_row;
use crate::index::ServiceByHostname;
use crate::route_configs::RouteTables;
use crate::routes::Site;
use crate::traffic::host_rank;
use crate::virtual_services::{Refusal, bad_matches, full_name, is_of_mesh, refusal, rule_defect};

/// Primary: a VirtualService.
pub type P = ObjectKey;

/// Most services of one VirtualService that are looked at: wildcard hosts can have any number.
const SITES_COUNT_MAX: usize = 50;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct VirtualServiceFindingView<'t> {
    /// What routes are made of.
    pub tables: RouteTables<'t>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Gateways.
    pub gateways: View<'t, ObjectKey, Parsed<Gateway>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(
    p: &P,
    view: &VirtualServiceFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    let Some(parsed) = view.tables.virtual_services.get(reads, p) else {
        return Output::gone();
    };
    let Some(spec) = parsed.ok() else {
        return Output::none();
    };
    let mesh = &*mesh_row(view.mesh, reads);
    let mut report = Report {
        view,
        mesh,
        key: p,
        spec,
        out: Vec::new(),
    };
    report.values();
    report.gateways(reads);
    if is_of_mesh(&spec.gateways) {
        let bound = report.hosts(reads);
        let sites: Vec<_> = bound
            .iter()
            .map(|(service, waypoint)| Site {
                service,
                waypoint,
                mesh,
            })
            .collect();
        if !sites.is_empty() {
            report.rules(&sites);
            report.destinations(reads, &sites);
            report.order(reads, &sites);
        }
    }
    let mut out = report.out;
    out.sort();
    out.dedup_by(|a, b| a.code == b.code && a.field == b.field);
    Output::new(Vec::new(), out)
}

/// A service and its waypoint.
type Bound<'t> = (&'t ServiceRow, &'t WaypointRow);

struct Report<'a, 't> {
    view: &'a VirtualServiceFindingView<'t>,
    mesh: &'a MeshRow,
    key: &'a ObjectKey,
    spec: &'t VirtualService,
    out: Vec<Finding>,
}

impl<'t> Report<'_, 't> {
    fn push(
        &mut self,
        code: &'static str,
        severity: Severity,
        at: impl Into<Str>,
        what: impl Into<Str>,
        fix: impl Into<Str>,
    ) {
        let object = ObjectRef::new(Kind::VirtualService, self.key.clone());
        let finding = Finding::new(code, severity, object, what, fix);
        self.out.push(finding.at(at));
    }

    /// Values that Envoy could not be told.
    fn values(&mut self) {
        for found in bad_matches(self.spec) {
            let what = format!("This match is left out, the others apply: {}", found.reason);
            let fix = "Correct the expression";
            self.push("vs-regex-invalid", Severity::Error, found.field, what, fix);
        }
        for (i, rule) in self.spec.http.iter().enumerate() {
            if let Some(found) = rule_defect(rule) {
                let what = format!(
                    "This rule cannot be applied, so what it matches is answered with status 500: {}",
                    found.reason
                );
                let at = format!("spec.http[{i}].{}", found.field);
                let fix = "Correct the field";
                self.push("vs-rule-invalid", Severity::Error, at, what, fix);
            }
        }
    }

    /// Gateways other than the mesh: none is served by this version.
    fn gateways(&mut self, reads: &mut Reads) {
        let spec = self.spec;
        for (i, gateway) in spec.gateways.iter().enumerate() {
            if gateway == "mesh" {
                continue;
            }
            let own = || (self.key.ns.as_str(), gateway.as_str());
            let (ns, name) = gateway.split_once('/').unwrap_or_else(own);
            let key = ObjectKey::new(ns, name);
            let at = format!("spec.gateways[{i}]");
            if self.view.gateways.get(reads, &key).is_some() {
                let what = format!(
                    "{key} is a Gateway of Gateway API, to which no VirtualService can be attached, so nothing of it applies there"
                );
                let fix = "Use an HTTPRoute with that Gateway as its parent";
                self.push("vs-gateway-api-name", Severity::Warning, at, what, fix);
            } else {
                let what = format!(
                    "There is no Gateway {name} in namespace {ns} that this version serves, so nothing applies there"
                );
                let fix = "Use a Gateway of Gateway API and an HTTPRoute, or the gateway mesh";
                self.push("vs-gateway-unknown", Severity::Warning, at, what, fix);
            }
        }
    }

    /// The services behind waypoints for which this VirtualService is consulted; tells of hosts
    /// without any.
    fn hosts(&mut self, reads: &mut Reads) -> Vec<Bound<'t>> {
        let mut out: Vec<Bound<'t>> = Vec::new();
        let spec = self.spec;
        for (i, host) in spec.hosts.iter().enumerate() {
            let at = format!("spec.hosts[{i}]");
            let full = full_name(host, &self.key.ns, &self.mesh.domain);
            let services = self.services(reads, &full);
            if services.is_empty() {
                let what = if full == *host {
                    format!("Host {host} is that of no Service and no ServiceEntry; it is ignored")
                } else {
                    format!("Host {host} stands for {full}, which is no Service; it is ignored")
                };
                let fix = "Correct the host, or write the full name of the service";
                self.push("vs-host-unknown", Severity::Warning, at, what, fix);
                continue;
            }
            let mut bound = Vec::new();
            for service in &services {
                let of = service.waypoint.as_ref();
                let row = of.and_then(|of| self.view.waypoints.get(reads, &of.key));
                bound.extend(row.map(|row| (*service, &**row)));
            }
            if bound.is_empty() {
                self.without_waypoint(&at, &services);
                continue;
            }
            out.extend(self.consulted(&at, &bound));
        }
        out.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        out.dedup_by(|(a, _), (b, _)| a.key == b.key);
        out.truncate(SITES_COUNT_MAX);
        out
    }

    /// The services of a host, wildcards on either side.
    fn services(&self, reads: &mut Reads, host: &str) -> Vec<&'t ServiceRow> {
        let table = self.view.tables.services;
        if host.starts_with('*') {
            let all = table.scan(reads);
            let fitting = all.filter(|(key, _)| host_rank(host, &key.hostname).is_some());
            let mut out: Vec<_> = fitting.map(|(_, row)| &**row).collect();
            out.sort_by(|a, b| a.key.cmp(&b.key));
            return out;
        }
        let mut out: Vec<&'t ServiceRow> = Vec::new();
        let mut wanted = vec![host.to_owned()];
        let dots = host.match_indices('.');
        wanted.extend(dots.filter_map(|(at, _)| Some(format!("*{}", host.get(at..)?))));
        for name in wanted {
            let found = table.by::<ServiceByHostname>(reads, &name);
            out.extend(found.map(|(_, row)| &**row));
        }
        out
    }

    fn without_waypoint(&mut self, at: &str, services: &[&ServiceRow]) {
        let Some(service) = services.first() else {
            return;
        };
        let refused = if services.iter().any(|service| service.blocked.is_some()) {
            "; its traffic is refused until the waypoint that it names can be used"
        } else {
            ""
        };
        let what = format!(
            "{} {} has no waypoint, so nobody consults this VirtualService{refused}",
            service.source.kind, service.source.key
        );
        let fix = "Label the service with istio.io/use-waypoint";
        self.push("vs-no-waypoint", Severity::Warning, at, what, fix);
    }

    /// The services of a host for which it is consulted; tells why when there is none.
    fn consulted(&mut self, at: &str, bound: &[Bound<'t>]) -> Vec<Bound<'t>> {
        let mut out = Vec::new();
        let mut refused = Vec::new();
        for &(service, waypoint) in bound {
            let site = Site {
                service,
                waypoint,
                mesh: self.mesh,
            };
            match refusal(self.spec, &self.key.ns, &site) {
                Some(reason) => refused.push((reason, service, waypoint)),
                None => out.push((service, waypoint)),
            }
        }
        if out.is_empty() {
            for (reason, service, waypoint) in refused {
                self.refused(at, reason, service, waypoint);
            }
        }
        let foreign = out
            .iter()
            .find(|(service, _)| service.key.ns != self.key.ns);
        if let Some((service, waypoint)) = foreign {
            let what = format!(
                "{} belongs to namespace {}; this VirtualService applies to it because it lives in the namespace of its waypoint {}",
                service.key.hostname, service.key.ns, waypoint.key
            );
            let fix = "Move it to the namespace of the service, unless that is what you want";
            self.push("host-foreign-namespace", Severity::Info, at, what, fix);
        }
        out
    }

    fn refused(&mut self, at: &str, reason: Refusal, service: &ServiceRow, waypoint: &WaypointRow) {
        let (host, own) = (&service.key.hostname, &service.key.ns);
        let home = &waypoint.key.ns;
        match reason {
            Refusal::ForeignNamespace => {
                let what = format!(
                    "Waypoint {} does not consult it for {host}: a VirtualService must be in the namespace of the service ({own}) or of the waypoint ({home})",
                    waypoint.key
                );
                let fix = "Move it to one of those namespaces";
                self.push("vs-foreign-namespace", Severity::Warning, at, what, fix);
            }
            Refusal::NotExported => {
                let what = format!(
                    "exportTo hides it from namespace {home}, where waypoint {} of {host} is, so it is not consulted",
                    waypoint.key
                );
                let fix = format!("Add {home} to exportTo");
                self.push("vs-not-exported", Severity::Warning, at, what, fix);
            }
            Refusal::ForeignHost => {
                let what = format!(
                    "{host} belongs to namespace {own}, and hosts of other namespaces may not be claimed here (--allow-foreign-hosts=false), so it is not applied"
                );
                let fix = format!("Move it to namespace {own}");
                self.push("host-foreign-namespace", Severity::Error, at, what, fix);
            }
        }
    }
}
