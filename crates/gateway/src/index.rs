//! Index markers: how the stages of this crate look into tables.
//!
//! The owner of a table registers the markers named for it; a view without its index is a
//! programming error.

use flow::Index;
use model::gateway::{LABEL_CLASS_DEFAULTS, RouteParents};
use model::input::{ListenerSet, ReferenceGrant};
use model::secret::ConfigMap;
use model::{
    GatewayRow, Kind, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow, Str,
    WorkloadRow, WorkloadUid,
};

/// Grants by their namespace. For the table of ReferenceGrants.
pub struct GrantByNamespace;

impl Index<ObjectKey, Parsed<ReferenceGrant>> for GrantByNamespace {
    type At = str;
    fn keys(key: &ObjectKey, _: &Parsed<ReferenceGrant>, emit: &mut dyn FnMut(&str)) {
        emit(&key.ns);
    }
}

/// ConfigMaps with defaults for deployments, by their namespace and the name of the class. For the
/// table of ConfigMaps.
pub struct ConfigMapByClass;

impl Index<ObjectKey, Parsed<ConfigMap>> for ConfigMapByClass {
    type At = ObjectKey;
    fn keys(key: &ObjectKey, row: &Parsed<ConfigMap>, emit: &mut dyn FnMut(&ObjectKey)) {
        if let Some(class) = row.meta.label(LABEL_CLASS_DEFAULTS) {
            emit(&ObjectKey::new(key.ns.clone(), class.clone()));
        }
    }
}

/// ListenerSets by the Gateway that they add to. For the table of ListenerSets.
pub struct ListenerSetByParent;

impl Index<ObjectKey, Parsed<ListenerSet>> for ListenerSetByParent {
    type At = ObjectKey;
    fn keys(_: &ObjectKey, row: &Parsed<ListenerSet>, emit: &mut dyn FnMut(&ObjectKey)) {
        let parent = row.ok().and_then(|set| set.parent.as_ref());
        parent.into_iter().for_each(emit);
    }
}

/// Gateways by ListenerSets that name them, admitted or not. For the table of [`GatewayRow`].
pub struct GatewayByListenerSet;

impl Index<ObjectKey, GatewayRow> for GatewayByListenerSet {
    type At = ObjectKey;
    fn keys(_: &ObjectKey, row: &GatewayRow, emit: &mut dyn FnMut(&ObjectKey)) {
        row.listener_sets.iter().for_each(|set| emit(&set.key));
    }
}

/// Gateways by the services that their instances are behind. For the table of [`GatewayRow`].
pub struct GatewayByTarget;

impl Index<ObjectKey, GatewayRow> for GatewayByTarget {
    type At = NamespacedHostname;
    fn keys(_: &ObjectKey, row: &GatewayRow, emit: &mut dyn FnMut(&NamespacedHostname)) {
        row.targets.iter().for_each(emit);
    }
}

/// Services by host name, whatever their namespace. For the table of [`ServiceRow`].
pub struct ServiceByHostname;

impl Index<NamespacedHostname, ServiceRow> for ServiceByHostname {
    type At = str;
    fn keys(key: &NamespacedHostname, _: &ServiceRow, emit: &mut dyn FnMut(&str)) {
        emit(&key.hostname);
    }
}

/// Workloads by service membership. For the table of [`WorkloadRow`].
pub struct WorkloadByService;

impl Index<WorkloadUid, WorkloadRow> for WorkloadByService {
    type At = NamespacedHostname;
    fn keys(_: &WorkloadUid, row: &WorkloadRow, emit: &mut dyn FnMut(&NamespacedHostname)) {
        row.services.keys().for_each(emit);
    }
}

/// A listener: the Gateway or ListenerSet that it is of, and its name.
pub type ListenerId = (ObjectRef, Str);

/// Routes by the listeners that take them. For the table of [`RouteParents`].
pub struct RouteByListener;

impl Index<(Kind, ObjectKey), RouteParents> for RouteByListener {
    type At = ListenerId;
    fn keys(_: &(Kind, ObjectKey), row: &RouteParents, emit: &mut dyn FnMut(&ListenerId)) {
        for taken in row.parents.iter().flat_map(|parent| &parent.taken) {
            emit(&(taken.owner.clone(), taken.listener.clone()));
        }
    }
}

/// Routes by the Gateway whose listeners, its own or those of ListenerSets, take them. For the
/// table of [`RouteParents`].
pub struct RouteByGateway;

impl Index<(Kind, ObjectKey), RouteParents> for RouteByGateway {
    type At = ObjectKey;
    fn keys(_: &(Kind, ObjectKey), row: &RouteParents, emit: &mut dyn FnMut(&ObjectKey)) {
        let taken = row.parents.iter().filter(|parent| !parent.taken.is_empty());
        taken.for_each(|parent| emit(&parent.gateway));
    }
}
