//! PKCS#10 requests: the public key is taken, everything else is ignored.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The largest request that is read, bytes of PEM.
pub const CSR_BYTES_MAX: usize = 64 * 1024;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_ED25519: &str = "1.3.101.112";
const OID_RSA_SHA256: &str = "1.2.840.113549.1.1.11";
const OID_RSA_SHA384: &str = "1.2.840.113549.1.1.12";
const OID_RSA_SHA512: &str = "1.2.840.113549.1.1.13";
const OID_ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const OID_ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const OID_ECDSA_SHA512: &str = "1.2.840.10045.4.3.4";

/// Why a request is not signed. No variant repeats any of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More than [`CSR_BYTES_MAX`].
    #[error("the request is larger than 64 KiB")]
    TooLarge,
    /// Not one PEM block, or not one of a certificate request.
    #[error("the request is not one PEM block of type CERTIFICATE REQUEST")]
    Pem,
    /// Not PKCS#10.
    #[error("the request is not PKCS#10")]
    Malformed,
    /// A key of a kind or size that is not accepted.
    #[error("the key is not EC P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519")]
    Key,
    /// A signature algorithm that is not accepted, or not one of the key.
    #[error("the request is signed with an algorithm that is not accepted")]
    Algorithm,
    /// The request is not signed by the key it contains.
    #[error("the request is not signed by its own key")]
    Signature,
}

/// What is taken from a request: a public key whose owner signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    spki_der: Vec<u8>,
    has_common_name: bool,
}

// === impl Csr ===

impl Csr {
    /// Reads a request and verifies that the owner of the key made it.
    ///
    /// # Errors
    /// [`CsrError`]; never panics, whatever the bytes.
    ///
    /// Source: spec/control-plane.md §4.4.
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        if text.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge);
        }
        // Several blocks are refused rather than guessed at.
        if text.matches("-----BEGIN ").count() != 1 {
            return Err(CsrError::Pem);
        }
        let block = pem::parse(text).map_err(|_| CsrError::Pem)?;
        if !["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&block.tag()) {
            return Err(CsrError::Pem);
        }
        Self::from_der(block.contents())
    }

    /// As [`Csr::from_pem`], without the armour.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge);
        }
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() || csr.signature_value.unused_bits != 0 {
            return Err(CsrError::Malformed);
        }
        let info = &csr.certification_request_info;
        let algorithm = csr.signature_algorithm.algorithm.to_id_string();
        let verifier = verifier(&info.subject_pki, &algorithm)?;
        UnparsedPublicKey::new(verifier, &info.subject_pki.subject_public_key.data)
            .verify(info.raw, &csr.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        let has_common_name = info
            .subject
            .iter_common_name()
            .any(|name| !name.attr_value().data.is_empty());
        Ok(Self {
            spki_der: info.subject_pki.raw.to_vec(),
            has_common_name,
        })
    }

    /// The public key as a SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Whether the request names a non-empty common name; which one never matters.
    pub fn has_common_name(&self) -> bool {
        self.has_common_name
    }
}

/// The algorithm that verifies a signature of this key, if key and algorithm are
/// accepted and fit each other.
fn verifier(
    spki: &SubjectPublicKeyInfo<'_>,
    signature: &str,
) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    if spki.subject_public_key.unused_bits != 0 {
        return Err(CsrError::Key);
    }
    let bits = &spki.subject_public_key.data;
    let parameters = spki.algorithm.parameters.as_ref();
    match spki.algorithm.algorithm.to_id_string().as_str() {
        OID_RSA => {
            let Ok(PublicKey::RSA(key)) = spki.parsed() else {
                return Err(CsrError::Key);
            };
            if !RSA_BITS.contains(&significant_bits(key.modulus)) {
                return Err(CsrError::Key);
            }
            match signature {
                OID_RSA_SHA256 => Ok(&signature::RSA_PKCS1_2048_8192_SHA256),
                OID_RSA_SHA384 => Ok(&signature::RSA_PKCS1_2048_8192_SHA384),
                OID_RSA_SHA512 => Ok(&signature::RSA_PKCS1_2048_8192_SHA512),
                _ => Err(CsrError::Algorithm),
            }
        }
        OID_EC => {
            let curve = parameters
                .and_then(|p| p.as_oid().ok())
                .map(|oid| oid.to_id_string())
                .ok_or(CsrError::Key)?;
            // Uncompressed points only: TLS knows no other form.
            let is_point = |len: usize| bits.first() == Some(&4) && bits.len() == len;
            match (curve.as_str(), signature) {
                (OID_P256, _) if !is_point(65) => Err(CsrError::Key),
                (OID_P384, _) if !is_point(97) => Err(CsrError::Key),
                (OID_P256, OID_ECDSA_SHA256) => Ok(&signature::ECDSA_P256_SHA256_ASN1),
                (OID_P256, OID_ECDSA_SHA384) => Ok(&signature::ECDSA_P256_SHA384_ASN1),
                (OID_P256, OID_ECDSA_SHA512) => Ok(&signature::ECDSA_P256_SHA512_ASN1),
                (OID_P384, OID_ECDSA_SHA256) => Ok(&signature::ECDSA_P384_SHA256_ASN1),
                (OID_P384, OID_ECDSA_SHA384) => Ok(&signature::ECDSA_P384_SHA384_ASN1),
                (OID_P384, OID_ECDSA_SHA512) => Ok(&signature::ECDSA_P384_SHA512_ASN1),
                (OID_P256 | OID_P384, _) => Err(CsrError::Algorithm),
                _ => Err(CsrError::Key),
            }
        }
        OID_ED25519 if parameters.is_some() || bits.len() != 32 => Err(CsrError::Key),
        OID_ED25519 if signature == OID_ED25519 => Ok(&signature::ED25519),
        OID_ED25519 => Err(CsrError::Algorithm),
        _ => Err(CsrError::Key),
    }
}

/// The length of a big-endian number without its leading zeros.
fn significant_bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    match number.get(zeros) {
        Some(first) => (number.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}
