//! The fixed stage order: a batch of inputs to a new snapshot.
//!
//! In: [`model::object::Input`] batches. Out: an immutable [`snapshot::Snapshot`] whenever a
//! batch changed something that is served or reported.
//!
//! **Invariants**
//! - Never does I/O, reads no clock; one owner calls [`Pipeline::apply`].
//! - Nothing is published until every kind delivered its first complete list.
//! - Any order, any batching and a run from scratch give equal tables and byte-identical
//!   resources.
//! - Stages run in the order in which `Stages::update` names them; each reads only
//!   tables that stand before it.

mod encode;
mod inputs;
mod stages;

use std::sync::Arc;

pub use ambient::mesh::MeshDefaults;
use flow::Touched;
pub use gateway::deployment::Settings as DeploymentSettings;
use model::object::Input;
use model::{Finding, Kind, MeshRow};
use snapshot::Snapshot;

use crate::encode::Resources;
use crate::inputs::Inputs;
use crate::stages::Stages;

/// Input tables, derived tables and the resources made of them.
pub struct Pipeline {
    inputs: Inputs,
    stages: Stages,
    resources: Resources,
    findings: Arc<[Finding]>,
    generation: u64,
    published: bool,
}

impl Pipeline {
    /// An empty pipeline for an installation with these settings.
    pub fn new(defaults: MeshDefaults) -> Self {
        Self {
            inputs: Inputs::new(defaults.revision.clone(), defaults.system_namespace.clone()),
            stages: Stages::new(defaults),
            resources: Resources::default(),
            findings: Arc::from([]),
            generation: 0,
            published: false,
        }
    }

    /// With what the configuration says of the proxies that are deployed for Gateways; with `None`
    /// none are. Otherwise the defaults of [`DeploymentSettings`] count.
    #[must_use]
    pub fn with_deployments(mut self, settings: Option<DeploymentSettings>) -> Self {
        self.stages.set_deployments(settings);
        self
    }

    /// Applies a batch. Returns the next snapshot if anything served or reported changed;
    /// never before every kind delivered its first complete list.
    pub fn apply(&mut self, batch: Vec<Input>) -> Option<Arc<Snapshot>> {
        let changes = self.inputs.apply(batch);
        let mut touched = Touched::new();
        changes.add_to(&mut touched);
        let derived = self.stages.update(&self.inputs, &changes, touched);
        let resources_changed = self.resources.update(&self.stages, &derived)
            | self.resources.update_foreign(&changes.revised, &derived)
            | self.resources.update_pods(&changes.pods);
        let told = changes.findings || derived.notes || !derived.revisions.rows().is_empty();
        let findings_changed = told && self.collect_findings();
        if self.waiting().next().is_some() {
            return None;
        }
        if self.published && !resources_changed && !findings_changed {
            return None;
        }
        self.published = true;
        self.generation += 1;
        Some(Arc::new(
            self.resources
                .snapshot(self.generation, Arc::clone(&self.findings)),
        ))
    }

    /// Kinds whose first complete list has not arrived.
    pub fn waiting(&self) -> impl Iterator<Item = Kind> + '_ {
        self.inputs.waiting()
    }

    /// Mesh-wide settings in force.
    pub fn mesh(&self) -> MeshRow {
        self.stages.mesh_row()
    }

    /// How many times a stage derived a primary so far. An edit must add what it concerns,
    /// however large the mesh is.
    pub fn run_count(&self) -> u64 {
        self.stages.run_count()
    }

    /// Collects findings of source, parse and stages; says whether they differ.
    fn collect_findings(&mut self) -> bool {
        let revisions = self.stages.revisions();
        let hidden: Vec<Finding> = self.inputs.hidden(&revisions).collect();
        // Sorted as references: most are the same as before, and then none is copied. What each
        // stage says is in order, which a stable sort makes use of.
        let mut all: Vec<&Finding> = self.inputs.findings().chain(&hidden).collect();
        self.stages.collect_notes(&mut all);
        all.sort();
        all.dedup();
        if self.findings.iter().eq(all.iter().copied()) {
            return false;
        }
        let all = all.into_iter().cloned().collect();
        self.findings = all;
        true
    }
}
