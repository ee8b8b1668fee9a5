//! What a managed Gateway consists of: a ServiceAccount, a Deployment, a Service and, where an
//! overlay asks for them, a HorizontalPodAutoscaler and a PodDisruptionBudget.
//!
//! [`decide()`] says whether they are ours to make, [`render`] makes them: the template of the
//! Gateway's class (`template`), then the patches of the class's and the Gateway's own
//! ConfigMap ([`overlay`], [`patch`]), then the label that says whose they are.
//!
//! Equal input gives equal bytes. Source: spec/gateway-api.md §2.

pub mod decide;
pub mod overlay;
pub mod patch;
pub mod proxy_config;
pub mod settings;
mod template;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use model::Kind;
use model::finding::ObjectRef;
use model::gateway::GatewayRow;
use model::input::Gateway;
use model::labels::LABEL_GATEWAY_MANAGED;
use model::object::{Labels, Meta};
pub use model::{DeploymentRow, ManagedObject};

pub use self::decide::{Decision, Question, Why, decide};
pub use self::overlay::{Overlay, OverlayKind};
pub use self::proxy_config::ProxyConfigLayer;
pub use self::settings::{PodForm, PodForms, Settings};

/// A Gateway whose objects are made.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its metadata, with all of its annotations.
    pub meta: &'a Meta,
    /// What was made of it. Its listeners give the ports of the Service.
    pub row: &'a GatewayRow,
    /// Its spec.
    pub gateway: &'a Gateway,
    /// ProxyConfigs for its pods, the widest scope first: root namespace, namespace, selector.
    pub proxy_configs: &'a [ProxyConfigLayer],
    /// User and group that OpenShift gives to proxies of the namespace.
    pub proxy_user: Option<i64>,
}

/// What a Gateway consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<ManagedObject>,
    /// What was asked for and is not done: the field, and why.
    pub ignored: Vec<(String, String)>,
}

/// Why nothing is made of a Gateway. What was made before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {} {field}: {problem}", object.kind, object.key)]
pub struct RenderError {
    /// The object to blame: the Gateway or a ConfigMap.
    pub object: ObjectRef,
    /// Field of that object.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

// === impl RenderError ===

impl RenderError {
    fn of(object: ObjectRef, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            object,
            field: field.into(),
            problem: problem.into(),
        }
    }

    fn of_gateway(
        subject: &Subject<'_>,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        let object = ObjectRef::new(Kind::Gateway, subject.row.key.clone());
        Self::of(object, field, problem)
    }
}

/// Makes the objects of a Gateway. `overlays` are those of its class and its own, in the order
/// in which they are applied.
///
/// # Errors
/// The Gateway refers to parameters that cannot be, asks for a form of pods that there is not,
/// or an overlay cannot be applied. Nothing is to be applied then.
pub fn render(
    subject: &Subject<'_>,
    settings: &Settings,
    overlays: &[&Overlay],
) -> Result<Rendered, RenderError> {
    if let Some(defect) = &subject.row.parameters_defect {
        let field = "spec.infrastructure.parametersRef";
        return Err(RenderError::of_gateway(
            subject,
            field,
            defect.message.as_str(),
        ));
    }
    let template = template::Template::new(subject, settings)?;
    let mut objects = Vec::new();
    for kind in OverlayKind::ALL {
        let is_optional = matches!(
            kind,
            OverlayKind::HorizontalPodAutoscaler | OverlayKind::PodDisruptionBudget
        );
        if is_optional && !overlays.iter().any(|overlay| overlay.has(kind)) {
            continue;
        }
        let mut body = template.object(kind);
        for overlay in overlays {
            body = overlay.apply(kind, body)?;
        }
        let name = match kind {
            OverlayKind::ServiceAccount => &subject.row.service_account,
            _ => &subject.row.deployment,
        };
        label_managed(subject, &mut body);
        objects.push(ManagedObject {
            api_version: kind.api_version(),
            kind: kind.kind(),
            ns: subject.row.key.ns.clone(),
            name: name.clone(),
            body,
        });
    }
    Ok(Rendered {
        objects,
        ignored: template.ignored(),
    })
}

/// No overlay takes away the label by which a later controller knows the object.
fn label_managed(subject: &Subject<'_>, body: &mut Value) {
    let Some(managed) = subject.row.controller.managed_label() else {
        return;
    };
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match metadata.get_mut("labels").and_then(Value::as_object_mut) {
        Some(labels) => {
            labels.insert(LABEL_GATEWAY_MANAGED.to_owned(), json!(managed));
        }
        None => {
            metadata.insert("labels".to_owned(), json!({LABEL_GATEWAY_MANAGED: managed}));
        }
    }
}

fn labels_value(labels: &Labels) -> Map<String, Value> {
    labels
        .iter()
        .map(|(key, value)| (key.to_string(), json!(value.as_str())))
        .collect()
}
