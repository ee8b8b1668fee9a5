//! Index markers of this module's tables, and one more of parents of routes.

use flow::Index;
use model::gateway::RouteParents;
use model::{Kind, NamespacedHostname, ObjectKey};

use crate::ir::{HostAt, HostIr, ListenerId, RouteAt, RouteAtIr};

/// Routes by listeners that take them and hosts for which they do. For the table of
/// [`RouteParents`].
pub struct RouteByHost;

impl Index<(Kind, ObjectKey), RouteParents> for RouteByHost {
    type At = HostAt;
    fn keys(_: &(Kind, ObjectKey), row: &RouteParents, emit: &mut dyn FnMut(&HostAt)) {
        hosts_of(row).for_each(|host| emit(&host));
    }
}

/// The hosts of a route at its listeners.
pub fn hosts_of(row: &RouteParents) -> impl Iterator<Item = HostAt> + '_ {
    let is_http = matches!(row.route.0, Kind::HttpRoute | Kind::GrpcRoute);
    let parents = row.parents.iter().filter(move |_| is_http);
    parents.flat_map(|parent| &parent.taken).flat_map(|taken| {
        let listener = (taken.owner.clone(), taken.listener.clone());
        taken.hostnames.iter().map(move |host| HostAt {
            listener: listener.clone(),
            host: host.clone(),
        })
    })
}

/// Virtual hosts by listener. For the table of [`super::hosts`].
pub struct HostByListener;

impl Index<HostAt, HostIr> for HostByListener {
    type At = ListenerId;
    fn keys(key: &HostAt, _: &HostIr, emit: &mut dyn FnMut(&ListenerId)) {
        emit(&key.listener);
    }
}

/// What routes do, by a service that they lead to. For the table of [`super::routes`].
pub struct RouteAtByDestination;

impl Index<RouteAt, RouteAtIr> for RouteAtByDestination {
    type At = NamespacedHostname;
    fn keys(_: &RouteAt, row: &RouteAtIr, emit: &mut dyn FnMut(&NamespacedHostname)) {
        row.outbound.iter().for_each(|to| emit(&to.service));
    }
}
