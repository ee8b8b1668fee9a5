//! Stage `deployments`: a Gateway whose deployment is ours → [`DeploymentRow`], the objects that
//! it runs as.
//!
//! It decides and renders; nothing is written here, and nothing that is served depends on it.
//! Source: spec/gateway-api.md §2.1, §2.2, §2.7.

use std::sync::Arc;

use flow::{Output, Reads, View};
use model::input::{Gateway, MeshConfig, Namespace};
use model::ownership::Revisions;
use model::secret::ConfigMap;
use model::{
    DeploymentRow, Finding, GatewayRow, Kind, MeshRow, ObjectKey, ObjectRef, Parsed, Severity, Str,
    defaults,
};

use crate::deployment::decide::ANNOTATION_CONTROLLER_VERSION;
use crate::deployment::{
    Decision, Overlay, Question, RenderError, Rendered, Settings, Subject, Why, decide, render,
};
use crate::index::ConfigMapByClass;
use crate::status::is_ours;

#[cfg(test)]
mod tests;

/// Users that OpenShift gives to the pods of a namespace.
const ANNOTATION_UID_RANGE: &str = "openshift.io/sa.scc.uid-range";

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct DeploymentView<'t> {
    /// What the control plane's configuration says of proxies; `None` where it deploys none.
    pub settings: Option<&'t Settings>,
    /// Gateways.
    pub gateways: View<'t, ObjectKey, Parsed<Gateway>>,
    /// What was made of them.
    pub rows: View<'t, ObjectKey, GatewayRow>,
    /// ConfigMaps; index [`ConfigMapByClass`].
    pub config_maps: View<'t, ObjectKey, Parsed<ConfigMap>>,
    /// Mesh config, for `defaultConfig`.
    pub mesh_configs: View<'t, ObjectKey, Parsed<MeshConfig>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// What is ours.
    pub revisions: View<'t, (), Revisions>,
    /// Namespaces.
    pub namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
}

type DeploymentOutput = Output<ObjectKey, DeploymentRow, Finding>;

/// The deployment of a Gateway; none where it is not ours to make, or the Gateway or its namespace
/// is going.
///
/// Where it cannot be rendered the row has no objects, and a finding says why.
pub fn derive(key: &ObjectKey, view: &DeploymentView<'_>, reads: &mut Reads) -> DeploymentOutput {
    let Some(object) = view.gateways.get(reads, key) else {
        return DeploymentOutput::gone();
    };
    let Some(settings) = view.settings else {
        return DeploymentOutput::none();
    };
    let (Some(row), Some(gateway)) = (view.rows.get(reads, key), object.ok()) else {
        return DeploymentOutput::none();
    };
    let ns = ObjectKey::cluster(key.ns.clone());
    let namespace = view.namespaces.get(reads, &ns);
    let is_ending = object.meta.deleting || namespace.is_some_and(|ns| ns.meta.deleting);
    if is_ending || row.class_defect.is_some() {
        return DeploymentOutput::none();
    }
    let version = object.meta.annotation(ANNOTATION_CONTROLLER_VERSION);
    let decision = decide(Question {
        controller: Some(row.controller),
        is_our_revision: is_ours(&object.meta, view.revisions, view.namespaces, reads),
        is_managed: row.is_managed,
        version: version.map(Str::as_str),
    });
    let claim = match decision {
        Decision::Make { claim } => claim,
        Decision::Leave(why) => {
            let note = left(key, why, version.map_or("", Str::as_str));
            return DeploymentOutput::none().with_notes(note);
        }
    };
    let settings = in_force(settings, view, reads);
    let subject = Subject {
        meta: &object.meta,
        row,
        gateway,
        proxy_configs: &[],
        proxy_user: proxy_user(&settings, &key.ns, view, reads),
    };
    let (objects, notes) = match made(&subject, &settings, view, reads) {
        Ok(rendered) => {
            let notes = rendered.ignored.iter();
            let notes: Vec<Finding> = notes.map(|(field, why)| ignored(key, field, why)).collect();
            (rendered.objects, notes)
        }
        Err(error) => {
            let notes: Vec<Finding> = refused(row, &error).into_iter().collect();
            (Vec::new(), notes)
        }
    };
    let deployment = DeploymentRow {
        gateway: key.clone(),
        uid: object.meta.uid.clone(),
        claim,
        objects,
    };
    DeploymentOutput::one(key.clone(), deployment).with_notes(notes)
}

/// The settings together with what mesh config and the system namespace say.
fn in_force(settings: &Settings, view: &DeploymentView<'_>, reads: &mut Reads) -> Settings {
    let mut out = settings.clone();
    if let Some(mesh) = view.mesh.get(reads, &()) {
        out.trust_domain = mesh.trust_domain.clone();
        out.domain = mesh.domain.clone();
        out.cluster_id = mesh.cluster_id.clone();
        if out.network.is_empty() {
            out.network = mesh.network.clone();
        }
    }
    let key = ObjectKey::new(defaults::ROOT_NAMESPACE, "istio");
    let config = view.mesh_configs.get(reads, &key);
    if let Some(config) = config.and_then(|config| config.ok()) {
        out.proxy_config.clone_from(&config.default_config);
    }
    out
}

