//! Stages `findings::route`: what of an HTTPRoute or GRPCRoute has no effect or another one.

use flow::{Output, Reads, View};
use model::gateway::RouteParents;
use model::input::{HttpRoute, RouteFilter, RouteRef};
use model::{
    Finding, GatewayController, GatewayRow, Kind, MeshRow, ObjectKey, ObjectRef, Parsed,
    ServiceRow, Severity, WaypointRow,
};

use crate::attachment::mesh_row;
use crate::attachment::port_chains;
use crate::backend_tls::BackendTlsRow;
use crate::index::{ServiceBySource, ServiceByWaypoint, Target, TargetKind};
use crate::routes::{
    self, Backend, Grants, Referrer, RouteTables, Site, bad_matches, defect, host_rank,
    mirror_defect, refusal, resolve,
};

/// Primary: an HTTPRoute, or a GRPCRoute.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct RouteFindingView<'t> {
    /// What routes are made of; services with indexes [`ServiceBySource`] and
    /// [`ServiceByWaypoint`].
    pub tables: RouteTables<'t>,
    /// What Gateways and ListenerSets make of routes; index
    /// [`gateway::index::RouteByListener`].
    pub route_parents: View<'t, (Kind, ObjectKey), RouteParents>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// BackendTLSPolicies; index [`crate::backend_tls::BackendTlsByService`].
    pub backend_tls: View<'t, ObjectKey, BackendTlsRow>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// Findings about an HTTPRoute as notes; the stage has no rows.
pub fn derive(p: &P, view: &RouteFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    report(Kind::HttpRoute, view.tables.http_routes, p, view, reads)
}

/// Findings about a GRPCRoute, the same way.
pub fn derive_grpc(
    p: &P,
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    report(Kind::GrpcRoute, view.tables.grpc_routes, p, view, reads)
}

fn report(
    kind: Kind,
    table: View<'_, ObjectKey, Parsed<HttpRoute>>,
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
    let mesh = &*mesh_row(view.mesh, reads);
    let mut report = Report {
        view,
        mesh,
        kind,
        key: p,
        route,
        out: Vec::new(),
    };
    let mut grants = Grants::Ignored;
    for (index, parent) in route.parents.iter().enumerate() {
        if is_listener_set(parent) {
            grants = Grants::Checked;
            continue;
        }
        let target = Target::new(
            match TargetKind::of(&parent.group, &parent.kind) {
                Some(TargetKind::GatewayClass) | None => {
                    report.out.push(unknown_parent(kind, p, index, parent));
                    continue;
                }
                Some(kind) => kind,
            },
            ObjectKey::new(parent.ns.clone(), parent.name.clone()),
        );
        if target.kind == TargetKind::Gateway {
            grants = Grants::Checked;
            report.gateway(reads, index, parent, &target);
        } else {
            report.service(reads, index, &target);
        }
    }
    if route.rules.is_empty() {
        report.out.push(no_rules(kind, p));
    }
    report.rules(reads, grants);
    report.backends(reads, grants);
    report.out.sort();
    report.out.dedup();
    Output::new(Vec::new(), report.out)
}

/// Whether a parent is a ListenerSet; what it makes of the route is told where that is judged.
pub(super) fn is_listener_set(parent: &RouteRef) -> bool {
    parent.group == Kind::ListenerSet.group() && parent.kind == Kind::ListenerSet.as_str()
}

