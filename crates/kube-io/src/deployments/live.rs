//! What an object in the cluster decides about ours, when it is about to be applied.
//! Source: spec/gateway-api.md §2.5, §2.8.

use serde_json::Value;

use model::ManagedObject;
use model::labels::LABEL_GATEWAY_MANAGED;

/// The key that Deployments were selected by before 1.24.
const LABEL_OLD_GATEWAY_NAME: &str = "istio.io/gateway-name";

/// Whether an object may be applied: there is none of that name, or it says that a
/// controller manages it. One without that label is left alone.
pub(super) fn may_apply(live: Option<&Value>) -> bool {
    live.is_none_or(|live| {
        live.pointer("/metadata/labels")
            .and_then(|labels| labels.get(LABEL_GATEWAY_MANAGED))
            .is_some()
    })
}

/// Makes an object ready to be applied over the live one: selectors cannot be changed, so that
/// of an old Deployment is kept and its pods stay in it; and the decision to apply holds only
/// for the version that was looked at, so that version is in the object.
pub(super) fn adapt(object: &mut ManagedObject, live: Option<&Value>) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_others_are_left_alone() {
        assert!(may_apply(None));
        for (labels, may) in [
            (
                json!({"gateway.istio.io/managed": "istio.io-gateway-controller"}),
                true,
            ),
            (json!({"gateway.istio.io/managed": ""}), true),
            (json!({"app": "x"}), false),
            (Value::Null, false),
        ] {
            let live = json!({"metadata": {"name": "gw-istio", "labels": labels}});
            assert_eq!(may_apply(Some(&live)), may, "{live}");
        }
        assert!(!may_apply(Some(&json!({"metadata": {"name": "x"}}))));
    }

    fn deployment() -> ManagedObject {
        let labels = json!({"gateway.networking.k8s.io/gateway-name": "gw"});
        ManagedObject {
            api_version: "apps/v1",
            kind: "Deployment",
            ns: "shop".into(),
            name: "gw-istio".into(),
            body: json!({
                "metadata": {"name": "gw-istio"},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}},
                },
            }),
        }
    }

    #[test]
    fn the_version_that_was_looked_at_and_an_old_selector_are_kept() {
        let mut fresh = deployment();
        adapt(&mut fresh, None);
        assert_eq!(fresh, deployment());

        let mut current = deployment();
        let selector = json!({"matchLabels": {"gateway.networking.k8s.io/gateway-name": "gw"}});
        let live = json!({"metadata": {"resourceVersion": "7"}, "spec": {"selector": selector}});
        adapt(&mut current, Some(&live));
        assert_eq!(current.body["metadata"]["resourceVersion"], "7");
        assert_eq!(current.body["spec"], deployment().body["spec"]);

        let mut old = deployment();
        let selector = json!({"matchLabels": {"istio.io/gateway-name": "gw-old"}});
        let live = json!({"metadata": {"resourceVersion": "8"}, "spec": {"selector": selector}});
        adapt(&mut old, Some(&live));
        assert_eq!(old.body["spec"]["selector"], selector);
        let labels = &old.body["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["istio.io/gateway-name"], "gw-old");
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "gw");
    }
}
