//! Stage `static_clusters`: the clusters that every waypoint and every gateway has.
//! Source: spec/envoy-config.md §3.1, §3.2, §3.4.

use flow::{Output, Reads, View};
use model::{Finding, GatewayRow, MeshRow, ObjectKey, ProxyClass, ProxyRole, Str, WaypointRow};

use crate::attachment::mesh_row;
use crate::east_west::{self, FORWARD_INNER_CONNECT};
use crate::ingress::ingress;
use crate::ir::{ClassResource, StaticClusterIr};
use crate::listeners::{CONNECT_ORIGINATE, ENCAP, MAIN_INTERNAL, tls};

/// Name of the cluster of a gateway that nobody stands behind.
pub(crate) const BLACK_HOLE: Str = arcstr::literal!("BlackHoleCluster");

/// Primary: the class of connected proxies.
pub type P = ProxyClass;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct StaticClusterView<'t> {
    /// Classes of connected proxies.
    pub proxies: View<'t, ProxyClass, ()>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// The static clusters of a class whose Gateway exists.
pub fn derive(
    p: &P,
    view: &StaticClusterView<'_>,
    reads: &mut Reads,
) -> Output<ClassResource, StaticClusterIr, Finding> {
    if view.proxies.get(reads, p).is_none() {
        return Output::gone();
    }
    let exists = match p.role {
        ProxyRole::Waypoint => view.waypoints.get(reads, &p.gateway).is_some(),
        ProxyRole::Ingress => ingress(view.gateways, reads, &p.gateway).is_some(),
        ProxyRole::EastWest => east_west::active(view.gateways, reads, &p.gateway).is_some(),
    };
    if !exists {
        return Output::none();
    }
    let mesh = &*mesh_row(view.mesh, reads);
    let key = |name| ClassResource::new(p.clone(), name);
    let originate = (
        key(CONNECT_ORIGINATE),
        StaticClusterIr::ConnectOriginate(tls(p, mesh), mesh.traffic.hbone_idle_timeout),
    );
    if p.role == ProxyRole::Ingress {
        return Output::from(vec![
            (key(BLACK_HOLE), StaticClusterIr::Nobody(BLACK_HOLE)),
            originate,
        ]);
    }
    let main = (
        key(MAIN_INTERNAL),
        StaticClusterIr::Internal(MAIN_INTERNAL, MAIN_INTERNAL),
    );
    if p.role == ProxyRole::EastWest {
        return Output::from(vec![
            main,
            (
                key(ENCAP),
                StaticClusterIr::Internal(ENCAP, FORWARD_INNER_CONNECT),
            ),
            (
                key(FORWARD_INNER_CONNECT),
                StaticClusterIr::ForwardInnerConnect,
            ),
            (key(BLACK_HOLE), StaticClusterIr::Nobody(BLACK_HOLE)),
            originate,
        ]);
    }
    Output::from(vec![
        main,
        (
            key(ENCAP),
            StaticClusterIr::Internal(ENCAP, CONNECT_ORIGINATE),
        ),
        originate,
    ])
}
