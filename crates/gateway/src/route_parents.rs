//! Stage `route_parents`: a route → what its parents that are Gateways or ListenerSets of ours
//! make of it.
//!
//! It reads parents, hostnames and kind of a route and nothing else, so an edit of its rules goes
//! no further. Source: spec/gateway-api.md §3.8, §4.1, §4.2, §5.9.

#[cfg(test)]
mod tests;

use flow::{Output, Reads, View};
use model::gateway::{Defect, ListenerRow, ParentRow, RouteParents, Taken};
use model::input::{GrpcRoute, HttpRoute, Namespace, RouteRef, TcpRoute, TlsRoute};
use model::{
    Finding, GatewayController, GatewayRow, Kind, ObjectKey, ObjectRef, Parsed, Severity, Str,
    WaypointRow,
};

use crate::admission::admits;
use crate::hostnames;
use crate::index::GatewayByListenerSet;
use crate::waypoint_routes::refusal;

/// Primary: kind and key of a route.
pub type P = (Kind, ObjectKey);

/// Group of Gateways and ListenerSets.
const GROUP: &str = "gateway.networking.k8s.io";

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct RouteParentView<'t> {
    /// HTTPRoutes.
    pub http_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    /// GRPCRoutes.
    pub grpc_routes: View<'t, ObjectKey, Parsed<GrpcRoute>>,
    /// TCPRoutes.
    pub tcp_routes: View<'t, ObjectKey, Parsed<TcpRoute>>,
    /// TLSRoutes.
    pub tls_routes: View<'t, ObjectKey, Parsed<TlsRoute>>,
    /// Gateways of ours; index [`GatewayByListenerSet`].
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Namespaces, for their labels.
    pub namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
}

/// The row of a route; none where no Gateway of ours has anything to say of it.
pub fn derive(
    p: &P,
    view: &RouteParentView<'_>,
    reads: &mut Reads,
) -> Output<P, RouteParents, Finding> {
    let (kind, key) = p;
    // What of each kind of route counts here.
    let found: Option<Option<(&[RouteRef], &[Str])>> = match kind {
        Kind::HttpRoute => (view.http_routes.get(reads, key))
            .map(|row| row.ok().map(|one| (&*one.parents, &*one.hostnames))),
        Kind::GrpcRoute => (view.grpc_routes.get(reads, key))
            .map(|row| row.ok().map(|one| (&*one.parents, &*one.hostnames))),
        Kind::TcpRoute => (view.tcp_routes.get(reads, key))
            .map(|row| row.ok().map(|one| (&*one.parents, &[] as &[Str]))),
        Kind::TlsRoute => (view.tls_routes.get(reads, key))
            .map(|row| row.ok().map(|one| (&*one.parents, &*one.hostnames))),
        _ => None,
    };
    let Some(found) = found else {
        return Output::gone();
    };
    let Some((parents, hostnames)) = found else {
        return Output::none();
    };
    let route = Route {
        kind: *kind,
        key,
        hostnames,
    };
    let mut row = RouteParents {
        route: p.clone(),
        parents: Vec::new(),
    };
    let mut notes = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        let Some((gateway, verdict)) = verdict(&route, parent, view, reads) else {
            continue;
        };
        let (refused, taken) = match verdict {
            Ok(taken) => (None, taken),
            Err(defect) => (Some(defect), Vec::new()),
        };
        // Waypoints have a finding of their own.
        if let Some(defect) = refused.as_ref()
            && gateway.controller != GatewayController::Waypoint
        {
            let is_idle =
                gateway.controller == GatewayController::EastWest && route.is_of_requests();
            notes.push(finding(p, index, defect, is_idle));
        }
        row.parents.push(ParentRow {
            index,
            gateway: gateway.key.clone(),
            refused,
            taken,
        });
    }
    if row.parents.is_empty() {
        return Output::none();
    }
    Output::one(p.clone(), row).with_notes(notes)
}

/// What of a route counts here.
struct Route<'a> {
    kind: Kind,
    key: &'a ObjectKey,
    hostnames: &'a [Str],
}

impl Route<'_> {
    fn is_of_requests(&self) -> bool {
        matches!(self.kind, Kind::HttpRoute | Kind::GrpcRoute)
    }
}

/// The listeners that take the route, or why none does.
type Verdict = Result<Vec<Taken>, Defect>;

/// What becomes of a route at one parent; `None` where there is nothing to say: the parent is of
/// another kind, is not there, is somebody else's or has no listener.
fn verdict<'t>(
    route: &Route<'_>,
    parent: &RouteRef,
    view: &RouteParentView<'t>,
    reads: &mut Reads,
) -> Option<(&'t GatewayRow, Verdict)> {
    if parent.group != GROUP {
        return None;
    }
    let key = ObjectKey::new(parent.ns.clone(), parent.name.clone());
    let (owner, gateway) = match parent.kind.as_str() {
        "Gateway" => {
            let gateway = view.gateways.get(reads, &key)?;
            (ObjectRef::new(Kind::Gateway, key), gateway)
        }
        "ListenerSet" => {
            let found = view.gateways.by::<GatewayByListenerSet>(reads, &key).next();
            (ObjectRef::new(Kind::ListenerSet, key), found?.1)
        }
        _ => return None,
    };
    if gateway.controller == GatewayController::Waypoint {
        let verdict = at_waypoint(route, parent, (&owner, gateway), view, reads)?;
        return Some((gateway, verdict));
    }
    if gateway.controller == GatewayController::EastWest && route.is_of_requests() {
        if gateway.listeners.is_empty() {
            return None;
        }
        let message = format!(
            "Gateway {} is between networks and leads connections alone: it takes no {}",
            gateway.key, route.kind
        );
        let defect = Defect::new(Rank::Listener.reason(), message);
        return Some((gateway, Err(defect)));
    }
    let is_set = owner.kind == Kind::ListenerSet.as_str();
    let listeners = gateway.listeners_of(&owner);
    let candidates = listeners.filter(|one| one.is_built && (one.is_valid || !is_set));
    let results: Vec<_> = candidates
        .map(|listener| (listener, of_listener(route, parent, listener, view, reads)))
        .collect();
    if results.is_empty() {
        return None;
    }
    Some((gateway, merged(&owner, results)))
}

