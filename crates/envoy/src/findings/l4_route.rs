//! Stages `findings::l4_route`: what of a TCPRoute or TLSRoute has no effect or another one.
//! Source: spec/gateway-api.md §5.6, §6.7; spec/policy-and-traffic.md §10.

use flow::{Output, Reads, View};
use model::input::{L4Route, RouteRef};
use model::{Finding, Kind, MeshRow, ObjectKey, ObjectRef, Parsed, Severity};

use crate::attachment::{chains_of, mesh_row};
use crate::findings::route::{
    RouteFindingView, idle_parent, is_listener_set, no_rules, unknown_parent,
};
use crate::index::{ServiceBySource, Target, TargetKind};
use crate::routes::{Backend, Grants, Referrer, l4_defect, resolve, sni_fits};

mod shadow;
mod twice;

/// Primary: a TCPRoute, or a TLSRoute.
pub type P = ObjectKey;

/// Findings about a TCPRoute as notes; the stage has no rows.
pub fn derive_tcp(
    p: &P,
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    report(Kind::TcpRoute, view.tables.tcp_routes, p, view, reads)
}

/// Findings about a TLSRoute, the same way.
pub fn derive_tls(
    p: &P,
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    report(Kind::TlsRoute, view.tables.tls_routes, p, view, reads)
}

fn report(
    kind: Kind,
    table: View<'_, ObjectKey, Parsed<L4Route>>,
    p: &P,
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    let Some(parsed) = table.get(reads, p) else {
        return Output::gone();
    };
    let Some(route) = parsed.ok() else {
        return Output::none();
    };
    let mut report = Report {
        view,
        kind,
        key: p,
        route,
        out: Vec::new(),
    };
    if let Some(found) = l4_defect(&p.ns, route) {
        let what = format!("No rule of this route applies: {}", found.reason);
        let fix = "Remove or correct it";
        report.push(found.code, Severity::Error, &found.field, what, fix);
    }
    if route.rules.is_empty() {
        report.out.push(no_rules(kind, p));
    }
    if route.rules.len() > 1 {
        let what = "Only the first rule of a route of connections applies".to_owned();
        let fix = "Remove the others";
        report.push(
            "route-rules-unused",
            Severity::Warning,
            "spec.rules",
            what,
            fix,
        );
    }
    let mut grants = Grants::Ignored;
    for (index, parent) in route.parents.iter().enumerate() {
        let at = format!("spec.parentRefs[{index}]");
        let object = ObjectKey::new(parent.ns.clone(), parent.name.clone());
        match TargetKind::of(&parent.group, &parent.kind) {
            Some(TargetKind::Gateway) => {
                grants = Grants::Checked;
                report.gateway(reads, index, &object);
            }
            Some(TargetKind::Service) => report.service(reads, &at, parent, Kind::Service),
            Some(TargetKind::ServiceEntry) => {
                report.service(reads, &at, parent, Kind::ServiceEntry);
            }
            None if is_listener_set(parent) => grants = Grants::Checked,
            Some(TargetKind::GatewayClass) | None => {
                report.out.push(unknown_parent(kind, p, index, parent));
            }
        }
    }
    let mesh = mesh_row(view.mesh, reads);
    report.backends(reads, &mesh, grants);
    report.out.extend(shadow::of((kind, p), view, reads));
    report.out.sort();
    report.out.dedup();
    Output::new(Vec::new(), report.out)
}

struct Report<'a, 't> {
    view: &'a RouteFindingView<'t>,
    kind: Kind,
    key: &'a ObjectKey,
    route: &'a L4Route,
    out: Vec<Finding>,
}

impl Report<'_, '_> {
    fn push(&mut self, code: &'static str, severity: Severity, at: &str, what: String, fix: &str) {
        let object = ObjectRef::new(self.kind, self.key.clone());
        let finding = Finding::new(code, severity, object, what, fix);
        self.out.push(finding.at(at));
    }

    /// A parent Gateway. Waypoints take no such route.
    fn gateway(&mut self, reads: &mut Reads, index: usize, object: &ObjectKey) {
        let kind = self.kind;
        let at = format!("spec.parentRefs[{index}]");
        let (code, severity, what, fix) = match self.view.waypoints.get(reads, object) {
            Some(found) if found.is_mesh_class() => (
                "route-tcp-gateway-waypoint",
                Severity::Warning,
                format!("Waypoint {object} takes no {kind}, so it has no effect there"),
                "Use the Service as parent",
            ),
            Some(found) => {
                let route = (kind, self.key.clone());
                self.out
                    .extend(idle_parent(&route, index, found, self.view, reads));
                return;
            }
            None => (
                "route-parent-missing",
                Severity::Error,
                format!("Gateway {object} does not exist, so this route reaches nothing"),
                "Correct the parent",
            ),
        };
        self.push(code, severity, &at, what, fix);
    }

