//! Stage `findings::waypoint`: ready waypoints that nothing is bound to.
//! Source: spec/policy-and-traffic.md §10.3.

use flow::{Output, Reads, View};
use model::input::{AuthorizationPolicy, HttpRoute};
use model::{
    Finding, Kind, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow, Severity,
    WaypointRow, WorkloadRow, WorkloadUid,
};

use crate::index::{
    PolicyByTarget, RouteByParent, ServiceByWaypoint, Target, TargetKind, WorkloadByWaypoint,
};

/// Primary: a Gateway.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct WaypointFindingView<'t> {
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Services; index [`ServiceByWaypoint`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByWaypoint`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Routes; index [`RouteByParent`].
    pub http_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    /// Policies; index [`PolicyByTarget`].
    pub policies: View<'t, ObjectKey, Parsed<AuthorizationPolicy>>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(p: &P, view: &WaypointFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(waypoint) = view.waypoints.get(reads, p) else {
        return Output::gone();
    };
    // One that is not ready is reported as such; whoever names it cannot be bound yet.
    if !waypoint.is_mesh_class() || !waypoint.ready || is_used(p, view, reads) {
        return Output::none();
    }
    let idle = idle(p, view, reads).map_or_else(String::new, |object| {
        format!("; {} {} idles on it", object.kind, object.key)
    });
    let note = Finding::new(
        "wp-unused",
        Severity::Warning,
        ObjectRef::new(Kind::Gateway, p.clone()),
        format!("Nothing is bound to waypoint {p}{idle}"),
        "Label a Service, a Pod or a Namespace with istio.io/use-waypoint, or delete the Gateway",
    );
    Output::none().with_note(note)
}

fn is_used(p: &P, view: &WaypointFindingView<'_>, reads: &mut Reads) -> bool {
    let mut services = view.services.by::<ServiceByWaypoint>(reads, p);
    let mut workloads = view.workloads.by::<WorkloadByWaypoint>(reads, p);
    services.next().is_some() || workloads.next().is_some()
}

/// A route or policy that would apply to what is bound.
fn idle(p: &P, view: &WaypointFindingView<'_>, reads: &mut Reads) -> Option<ObjectRef> {
    let target = Target::new(TargetKind::Gateway, p.clone());
    let mut routes = view.http_routes.by::<RouteByParent>(reads, &target);
    let mut policies = view.policies.by::<PolicyByTarget>(reads, &target);
    let route = routes.next().map(|(key, _)| (Kind::HttpRoute, key));
    let policy = policies
        .next()
        .map(|(key, _)| (Kind::AuthorizationPolicy, key));
    let (kind, key) = route.or(policy)?;
    Some(ObjectRef::new(kind, key.clone()))
}
