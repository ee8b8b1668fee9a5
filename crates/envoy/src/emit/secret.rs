//! Secrets of a local agent. Source: spec/envoy-config.md §7.2.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;

use super::wire;

/// A certificate with its key, PEM; encoded as `Secret`.
pub fn tls_secret(name: &str, chain_pem: &str, key_pem: &str) -> Vec<u8> {
    let certificate = tls::TlsCertificate {
        certificate_chain: Some(inline(chain_pem)),
        private_key: Some(inline(key_pem)),
        ..Default::default()
    };
    secret(name, tls::secret::Type::TlsCertificate(certificate))
}

/// The roots that peers must chain to, PEM; encoded as `Secret`. Names are matched by the
/// TLS contexts that refer to it.
pub fn validation_secret(name: &str, roots_pem: &str) -> Vec<u8> {
    let context = tls::CertificateValidationContext {
        trusted_ca: Some(inline(roots_pem)),
        ..Default::default()
    };
    secret(name, tls::secret::Type::ValidationContext(context))
}

fn secret(name: &str, content: tls::secret::Type) -> Vec<u8> {
    wire::encode(&tls::Secret {
        name: name.into(),
        r#type: Some(content),
    })
}

fn inline(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.into())),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_hold_their_pem_inline() {
        let cases = [
            (
                tls_secret("default", "CHAIN", "KEY"),
                json!({"name": "default", "tls_certificate": {
                    "certificate_chain": {"inline_string": "CHAIN"},
                    "private_key": {"inline_string": "KEY"},
                }}),
            ),
            (
                validation_secret("ROOTCA", "ROOTS"),
                json!({"name": "ROOTCA", "validation_context": {
                    "trusted_ca": {"inline_string": "ROOTS"},
                }}),
            ),
        ];
        for (bytes, expected) in cases {
            let wanted = proto::json::from_json(proto::type_url::SECRET, expected).unwrap();
            assert_eq!(bytes, wanted);
        }
    }
}
