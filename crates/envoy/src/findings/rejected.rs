//! Stage `findings::rejected`: what proxies refuse, said on the objects that it was made from.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::rejection::Rejection;
use model::{Finding, Kind, ObjectRef, ProxyClass, Severity, Str};

use crate::ir::{ClusterIr, RoutesIr, WaypointResource};

/// Objects that one refused resource is told on.
const OBJECTS_MAX: usize = 16;

/// Primary: the class of connected proxies.
pub type P = ProxyClass;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct RejectedView<'t> {
    /// What clients refuse.
    pub rejections: View<'t, ProxyClass, Vec<Rejection>>,
    /// Route configurations.
    pub route_configs: View<'t, WaypointResource, RoutesIr>,
    /// Clusters.
    pub clusters: View<'t, WaypointResource, ClusterIr>,
}

/// A finding per refused resource on its Gateway, and on each object that it comes from.
pub fn derive(p: &P, view: &RejectedView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(rejections) = view.rejections.get(reads, p) else {
        return Output::gone();
    };
    let mut notes = Vec::new();
    for rejection in rejections.iter() {
        let mut objects = origins(p, rejection, view, reads);
        objects.insert(ObjectRef::new(Kind::Gateway, p.gateway.clone()));
        for object in objects.into_iter().take(OBJECTS_MAX) {
            notes.push(finding(p, rejection, object));
        }
    }
    Output::none().with_notes(notes)
}

fn origins(
    class: &ProxyClass,
    rejection: &Rejection,
    view: &RejectedView<'_>,
    reads: &mut Reads,
) -> BTreeSet<ObjectRef> {
    let key = WaypointResource::new(class.gateway.clone(), rejection.name.clone());
    let mut out = BTreeSet::new();
    if rejection.type_url == proto::type_url::ROUTE {
        let row = view.route_configs.get(reads, &key);
        let routes = row.into_iter().flat_map(|row| &row.routes);
        out.extend(routes.filter_map(|route| route.origin.clone()));
    } else if rejection.type_url == proto::type_url::CLUSTER {
        let row = view.clusters.get(reads, &key);
        let rule = row.and_then(|row| row.policy.rule.clone());
        out.extend(rule.map(|rule| ObjectRef::new(Kind::DestinationRule, rule)));
    }
    out
}

fn finding(class: &ProxyClass, rejection: &Rejection, object: ObjectRef) -> Finding {
    let what = match rejection.type_url.as_str() {
        proto::type_url::ROUTE => "the routes",
        proto::type_url::CLUSTER => "the cluster",
        proto::type_url::LISTENER => "the listener",
        proto::type_url::ENDPOINT => "the endpoints of",
        _ => "the resource",
    };
    let name: &Str = &rejection.name;
    Finding::new(
        "xds-rejected",
        Severity::Error,
        object,
        arcstr::format!(
            "Proxies of {} refuse {what} {name}: {}. They keep what they had before, and everything else goes on",
            class.gateway,
            rejection.text
        ),
        "Change what the proxy names, and report this: configuration that proxies refuse should not be generated",
    )
}
