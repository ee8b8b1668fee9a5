//! Secrets without their name, which whoever serves them adds: one body serves all names.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use model::SecretBytes;
use prost::Message as _;

/// A certificate chain with its private key, all PEM, and an OCSP response in DER.
pub(crate) fn certificate(chain: &[u8], key: &[u8], staple: Option<&[u8]>) -> SecretBytes {
    let certificate = tls::TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ocsp_staple: staple.map(inline),
        ..Default::default()
    };
    encode(tls::secret::Type::TlsCertificate(certificate))
}

/// Authorities and what they revoked, PEM.
pub(crate) fn authority(certificates: &[u8], revoked: Option<&[u8]>) -> SecretBytes {
    let context = tls::CertificateValidationContext {
        trusted_ca: Some(inline(certificates)),
        crl: revoked.map(inline),
        ..Default::default()
    };
    encode(tls::secret::Type::ValidationContext(context))
}

/// There is no map in it, so the encoding is canonical.
fn encode(body: tls::secret::Type) -> SecretBytes {
    let message = tls::Secret {
        name: String::new(),
        r#type: Some(body),
    };
    SecretBytes::new(message.encode_to_vec())
}

fn inline(bytes: &[u8]) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..Default::default()
    }
}
