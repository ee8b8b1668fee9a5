//! The objects of a Gateway as they are before overlays. Source: spec/gateway-api.md §2.3-2.6.

mod container;
mod env;
mod image;
mod metadata;
mod pod;
mod service;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use model::gateway::GatewayController;
use model::labels::LABEL_GATEWAY_NAME;

use self::metadata::Metadata;
use super::overlay::parse_text;
use super::proxy_config::{self, ProxyConfig};
use super::settings::{PodForm, Settings};
use super::{OverlayKind, RenderError, Subject};

/// Which form the pods of a Gateway have: `istio` or `stock`.
pub(super) const ANNOTATION_FORM: &str = "ambientd.io/proxy";

/// Annotation of pods with their own proxy configuration, which comes between that of the mesh
/// and ProxyConfig objects. Source: spec/policy-and-traffic.md §5.5.
const ANNOTATION_CONFIG: &str = "proxy.istio.io/config";

/// Everything that the template needs.
pub(super) struct Template<'a> {
    subject: &'a Subject<'a>,
    settings: &'a Settings,
    form: PodForm,
    proxy: ProxyConfig,
    metadata: Metadata,
    /// Why the pods' own proxy configuration cannot be read.
    bad_config: Option<String>,
}

// === impl Template ===

impl<'a> Template<'a> {
    pub(super) fn new(
        subject: &'a Subject<'a>,
        settings: &'a Settings,
    ) -> Result<Self, RenderError> {
        let form = match subject.meta.annotation(ANNOTATION_FORM) {
            None => settings.forms.of(subject.row.controller),
            Some(word) => PodForm::named(word).ok_or_else(|| {
                RenderError::of_gateway(
                    subject,
                    format!("metadata.annotations[{ANNOTATION_FORM}]"),
                    format!("{word:?} is neither `istio` nor `stock`"),
                )
            })?,
        };
        let metadata = Metadata::new(subject, settings);
        let mut mesh = settings.proxy_config.clone();
        let written = metadata.annotation(ANNOTATION_CONFIG).map(parse_text);
        let mut bad_config = None;
        match written {
            None => {}
            Some(Ok(own)) => proxy_config::merge(&mut mesh, own),
            Some(Err(why)) => bad_config = Some(why),
        }
        Ok(Self {
            subject,
            settings,
            form,
            proxy: ProxyConfig::new(&mesh, subject.proxy_configs, settings.control_plane()),
            metadata,
            bad_config,
        })
    }

    /// The object of a kind.
    pub(super) fn object(&self, kind: OverlayKind) -> Value {
        match kind {
            OverlayKind::ServiceAccount => self.service_account(),
            OverlayKind::Deployment => self.deployment(),
            OverlayKind::Service => service::service(self),
            OverlayKind::HorizontalPodAutoscaler => self.autoscaler(),
            OverlayKind::PodDisruptionBudget => self.budget(),
        }
    }

    /// What the Gateway or the configuration asks for and pods of this form do not do: the
    /// field and why.
    pub(super) fn ignored(&self) -> Vec<(String, String)> {
        let bad = self.bad_config.iter().map(|why| {
            let at = format!("metadata.annotations[{ANNOTATION_CONFIG}]");
            (at, format!("it cannot be read: it {why}"))
        });
        bad.chain(container::ignored(self)).collect()
    }

    fn service_account(&self) -> Value {
        let name = &self.subject.row.service_account;
        let mut metadata = self.metadata.of_object(self.subject, name);
        if let Some(fields) = metadata
            .as_object_mut()
            .filter(|_| !self.settings.owns_service_accounts)
        {
            fields.remove("ownerReferences");
        }
        whole(OverlayKind::ServiceAccount, metadata, None)
    }

    fn deployment(&self) -> Value {
        let name = &self.subject.row.deployment;
        let spec = json!({
            "selector": {"matchLabels": self.selector()},
            "template": pod::template(self),
        });
        let metadata = self.metadata.of_object(self.subject, name);
        whole(OverlayKind::Deployment, metadata, Some(spec))
    }

    fn autoscaler(&self) -> Value {
        let name = &self.subject.row.deployment;
        let spec = json!({
            "scaleTargetRef": {
                "apiVersion": OverlayKind::Deployment.api_version(),
                "kind": OverlayKind::Deployment.kind(),
                "name": name.as_str(),
            },
            "maxReplicas": 1,
        });
        let metadata = self.metadata.of_object(self.subject, name);
        whole(OverlayKind::HorizontalPodAutoscaler, metadata, Some(spec))
    }

    fn budget(&self) -> Value {
        let name = &self.subject.row.deployment;
        let spec = json!({"selector": {"matchLabels": self.selector()}});
        let metadata = self.metadata.of_object(self.subject, name);
        whole(OverlayKind::PodDisruptionBudget, metadata, Some(spec))
    }

    /// The label that the pods of a Gateway, and nobody else's, have.
    fn selector(&self) -> Value {
        json!({LABEL_GATEWAY_NAME: self.subject.row.key.name.as_str()})
    }

    /// A waypoint, or a gateway between networks, which has the same template.
    fn is_waypoint(&self) -> bool {
        is_waypoint(self.subject.row.controller)
    }

    fn is_east_west(&self) -> bool {
        self.subject.row.controller == GatewayController::EastWest
    }
}

fn is_waypoint(controller: GatewayController) -> bool {
    matches!(
        controller,
        GatewayController::Waypoint | GatewayController::EastWest
    )
}

/// `apiVersion`, `kind`, `metadata` and, if any, `spec`.
fn whole(kind: OverlayKind, metadata: Value, spec: Option<Value>) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind(),
        "metadata": metadata,
    });
    insert_some(&mut object, "spec", spec);
    object
}

/// Adds a field where there is a value for it.
fn insert_some(fields: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(fields), Some(value)) = (fields.as_object_mut(), value) {
        fields.insert(name.to_owned(), value);
    }
}
