//! What an object in the cluster decides about ours, when it is about to be applied.
//! Source: spec/gateway-api.md §2.5, §2.8.

use serde_json::Value;

use model::labels::LABEL_GATEWAY_MANAGED;

use super::ManagedObject;

/// The key that Deployments were selected by before 1.24.
const LABEL_OLD_GATEWAY_NAME: &str = "istio.io/gateway-name";

/// Whether an object may be applied: there is none of that name, or it says that a
/// controller manages it. One without that label is left alone.
pub fn may_apply(live: Option<&Value>) -> bool {
    live.is_none_or(|live| {
        live.pointer("/metadata/labels")
            .and_then(|labels| labels.get(LABEL_GATEWAY_MANAGED))
            .is_some()
    })
}

/// Makes an object ready to be applied over the live one: selectors cannot be changed, so that
/// of an old Deployment is kept and its pods stay in it; and the decision to apply holds only
/// for the version that was looked at, so that version is in the object.
pub fn adapt(object: &mut ManagedObject, live: Option<&Value>) {
    let Some(live) = live else {
        return;
    };
    if let Some(version) = live.pointer("/metadata/resourceVersion")
        && let Some(metadata) = object
            .body
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
    {
        metadata.insert("resourceVersion".to_owned(), version.clone());
    }
    let old = live
        .pointer("/spec/selector/matchLabels")
        .and_then(|labels| labels.get(LABEL_OLD_GATEWAY_NAME));
    let Some((value, selector)) = old.zip(live.pointer("/spec/selector")) else {
        return;
    };
    if object.kind != "Deployment" {
        return;
    }
    if let Some(spec) = object.body.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("selector".to_owned(), selector.clone());
    }
    let labels = object.body.pointer_mut("/spec/template/metadata/labels");
    if let Some(labels) = labels.and_then(Value::as_object_mut) {
        labels.insert(LABEL_OLD_GATEWAY_NAME.to_owned(), value.clone());
    }
}
