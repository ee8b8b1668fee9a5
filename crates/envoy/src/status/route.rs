//! Stage `status::route`: a route → an entry for each of its parents.
//! Source: spec/gateway-api.md §4, §5.9.

mod refs;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use flow::{Reads, View};
use model::gateway::{ParentRow, RouteParents, Taken};
use model::input::{GatewayClass, RouteRef};
use model::ownership::Revisions;
use model::status::{
    Condition, MANAGER_GATEWAY_API, ParentRef, ParentStatus, StatusKey, StatusRow,
};
use model::{
    GatewayController, Kind, MeshRow, Meta, ObjectKey, ObjectRef, Parsed, ServiceRow, WaypointRow,
};

use super::{ACCEPTED, RESOLVED_REFS, RESOLVED_WAYPOINTS, StatusOutput, is_ours};
use crate::attachment::mesh_row;
use crate::index::{ServiceBySource, TargetKind};
use crate::routes::{Grants, Referrer, RouteTables};
use refs::{Refs, Rules};

/// Primary: kind and key of a route.
pub type P = (Kind, ObjectKey);

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct RouteStatusView<'t> {
    /// What routes are made of; services with index [`ServiceBySource`].
    pub tables: RouteTables<'t>,
    /// What Gateways and ListenerSets make of the route.
    pub route_parents: View<'t, P, RouteParents>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// GatewayClasses.
    pub gateway_classes: View<'t, ObjectKey, Parsed<GatewayClass>>,
    /// What is ours.
    pub revisions: View<'t, (), Revisions>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// The status of a route; no row for those of other control planes. One that cannot be read has no
/// entry.
pub fn derive(p: &P, view: &RouteStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    let (kind, key) = p;
    let tables = &view.tables;
    let found = match kind {
        Kind::HttpRoute => tables.http_routes.get(reads, key).map(Route::http),
        Kind::GrpcRoute => tables.grpc_routes.get(reads, key).map(Route::http),
        Kind::TcpRoute => tables.tcp_routes.get(reads, key).map(Route::l4),
        Kind::TlsRoute => tables.tls_routes.get(reads, key).map(Route::l4),
        _ => None,
    };
    let Some(route) = found else {
        return StatusOutput::gone();
    };
    if !is_ours(route.meta, view.revisions, tables.namespaces, reads) {
        return StatusOutput::none();
    }
    let parents = match route.rules {
        Some(rules) => entries(*kind, &route, rules, view, reads),
        None => Vec::new(),
    };
    let key = StatusKey {
        object: ObjectRef::new(*kind, key.clone()),
        manager: MANAGER_GATEWAY_API,
    };
    let row = StatusRow {
        parents: Some(parents),
        ..StatusRow::default()
    };
    StatusOutput::one(key, row)
}

/// A route of any kind; without rules if it cannot be read.
struct Route<'t> {
    meta: &'t Meta,
    parents: &'t [RouteRef],
    rules: Option<Rules<'t>>,
}

impl<'t> Route<'t> {
    fn http(parsed: &'t Arc<Parsed<model::input::HttpRoute>>) -> Self {
        let body = parsed.ok();
        Self {
            meta: &parsed.meta,
            parents: body.map_or(&[], |route| &route.parents),
            rules: body.map(Rules::Requests),
        }
    }

    fn l4(parsed: &'t Arc<Parsed<model::input::L4Route>>) -> Self {
        let body = parsed.ok();
        Self {
            meta: &parsed.meta,
            parents: body.map_or(&[], |route| &route.parents),
            rules: body.map(Rules::Connections),
        }
    }
}

/// One entry per parent that there is something to say of; a parent that is written twice has one.
fn entries(
    kind: Kind,
    route: &Route<'_>,
    rules: Rules<'_>,
    view: &RouteStatusView<'_>,
    reads: &mut Reads,
) -> Vec<ParentStatus> {
    let mesh = mesh_row(view.mesh, reads);
    let at = (kind, route.meta.key.clone());
    let judged = view.route_parents.get(reads, &at);
    let judged = judged.map_or(&[][..], |row| &row.parents);
    let mut report = Report {
        view,
        mesh: &mesh,
        kind,
        meta: route.meta,
        rules,
        checked: None,
        unchecked: None,
    };
    let mut out = BTreeMap::new();
    for (index, parent) in route.parents.iter().enumerate() {
        let parent_ref = ParentRef::of(parent);
        let identity = Reverse(parent_ref.identity(&route.meta.key.ns));
        if out.contains_key(&identity) {
            continue;
        }
        let judged = judged.iter().find(|row| row.index == index);
        if let Some(conditions) = report.parent(parent, judged, reads) {
            let entry = ParentStatus {
                parent_ref,
                controller_name: MANAGER_GATEWAY_API,
                conditions,
            };
            out.insert(identity, entry);
        }
    }
    out.into_values().collect()
}