    fn service(&mut self, reads: &mut Reads, at: &str, parent: &RouteRef, kind: Kind) {
        let target = Target::new(
            if kind == Kind::Service {
                TargetKind::Service
            } else {
                TargetKind::ServiceEntry
            },
            ObjectKey::new(parent.ns.clone(), parent.name.clone()),
        );
        let source = ObjectRef::new(kind, target.key.clone());
        let services = self.view.tables.services;
        let found: Vec<_> = services.by::<ServiceBySource>(reads, &source).collect();
        let name = format!("{kind} {}", target.key);
        if found.is_empty() {
            let what = format!("{name} does not exist, so this route reaches nothing");
            let fix = "Correct the parent";
            self.push("route-parent-missing", Severity::Error, at, what, fix);
            return;
        }
        let Some(bound) = found.iter().find_map(|(_, row)| row.waypoint.as_ref()) else {
            let what = format!("{name} has no waypoint, so this route is not applied");
            let fix = "Label it with istio.io/use-waypoint";
            self.push(
                "route-service-no-waypoint",
                Severity::Warning,
                at,
                what,
                fix,
            );
            return;
        };
        if self.key.ns != target.key.ns && self.key.ns != bound.key.ns {
            let what = format!(
                "The route is neither in the namespace of {name} nor in that of its waypoint {}, so it is not applied",
                bound.key
            );
            let fix = "Move it to one of those namespaces";
            self.push("route-foreign-namespace", Severity::Warning, at, what, fix);
            return;
        }
        let fits = |row: &model::ServiceRow| sni_fits(&self.route.hostnames, row);
        if self.kind == Kind::TlsRoute && !found.iter().any(|(_, row)| fits(row)) {
            let what = format!(
                "At a waypoint a TLSRoute counts without hostnames, or with just the host of {name}; this one is not applied"
            );
            let fix = "Remove hostnames";
            self.push(
                "route-sni-mismatch",
                Severity::Warning,
                "spec.hostnames",
                what,
                fix,
            );
        }
        let opaque = found.iter().any(|(_, row)| {
            let mut ports = row.ports.iter();
            ports.any(|port| {
                parent.port.is_none_or(|number| number == port.port)
                    && chains_of(row, port).is_some_and(|chains| chains.tcp())
            })
        });
        if !opaque {
            let what = format!(
                "No port of {name} that this is about carries plain connections, so the route is not applied"
            );
            let fix = "Use an HTTPRoute, or declare the port as TCP";
            self.push("route-tcp-on-http", Severity::Warning, at, what, fix);
        }
    }

    fn backends(&mut self, reads: &mut Reads, mesh: &MeshRow, grants: Grants) {
        let Some(rule) = self.route.rules.first() else {
            return;
        };
        for (i, backend) in rule.backends.iter().enumerate() {
            let target = &backend.target;
            let referrer = Referrer {
                kind: self.kind,
                ns: &self.key.ns,
                domain: &mesh.domain,
                grants,
            };
            let found = resolve(&self.view.tables, reads, &referrer, target);
            if found == Backend::NotPermitted {
                let what = format!(
                    "{} {}/{} is not permitted; its share of connections is closed",
                    target.kind, target.ns, target.name
                );
                let at = format!("spec.rules[0].backendRefs[{i}]");
                let fix = format!("Create a ReferenceGrant in namespace {}", target.ns);
                self.push("route-backend-no-grant", Severity::Error, &at, what, &fix);
                continue;
            }
            let at = format!("spec.rules[0].backendRefs[{i}]");
            let route = (self.kind, self.key);
            self.out
                .extend(twice::of(route, (&at, &found), self.view, reads));
            let exists = match &found {
                Backend::Service(key, port) => {
                    let row = self.view.tables.services.get(reads, key);
                    row.is_some_and(|row| row.ports.iter().any(|p| p.port == *port))
                }
                Backend::Missing | Backend::NotPermitted => false,
            };
            if !exists && target.port.is_some() {
                let what = format!(
                    "{} {}/{} does not exist or has no such port; its share of connections is closed",
                    target.kind, target.ns, target.name
                );
                self.push(
                    "route-backend-missing",
                    Severity::Error,
                    &at,
                    what,
                    "Correct it",
                );
            }
        }
    }
}