/// A waypoint has one listener, and takes no routes of connections.
fn at_waypoint(
    route: &Route<'_>,
    parent: &RouteRef,
    (owner, gateway): (&ObjectRef, &GatewayRow),
    view: &RouteParentView<'_>,
    reads: &mut Reads,
) -> Option<Verdict> {
    if !route.is_of_requests() || owner.kind != Kind::Gateway.as_str() {
        return None;
    }
    let waypoint = view.waypoints.get(reads, &gateway.key)?;
    let from = (route.kind, &route.key.ns);
    let key = &gateway.key;
    if let Some(refused) = refusal(view.namespaces, reads, waypoint, from, parent) {
        let clause = refused.clause(from);
        let message = format!("Waypoint {key} does not take the route: {clause}");
        return Some(Err(Defect::new(refused.reason(), message)));
    }
    Some(Ok(vec![Taken {
        owner: owner.clone(),
        listener: waypoint.listener.clone().unwrap_or_default(),
        hostnames: hostnames::common(None, route.hostnames),
    }]))
}

/// Why one listener does not take a route; greater is nearer to taking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Parent,
    Hostname,
    Listener,
}

impl Rank {
    fn reason(self) -> &'static str {
        match self {
            Self::Parent => "NoMatchingParent",
            Self::Hostname => "NoMatchingListenerHostname",
            Self::Listener => "NotAllowedByListeners",
        }
    }
}

/// What one listener says of a route: the hosts that it takes it for, or why not.
type Answer = Result<Vec<Str>, (Rank, String)>;

/// The hosts for which a listener takes a route. The first check that fails counts.
fn of_listener(
    route: &Route<'_>,
    parent: &RouteRef,
    listener: &ListenerRow,
    view: &RouteParentView<'_>,
    reads: &mut Reads,
) -> Answer {
    let name = &listener.name;
    if let Some(port) = parent.port.filter(|port| *port != listener.port) {
        let message = format!("listener {name} has port {}, not {port}", listener.port);
        return Err((Rank::Parent, message));
    }
    if let Some(section) = parent.section.as_ref().filter(|section| *section != name) {
        return Err((Rank::Parent, format!("listener {name} is not {section}")));
    }
    let hosts = hostnames::common(listener.hostname.as_ref(), route.hostnames);
    if hosts.is_empty() {
        let own = listener.hostname.as_deref().unwrap_or(hostnames::ANY);
        let message = format!("listener {name} is for {own}, which the route is not for");
        return Err((Rank::Hostname, message));
    }
    let allowed = (&listener.allowed, listener.owner.key.ns.as_str());
    let ns = &route.key.ns;
    if !admits(view.namespaces, reads, allowed, ns) {
        let message = format!("listener {name} does not admit routes of namespace {ns}");
        return Err((Rank::Listener, message));
    }
    if !listener.kinds.contains(&route.kind) {
        let message = format!("listener {name} takes no {}", route.kind);
        return Err((Rank::Listener, message));
    }
    Ok(hosts)
}

/// The best of what the listeners say.
fn merged(owner: &ObjectRef, results: Vec<(&ListenerRow, Answer)>) -> Verdict {
    let mut taken = Vec::new();
    let mut refused: Vec<(Rank, String)> = Vec::new();
    for (listener, result) in results {
        match result {
            Ok(hostnames) => taken.push(Taken {
                owner: owner.clone(),
                listener: listener.name.clone(),
                hostnames,
            }),
            Err(why) => refused.push(why),
        }
    }
    if !taken.is_empty() {
        return Ok(taken);
    }
    let best = refused.iter().map(|(rank, _)| *rank).max();
    let best = best.unwrap_or(Rank::Parent);
    let why = refused.iter().filter(|(rank, _)| *rank == best);
    let why: Vec<&str> = why.map(|(_, message)| message.as_str()).collect();
    let (kind, key) = (&owner.kind, &owner.key);
    let message = format!("{kind} {key} does not take the route: {}", why.join("; "));
    Err(Defect::new(best.reason(), message))
}

fn finding((kind, key): &P, index: usize, defect: &Defect, is_idle: bool) -> Finding {
    let (code, severity, fix) = if is_idle {
        let fix = "Attach the route to the Service or to its waypoint";
        ("route-parent-waypoint", Severity::Warning, fix)
    } else {
        let fix = "Correct sectionName, port or hostnames, or let the listener take the route";
        ("route-parent-refused", Severity::Error, fix)
    };
    Finding::new(
        code,
        severity,
        ObjectRef::new(*kind, key.clone()),
        defect.message.clone(),
        fix,
    )
    .at(format!("spec.parentRefs[{index}]"))
}