/// Whether it is, the reason, and a message.
type Verdict = (bool, &'static str, String);

struct Report<'a, 't> {
    view: &'a RouteStatusView<'t>,
    mesh: &'a MeshRow,
    kind: Kind,
    meta: &'a Meta,
    rules: Rules<'a>,
    /// What became of references for parents with and without grants, once it is known.
    checked: Option<Refs>,
    unchecked: Option<Refs>,
}

impl Report<'_, '_> {
    /// The conditions of an entry; `None` when the parent has none.
    fn parent(
        &mut self,
        parent: &RouteRef,
        judged: Option<&ParentRow>,
        reads: &mut Reads,
    ) -> Option<Vec<Condition>> {
        let target = TargetKind::of(&parent.group, &parent.kind);
        let (accepted, waypoints, grants) = match (target, judged) {
            (_, Some(judged)) => {
                let waypoints = "All waypoints are resolved".to_owned();
                (by_gateway(judged), waypoints, Grants::Checked)
            }
            (Some(TargetKind::Service), None) => self.by_service(Kind::Service, parent, reads)?,
            (Some(TargetKind::ServiceEntry), None) => {
                self.by_service(Kind::ServiceEntry, parent, reads)?
            }
            (Some(TargetKind::Gateway | TargetKind::GatewayClass) | None, None) => return None,
        };
        let refs = self.refs(grants, reads);
        let waypoints = (true, "ResolvedWaypoints", waypoints);
        let generation = self.meta.generation;
        let condition = |ty, (holds, reason, message): Verdict| {
            Condition::new(ty, holds, reason, message, generation)
        };
        Some(vec![
            condition(ACCEPTED, accepted),
            condition(RESOLVED_REFS, refs),
            condition(RESOLVED_WAYPOINTS, waypoints),
        ])
    }

    /// A parent that is a Service or ServiceEntry; nothing is said when its waypoint is somebody
    /// else's.
    fn by_service(
        &self,
        kind: Kind,
        parent: &RouteRef,
        reads: &mut Reads,
    ) -> Option<(Verdict, String, Grants)> {
        let key = ObjectKey::new(parent.ns.clone(), parent.name.clone());
        let source = ObjectRef::new(kind, key.clone());
        let services = self.view.tables.services;
        let rows: Vec<_> = services
            .by::<ServiceBySource>(reads, &source)
            .map(|(_, row)| &**row)
            .collect();
        let bound = rows.iter().find_map(|row| row.waypoint.as_ref());
        if bound.is_some_and(|bound| self.is_foreign(&bound.key, reads)) {
            return None;
        }
        if rows.is_empty() {
            let missing = format!("{kind} {key} does not exist, or has no host of the mesh");
            let verdict = (false, "NoMatchingParent", missing.clone());
            let waypoints = format!("{missing}, so it has no waypoint");
            return Some((verdict, waypoints, Grants::Ignored));
        }
        let taken = accepted(format!("The route is valid for {kind} {key}"));
        let waypoints = match bound {
            Some(bound) => self.of_bound(&source, &bound.key),
            None => of_unbound(&source, &rows),
        };
        Some((taken, waypoints, Grants::Ignored))
    }

    /// Whether a Gateway is of a class that another implementation owns.
    fn is_foreign(&self, gateway: &ObjectKey, reads: &mut Reads) -> bool {
        let Some(waypoint) = self.view.waypoints.get(reads, gateway) else {
            return false;
        };
        let class = ObjectKey::cluster(waypoint.class.clone());
        let class = self.view.gateway_classes.get(reads, &class);
        let class = class.filter(|class| class.body.is_ok());
        class.is_some_and(|class| {
            let controller = GatewayController::of(Some(class), &waypoint.class);
            !matches!(
                controller,
                Some(GatewayController::Waypoint | GatewayController::Ingress)
            )
        })
    }

    fn of_bound(&self, source: &ObjectRef, waypoint: &ObjectKey) -> String {
        let ns = &self.meta.key.ns;
        let ObjectRef { kind, key, .. } = source;
        if *ns == key.ns || *ns == waypoint.ns {
            return format!("{kind} {key} is bound to waypoint {waypoint}");
        }
        format!(
            "{kind} {key} is bound to waypoint {waypoint}, which does not apply routes of namespace {ns}, only those of its own and of {}",
            key.ns
        )
    }

    fn refs(&mut self, grants: Grants, reads: &mut Reads) -> Verdict {
        let known = match grants {
            Grants::Checked => &mut self.checked,
            Grants::Ignored => &mut self.unchecked,
        };
        let referrer = Referrer {
            kind: self.kind,
            ns: &self.meta.key.ns,
            domain: &self.mesh.domain,
            grants,
        };
        let refs =
            known.get_or_insert_with(|| Refs::of(self.rules, &referrer, &self.view.tables, reads));
        match refs {
            Refs::Resolved => {
                let message = "All references are resolved".to_owned();
                (true, "ResolvedRefs", message)
            }
            Refs::Unresolved(reason, message) => (false, reason, message.clone()),
        }
    }
}

/// What the listeners of a Gateway or ListenerSet say.
fn by_gateway(judged: &ParentRow) -> Verdict {
    if let Some(refused) = &judged.refused {
        return (false, refused.reason, refused.message.to_string());
    }
    accepted(match judged.taken.as_slice() {
        [
            Taken {
                owner, listener, ..
            },
        ] => {
            let (kind, key) = (&owner.kind, &owner.key);
            format!("Listener {listener} of {kind} {key} has taken the route")
        }
        all => format!("{} listeners have taken the route", all.len()),
    })
}

fn accepted(message: String) -> Verdict {
    (true, "Accepted", message)
}

fn of_unbound(source: &ObjectRef, rows: &[&ServiceRow]) -> String {
    let refused = if rows.iter().any(|row| row.blocked.is_some()) {
        "; its traffic is refused until there is one"
    } else {
        ""
    };
    format!(
        "{} {} has no waypoint, so the route is not applied: label istio.io/use-waypoint is missing on it and on its namespace, or names none that it can use{refused}",
        source.kind, source.key
    )
}
