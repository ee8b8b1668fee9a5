//! Secrets: those of a local agent with their names (spec/envoy-config.md §7.2), and bodies
//! without a name, which whoever serves them adds: one body serves all names.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use model::SecretBytes;
use prost::Message as _;

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

/// A certificate chain with its private key, all PEM, and an OCSP response in DER.
pub(crate) fn certificate(chain: &[u8], key: &[u8], staple: Option<&[u8]>) -> SecretBytes {
    let certificate = tls::TlsCertificate {
        certificate_chain: Some(inline_bytes(chain)),
        private_key: Some(inline_bytes(key)),
        ocsp_staple: staple.map(inline_bytes),
        ..Default::default()
    };
    encode_nameless(tls::secret::Type::TlsCertificate(certificate))
}

/// Authorities and what they revoked, PEM.
pub(crate) fn authority(certificates: &[u8], revoked: Option<&[u8]>) -> SecretBytes {
    let context = tls::CertificateValidationContext {
        trusted_ca: Some(inline_bytes(certificates)),
        crl: revoked.map(inline_bytes),
        ..Default::default()
    };
    encode_nameless(tls::secret::Type::ValidationContext(context))
}

/// There is no map in it, so the encoding is canonical.
fn encode_nameless(body: tls::secret::Type) -> SecretBytes {
    let message = tls::Secret {
        name: String::new(),
        r#type: Some(body),
    };
    SecretBytes::new(message.encode_to_vec())
}

fn inline_bytes(bytes: &[u8]) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(bytes.to_vec())),
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
