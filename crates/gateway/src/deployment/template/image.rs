//! Images. Source: spec/gateway-api.md §2.5, §2.11.

use super::Template;

const ANNOTATION_IMAGE: &str = "sidecar.istio.io/proxyImage";
const ANNOTATION_IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";

/// Annotations that choose among Istio's images.
pub(super) const ANNOTATIONS: [&str; 2] = [ANNOTATION_IMAGE, ANNOTATION_IMAGE_TYPE];

/// Istio's proxy image: the Gateway's own annotations, then ProxyConfig, then settings.
pub(super) fn istio(template: &Template<'_>) -> String {
    let settings = &template.settings.istio_image;
    let annotation = |key| {
        let value = template.subject.meta.annotation(key)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    };
    let name = annotation(ANNOTATION_IMAGE).unwrap_or(&settings.name);
    if name.contains('/') {
        return name.to_owned();
    }
    let name = if name.is_empty() { "proxyv2" } else { name };
    let variant = annotation(ANNOTATION_IMAGE_TYPE)
        .or_else(|| template.proxy.image_type())
        .unwrap_or(&settings.variant);
    let (hub, tag) = (&settings.hub, &settings.tag);
    // `default` is the image without a suffix.
    if variant.is_empty() || variant == "default" {
        format!("{hub}/{name}:{tag}")
    } else {
        format!("{hub}/{name}:{tag}-{variant}")
    }
}
