#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;

#[test]
fn only_a_refusal_by_the_webhook_or_the_lack_of_a_test_passes() {
    let refused = "admission webhook \"rev.validation.istio.io\" denied the request: x";
    for (code, message, passes) in [
        (400, refused, true),
        (
            404,
            "the server could not find the requested resource",
            true,
        ),
        (404, "namespaces \"istio-system\" not found", false),
        (400, "admission webhook does not support dry run", true),
        (201, "", false),
        (403, "gateways is forbidden", false),
        (422, "spec: Required value", false),
        (500, "failed calling webhook: connection refused", false),
    ] {
        assert_eq!(verdict(code, message).is_ok(), passes, "{code} {message}");
    }
}

#[test]
fn configurations_are_written_only_where_they_differ() {
    let mut current: ValidatingWebhookConfiguration = serde_json::from_value(json!({
        "metadata": {"name": "a"},
        "webhooks": [
            {"name": "b", "clientConfig": {}, "failurePolicy": "Ignore",
             "admissionReviewVersions": ["v1"], "sideEffects": "None"},
            {"name": "c", "clientConfig": {"url": "https://x"}, "failurePolicy": "Fail",
             "admissionReviewVersions": ["v1"], "sideEffects": "None"},
        ],
    }))
    .unwrap();
    current = with_roots(&current, "roots").unwrap();
    let hooks = current.webhooks.as_ref().unwrap();
    let bundles = hooks
        .iter()
        .map(|hook| hook.client_config.ca_bundle.as_ref());
    assert!(bundles.flatten().all(|bundle| bundle.0 == b"roots"));
    assert_eq!(with_roots(&current, "roots"), None);
    assert!(with_roots(&current, "others").is_some());
    let bound = binding(&current).unwrap();
    assert_eq!(binding(&bound), None);
}
