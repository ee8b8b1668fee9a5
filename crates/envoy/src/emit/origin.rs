//! Paths of the objects that something comes from, as metadata name them.
//! Source: spec/envoy-config.md §5.2.

use envoy_types::pb::envoy::config::core::v3 as core;
use model::{ObjectKey, ObjectRef};

use super::cluster::text_struct;

/// `/apis/<group>/<version>/namespaces/<ns>/<kebab-kind>/<name>`.
pub(super) fn path(kind: &str, key: &ObjectKey) -> String {
    let group = match kind {
        "VirtualService" | "DestinationRule" | "ServiceEntry" => "networking.istio.io/v1",
        _ => "gateway.networking.k8s.io/v1",
    };
    format!(
        "/apis/{group}/namespaces/{}/{}/{}",
        key.ns,
        kebab(kind),
        key.name
    )
}

/// Metadata that name an object.
pub(super) fn metadata(object: &ObjectRef) -> core::Metadata {
    let path = path(&object.kind, &object.key);
    core::Metadata {
        filter_metadata: [("istio".to_owned(), text_struct(&[("config", &path)]))].into(),
        ..Default::default()
    }
}

/// `HTTPRoute` → `http-route`, `VirtualService` → `virtual-service`: a hyphen before each
/// capital that follows a small letter or is followed by one.
fn kebab(kind: &str) -> String {
    let mut out = String::with_capacity(kind.len() + 2);
    let mut before = None;
    let mut rest = kind.chars().peekable();
    while let Some(c) = rest.next() {
        let inner = before.is_some_and(|b: char| {
            !b.is_uppercase() || rest.peek().is_some_and(|n| n.is_lowercase())
        });
        if c.is_uppercase() && inner {
            out.push('-');
        }
        out.extend(c.to_lowercase());
        before = Some(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_in_kebab_case_under_their_group() {
        let key = ObjectKey::new("a", "x");
        let cases = [
            (
                "HTTPRoute",
                "/apis/gateway.networking.k8s.io/v1/namespaces/a/http-route/x",
            ),
            (
                "GRPCRoute",
                "/apis/gateway.networking.k8s.io/v1/namespaces/a/grpc-route/x",
            ),
            (
                "VirtualService",
                "/apis/networking.istio.io/v1/namespaces/a/virtual-service/x",
            ),
            (
                "DestinationRule",
                "/apis/networking.istio.io/v1/namespaces/a/destination-rule/x",
            ),
        ];
        for (kind, expected) in cases {
            assert_eq!(path(kind, &key), expected);
        }
    }
}
