//! Labels and annotations. Source: spec/gateway-api.md §2.4.

use serde_json::{Map, Value, json};

use model::labels::{
    ANNOTATION_TRAFFIC_DISTRIBUTION, LABEL_DATAPLANE_MODE, LABEL_GATEWAY_MANAGED,
    LABEL_GATEWAY_NAME, LABEL_NETWORK, LABEL_REVISION,
};
use model::object::Labels;

use super::super::decide::ANNOTATION_CONTROLLER_VERSION;
use super::super::settings::Settings;
use super::super::{Subject, labels_value};
use super::{insert_some, is_waypoint};

const LABEL_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Keys that `spec.infrastructure` cannot give.
const RESERVED_PREFIX: &str = "gateway.networking.k8s.io/";
/// Annotations that are about the Gateway itself.
const OWN_ANNOTATIONS: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    model::gateway::ANNOTATION_NAME_OVERRIDE,
    model::gateway::ANNOTATION_SERVICE_ACCOUNT,
    ANNOTATION_CONTROLLER_VERSION,
];

/// What every object of a Gateway is labelled and annotated with.
pub(super) struct Metadata {
    /// Those that users ask for, and the defaults.
    pub(super) labels: Labels,
    annotations: Labels,
}

// === impl Metadata ===

impl Metadata {
    /// An annotation that the pods get.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(|value| value.as_str())
    }

    pub(super) fn new(subject: &Subject<'_>, settings: &Settings) -> Self {
        let wanted = |given: Option<&Labels>, own: &Labels| match given {
            Some(given) => given
                .iter()
                .filter(|(key, _)| !key.starts_with(RESERVED_PREFIX))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            None if settings.copies_metadata => own.clone(),
            None => Labels::new(),
        };
        let (meta, infrastructure) = (subject.meta, &subject.gateway.infrastructure);
        let mut labels = wanted(infrastructure.labels.as_ref(), &meta.labels);
        let mut annotations = wanted(infrastructure.annotations.as_ref(), &meta.annotations);
        annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
        if is_waypoint(subject.row.controller) {
            if !settings.network.is_empty() && meta.label(LABEL_NETWORK).is_none() {
                labels.insert_missing(LABEL_NETWORK.into(), settings.network.clone());
            }
        } else if settings.is_ambient && meta.label(LABEL_DATAPLANE_MODE).is_none() {
            // Nobody captures the traffic of who speaks for the mesh.
            labels.insert_missing(LABEL_DATAPLANE_MODE.into(), "none".into());
        }
        Self {
            labels,
            annotations,
        }
    }

    /// `metadata` of an object of the Gateway.
    pub(super) fn of_object(&self, subject: &Subject<'_>, name: &str) -> Value {
        self.with(subject, name, &self.annotations)
    }

    /// `metadata` of the Service.
    pub(super) fn of_service(&self, subject: &Subject<'_>, name: &str) -> Value {
        if !is_waypoint(subject.row.controller) {
            return self.of_object(subject, name);
        }
        let mut annotations = self.annotations.clone();
        annotations.insert_missing(ANNOTATION_TRAFFIC_DISTRIBUTION.into(), "PreferClose".into());
        self.with(subject, name, &annotations)
    }

    fn with(&self, subject: &Subject<'_>, name: &str, annotations: &Labels) -> Value {
        let mut labels = labels_value(&self.labels);
        label_of_gateway(subject, &mut labels);
        let mut metadata = json!({
            "name": name,
            "namespace": subject.row.key.ns.as_str(),
            "labels": labels,
        });
        // Objects of files have no uid, and who has none owns nothing.
        let uid = Some(subject.meta.uid.as_str()).filter(|uid| !uid.is_empty());
        let owner = uid.map(|uid| {
            json!([{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": subject.row.key.name.as_str(),
                "uid": uid,
            }])
        });
        insert_some(&mut metadata, "ownerReferences", owner);
        if let Some(fields) = metadata.as_object_mut().filter(|_| !annotations.is_empty()) {
            let annotations = Value::Object(labels_value(annotations));
            fields.insert("annotations".to_owned(), annotations);
        }
        metadata
    }

    /// `metadata` of the pod template.
    pub(super) fn of_pods(&self, subject: &Subject<'_>, settings: &Settings) -> Value {
        let mut labels = Map::new();
        let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), json!(value));
        set("sidecar.istio.io/inject", "false");
        set("service.istio.io/canonical-name", &subject.row.deployment);
        set("service.istio.io/canonical-revision", "latest");
        if is_waypoint(subject.row.controller) {
            set(LABEL_DATAPLANE_MODE, "none");
        }
        labels.extend(labels_value(&self.labels));
        label_of_gateway(subject, &mut labels);
        let mut annotations = labels_value(&self.annotations);
        let mut set = |key: &str, value: &str| annotations.insert(key.to_owned(), json!(value));
        set(
            LABEL_REVISION,
            settings.named_revision().unwrap_or("default"),
        );
        set("prometheus.io/path", "/stats/prometheus");
        set("prometheus.io/port", "15020");
        set("prometheus.io/scrape", "true");
        json!({"labels": labels, "annotations": annotations})
    }
}

/// Whose it is, whatever users say.
fn label_of_gateway(subject: &Subject<'_>, labels: &mut Map<String, Value>) {
    let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), json!(value));
    set(LABEL_GATEWAY_NAME, &subject.row.key.name);
    set(LABEL_CLASS_NAME, &subject.row.class);
    if let Some(managed) = subject.row.controller.managed_label() {
        set(LABEL_GATEWAY_MANAGED, managed);
    }
}
