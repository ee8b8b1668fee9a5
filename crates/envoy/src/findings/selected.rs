//! Ingress gateways that apply what has no targets.
//! Source: spec/policy-and-traffic.md §0.3; spec/envoy-config.md §1.5.

use std::sync::Arc;

use flow::{Reads, View};
use model::{
    GatewayController, GatewayRow, Labels, MeshRow, ObjectKey, Str, WaypointRow, WorkloadRow,
    WorkloadUid,
};

use crate::authz::Selected;
use crate::index::WaypointByNamespace;
use crate::ingress::listeners::instances;

/// Where they are looked for.
#[derive(Clone, Copy)]
pub(super) struct IngressTables<'t> {
    /// Gateways of ours.
    pub(super) gateways: View<'t, ObjectKey, GatewayRow>,
    /// Gateways of any kind; index [`WaypointByNamespace`].
    pub(super) waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Workloads; indexes [`crate::index::InstanceByNamespace`] and
    /// [`crate::index::WorkloadByService`].
    pub(super) workloads: View<'t, WorkloadUid, WorkloadRow>,
}

impl<'t> IngressTables<'t> {
    /// Those in range of a policy of a namespace: its own, or all for the root namespace.
    fn in_range(&self, reads: &mut Reads, mesh: &MeshRow, ns: &Str) -> Vec<&'t Arc<GatewayRow>> {
        let is_ingress = |row: &&Arc<GatewayRow>| row.controller == GatewayController::Ingress;
        if *ns == mesh.root_namespace {
            let all = self.gateways.scan(reads).map(|(_, row)| row);
            return all.filter(is_ingress).collect();
        }
        let keys = self.waypoints.by::<WaypointByNamespace>(reads, ns);
        let keys: Vec<&ObjectKey> = keys.map(|(key, _)| key).collect();
        let rows = keys
            .into_iter()
            .filter_map(|key| self.gateways.get(reads, key));
        rows.filter(is_ingress).collect()
    }

    /// Those of them that `wanted` holds for and one of whose instances the selector means.
    pub(super) fn selected(
        &self,
        reads: &mut Reads,
        mesh: &MeshRow,
        (ns, selector): (&Str, Option<&Labels>),
        wanted: impl Fn(&GatewayRow) -> bool,
    ) -> Vec<&'t Arc<GatewayRow>> {
        let mut found = self.in_range(reads, mesh, ns);
        found.retain(|row| {
            wanted(row) && {
                let instances = instances(row, self.workloads, reads);
                let selected = Selected {
                    gateway: &row.key,
                    root: &mesh.root_namespace,
                    instances: &instances,
                };
                selected.meets(selector)
            }
        });
        found
    }
}