/// What is said of a parent that is no waypoint and that nobody has judged: where one is, that
/// tells whether its listeners take the route.
pub(super) fn idle_parent(
    route: &(Kind, ObjectKey),
    index: usize,
    parent: &WaypointRow,
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Option<Finding> {
    let judged = view.route_parents.get(reads, route);
    if judged.is_some_and(|row| row.parents.iter().any(|one| one.index == index)) {
        return None;
    }
    let WaypointRow { key, class, .. } = parent;
    let (what, fix) = match parent.controller {
        None => (
            format!(
                "Gateway {key} is of class {class}, which is not of this control plane: here the route has no effect, and what it has there is for others to say"
            ),
            "Correct gatewayClassName, unless another product serves the class",
        ),
        Some(GatewayController::Remote) => (
            format!(
                "Gateway {key} stands for one elsewhere, to which no route is attached from here: the route has no effect there"
            ),
            "Attach it to the Gateway itself, where that is",
        ),
        Some(_) => (
            format!(
                "Gateway {key} has no listener that a route could be attached to, so the route has no effect there"
            ),
            "Give the Gateway a listener that can be opened for routes of this kind",
        ),
    };
    let object = ObjectRef::new(route.0, route.1.clone());
    let code = "route-parent-not-supported";
    let finding = Finding::new(code, Severity::Warning, object, what, fix);
    Some(finding.at(format!("spec.parentRefs[{index}]")))
}

/// A parent of a kind that routes do not work with.
pub(super) fn unknown_parent(kind: Kind, key: &P, index: usize, parent: &RouteRef) -> Finding {
    let fix = match parent.kind.as_str() {
        "Service" => "Write group: \"\" beside kind: Service",
        "ServiceEntry" => "Write group: networking.istio.io beside kind: ServiceEntry",
        _ => "Use a Gateway, Service or ServiceEntry as parent",
    };
    let what = format!(
        "No route works with {} of group {} as parent, so this one has no effect there",
        parent.kind, parent.group
    );
    let object = ObjectRef::new(kind, key.clone());
    Finding::new(
        "route-parent-not-supported",
        Severity::Warning,
        object,
        what,
        fix,
    )
    .at(format!("spec.parentRefs[{index}]"))
}

/// A route that says nothing.
pub(super) fn no_rules(kind: Kind, key: &P) -> Finding {
    let what = "This route has no rules, so it has no effect";
    let object = ObjectRef::new(kind, key.clone());
    Finding::new(
        "route-no-rules",
        Severity::Warning,
        object,
        what,
        "Give it rules",
    )
    .at("spec.rules")
}

struct Report<'a, 't> {
    view: &'a RouteFindingView<'t>,
    mesh: &'a MeshRow,
    kind: Kind,
    key: &'a ObjectKey,
    route: &'a HttpRoute,
    out: Vec<Finding>,
}

impl Report<'_, '_> {
    fn push(&mut self, code: &'static str, severity: Severity, at: &str, what: String, fix: &str) {
        let object = ObjectRef::new(self.kind, self.key.clone());
        let finding = Finding::new(code, severity, object, what, fix);
        self.out.push(finding.at(at));
    }

    fn tables(&self) -> RouteTables<'_> {
        self.view.tables
    }

    fn referrer(&self, grants: Grants) -> Referrer<'_> {
        Referrer {
            kind: self.kind,
            ns: &self.key.ns,
            domain: &self.mesh.domain,
            grants,
        }
    }

    /// Hard errors, and fields that are left out.
    fn rules(&mut self, reads: &mut Reads, grants: Grants) {
        let found = defect(&self.key.ns, self.route).or_else(|| {
            let referrer = self.referrer(grants);
            mirror_defect(&self.tables(), reads, &referrer, self.route)
        });
        if let Some(found) = found {
            let what = format!("No rule of this route applies: {}", found.reason);
            self.push(
                found.code,
                Severity::Error,
                &found.field,
                what,
                "Remove or correct it",
            );
        }
        for found in bad_matches(self.route) {
            let what = format!("This match is left out, the others apply: {}", found.reason);
            let fix = "Correct it";
            self.push(found.code, Severity::Error, &found.field, what, fix);
        }
        for (index, rule) in self.route.rules.iter().enumerate() {
            let hard = |path: &str| path.contains("filters") || path.starts_with("matches");
            for path in rule.unsupported.iter().filter(|path| !hard(path)) {
                let at = format!("spec.rules[{index}].{path}");
                let what = format!("{path} is not applied; the rule works without it");
                self.push(
                    "field-not-applied",
                    Severity::Warning,
                    &at,
                    what,
                    "Remove it",
                );
            }
        }
    }

    /// A parent Service or ServiceEntry.
    fn service(&mut self, reads: &mut Reads, index: usize, target: &Target) {
        let at = format!("spec.parentRefs[{index}]");
        let kind = if target.kind == TargetKind::Service {
            Kind::Service
        } else {
            Kind::ServiceEntry
        };
        let source = ObjectRef::new(kind, target.key.clone());
        let services: Vec<_> = self
            .view
            .tables
            .services
            .by::<ServiceBySource>(reads, &source)
            .collect();
        if services.is_empty() {
            let what = format!(
                "{kind} {} does not exist, so this route reaches nothing",
                target.key
            );
            self.push(
                "route-parent-missing",
                Severity::Error,
                &at,
                what,
                "Correct the parent",
            );
            return;
        }
        if !self.route.hostnames.is_empty() {
            let what = "hostnames have no meaning with a Service parent".to_owned();
            let fix = "Match the header Host instead";
            self.push(
                "route-hostnames-service-parent",
                Severity::Warning,
                "spec.hostnames",
                what,
                fix,
            );
        }
        let Some(bound) = services.iter().find_map(|(_, row)| row.waypoint.as_ref()) else {
            let refused = if services.iter().any(|(_, row)| row.blocked.is_some()) {
                ", and its traffic is refused until the waypoint that it names can be used"
            } else {
                ""
            };
            let what = format!(
                "{kind} {} has no waypoint, so this route is not applied{refused}",
                target.key
            );
            let fix = "Label it with istio.io/use-waypoint";
            self.push(
                "route-service-no-waypoint",
                Severity::Warning,
                &at,
                what,
                fix,
            );
            return;
        };
        if self.key.ns != target.key.ns && self.key.ns != bound.key.ns {
            let what = format!(
                "The route is neither in the namespace of {kind} {} nor in that of its waypoint {}, so it is not applied",
                target.key, bound.key
            );
            let fix = "Move it to one of those namespaces";
            self.push("route-foreign-namespace", Severity::Warning, &at, what, fix);
        }
    }

    /// A parent Gateway.
    fn gateway(&mut self, reads: &mut Reads, index: usize, parent: &RouteRef, target: &Target) {
        let at = format!("spec.parentRefs[{index}]");
        let found = self.view.waypoints.get(reads, &target.key);
        let Some(waypoint) = found.filter(|waypoint| waypoint.is_mesh_class()) else {
            if let Some(other) = found {
                let route = (self.kind, self.key.clone());
                self.out
                    .extend(idle_parent(&route, index, other, self.view, reads));
                return;
            }
            let what = format!(
                "Gateway {} does not exist, so this route reaches nothing",
                target.key
            );
            self.push(
                "route-parent-missing",
                Severity::Error,
                &at,
                what,
                "Correct the parent",
            );
            return;
        };
        let namespaces = self.view.tables.namespaces;
        let route = (self.kind, &self.key.ns);
        let reason = match refusal(namespaces, reads, waypoint, route, parent) {
            Some(refused) => refused.clause(route),
            None => match self.unreached(reads, waypoint) {
                Some(reason) => reason.to_owned(),
                None => return,
            },
        };
        let what = format!(
            "The route reaches no service behind waypoint {}: {reason}",
            target.key
        );
        let fix = "Bind a service, correct hostnames, or use the Service as parent";
        self.push("route-parent-waypoint", Severity::Warning, &at, what, fix);
    }

    /// Why a route reaches no service behind a waypoint, if it reaches none.
    fn unreached(&self, reads: &mut Reads, waypoint: &WaypointRow) -> Option<&'static str> {
        let bound: Vec<_> = self
            .view
            .tables
            .services
            .by::<ServiceByWaypoint>(reads, &waypoint.key)
            .collect();
        if bound.is_empty() {
            return Some("nothing is bound to it");
        }
        let fits = |service: &ServiceRow| host_rank(&self.route.hostnames, service).is_some();
        let hosts: Vec<_> = bound
            .into_iter()
            .filter(|(_, service)| fits(service))
            .collect();
        if hosts.is_empty() {
            return Some("no hostname fits a service bound to it");
        }
        let tables = self.tables();
        let open = hosts.iter().any(|(_, service)| {
            let site = Site {
                service,
                waypoint,
                mesh: self.mesh,
            };
            service.ports.iter().any(|port| {
                port_chains(port).is_some_and(|chains| chains.http())
                    && !routes::has_own(&site, &tables, reads, port.port)
            })
        });
        (!open).then_some("each of its HTTP ports has routes of its own")
    }

    /// Where backends and mirrors lead. A mirror that leads nowhere voids a GRPCRoute, which is
    /// said of the route.
    fn backends(&mut self, reads: &mut Reads, grants: Grants) {
        let route = self.route;
        for (i, rule) in route.rules.iter().enumerate() {
            for (j, backend) in rule.backends.iter().enumerate() {
                // Without a port no rule applies, which is said of the route.
                if backend.target.port.is_some() {
                    let at = format!("spec.rules[{i}].backendRefs[{j}]");
                    let effect = "its share of requests gets 500";
                    self.backend(reads, &backend.target, grants, &at, effect);
                }
            }
            for (j, filter) in rule.filters.iter().enumerate() {
                if let (RouteFilter::Mirror(mirror), Kind::HttpRoute) = (filter, self.kind) {
                    let at = format!("spec.rules[{i}].filters[{j}].requestMirror.backendRef");
                    let effect = "nothing is mirrored to it";
                    self.backend(reads, &mirror.target, grants, &at, effect);
                }
            }
        }
    }

    fn backend(
        &mut self,
        reads: &mut Reads,
        target: &RouteRef,
        grants: Grants,
        at: &str,
        effect: &str,
    ) {
        let name = format!("{} {}/{}", target.kind, target.ns, target.name);
        let found = resolve(&self.tables(), reads, &self.referrer(grants), target);
        let (code, what, fix) = match found {
            Backend::NotPermitted => (
                "route-backend-no-grant",
                format!("{name} is not permitted; {effect}"),
                format!("Create a ReferenceGrant in namespace {}", target.ns),
            ),
            Backend::Missing => (
                "route-backend-missing",
                format!("{name} does not exist; {effect}"),
                "Correct it".to_owned(),
            ),
            Backend::Service(key, port) => {
                let row = self.view.tables.services.get(reads, &key);
                if !row.is_some_and(|row| row.ports.iter().all(|p| p.port != port)) {
                    return;
                }
                (
                    "route-backend-missing",
                    format!("{name} has no port {port}; {effect}"),
                    "Correct the port".to_owned(),
                )
            }
        };
        self.push(code, Severity::Error, at, what, &fix);
    }
}