/// User and group that OpenShift lets proxies of a namespace have: the last one of its range.
fn proxy_user(
    settings: &Settings,
    ns: &Str,
    view: &DeploymentView<'_>,
    reads: &mut Reads,
) -> Option<i64> {
    if !settings.is_openshift {
        return None;
    }
    let namespace = view
        .namespaces
        .get(reads, &ObjectKey::cluster(ns.clone()))?;
    last_of(namespace.meta.annotation(ANNOTATION_UID_RANGE)?)
}

/// The last number of `FIRST/COUNT` or `FIRST-LAST`.
fn last_of(range: &str) -> Option<i64> {
    let number = |text: &str| text.trim().parse::<i64>().ok().filter(|it| *it >= 0);
    if let Some((first, count)) = range.split_once('/') {
        let count = number(count).filter(|count| *count > 0)?;
        return number(first)?.checked_add(count - 1);
    }
    range.split_once('-').and_then(|(_, last)| number(last))
}

/// Renders with the overlays of the class, then of the Gateway.
fn made(
    subject: &Subject<'_>,
    settings: &Settings,
    view: &DeploymentView<'_>,
    reads: &mut Reads,
) -> Result<Rendered, RenderError> {
    let of_class = ObjectKey::new(settings.system_namespace.clone(), subject.row.class.clone());
    let of_class = view.config_maps.by::<ConfigMapByClass>(reads, &of_class);
    let of_class: Vec<&Arc<Parsed<ConfigMap>>> = of_class.map(|(_, map)| map).collect();
    let mut overlays = Vec::new();
    if let Some(map) = Overlay::oldest(of_class) {
        overlays.push(Overlay::of(map)?);
    }
    // A reference that cannot be followed has its defect in the row, which ends rendering.
    let own = subject.gateway.infrastructure.parameters.as_ref();
    if let Some(own) = own.filter(|_| subject.row.parameters_defect.is_none()) {
        let key = ObjectKey::new(subject.row.key.ns.clone(), own.name.clone());
        if let Some(map) = view.config_maps.get(reads, &key) {
            overlays.push(Overlay::of(map)?);
        }
    }
    let overlays: Vec<&Overlay> = overlays.iter().collect();
    render(subject, settings, &overlays)
}

/// What is said of a Gateway that another controller of ours has in hand, as it seems.
fn left(key: &ObjectKey, why: Why, version: &str) -> Option<Finding> {
    let because = match why {
        Why::UnreadableVersion => "which is no number",
        Why::NewerController => "and that is newer than this one",
        // By design, or said elsewhere.
        Why::ForeignClass | Why::OtherRevision | Why::NoTemplate | Why::Manual => return None,
    };
    let finding = Finding::new(
        "gw-deployment-left",
        Severity::Warning,
        ObjectRef::new(Kind::Gateway, key.clone()),
        arcstr::format!(
            "Its deployment is neither made nor changed: a controller of version {version:?} made it, {because}"
        ),
        "Remove the annotation if no other control plane runs this Gateway",
    );
    Some(finding.at(arcstr::format!(
        "metadata.annotations[{ANNOTATION_CONTROLLER_VERSION}]"
    )))
}

fn refused(row: &GatewayRow, error: &RenderError) -> Option<Finding> {
    if row.parameters_defect.is_some() {
        // Finding `gw-refused` has said so.
        return None;
    }
    let gateway = ObjectRef::new(Kind::Gateway, row.key.clone());
    let (field, problem) = if error.object == gateway {
        let problem = arcstr::format!("{} {}", error.field, error.problem);
        (Str::from(error.field.as_str()), problem)
    } else {
        (Str::new(), arcstr::format!("{error}"))
    };
    let message = arcstr::format!(
        "Nothing of its deployment is applied, and what runs stays as it is: {problem}"
    );
    let fix = "Correct what the message names";
    let code = "gw-deployment-render";
    Some(Finding::new(code, Severity::Error, gateway, message, fix).at(field))
}

/// Fields of the Gateway are its own; those of mesh config are said once.
fn ignored(key: &ObjectKey, field: &str, why: &str) -> Finding {
    let (object, what) = if field.starts_with("defaultConfig.") {
        let config = ObjectKey::new(defaults::ROOT_NAMESPACE, "istio");
        let object = ObjectRef::new(Kind::MeshConfig, config);
        (object, "It has no effect on deployed gateways")
    } else {
        let object = ObjectRef::new(Kind::Gateway, key.clone());
        (object, "It has no effect on the deployment")
    };
    Finding::new(
        "gw-deployment-ignored",
        Severity::Warning,
        object,
        arcstr::format!("{what}: {why}"),
        "Remove it, or ask for pods of Istio's proxy with annotation ambientd.io/proxy: istio",
    )
    .at(Str::from(field))
}
