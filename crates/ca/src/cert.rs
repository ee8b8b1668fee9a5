//! Certificates: reading those of CAs, writing those that we sign.
//!
//! Reading tolerates what real tools wrote; writing goes through typed structures,
//! so that no field of a certificate exists unless it is named here.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{
    BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, UtcTime,
};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::{Time, Validity};
use x509_parser::extensions::ParsedExtension;

use crate::CaError;
use crate::key::{self, PrivateKey};

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
/// How far certificates are dated back for clocks that lag.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// A certificate of a CA, with what signing under it needs.
#[derive(Clone, Debug)]
pub(crate) struct CaCert {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) subject: Name,
    /// Its issuer, as it stands there.
    pub(crate) issuer_raw: Vec<u8>,
    /// How many CAs may stand between it and a leaf; `None` for any number.
    pub(crate) path_len: Option<u32>,
    pub(crate) public_raw: Vec<u8>,
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

// === impl CaCert ===

impl CaCert {
    /// `O=` of the subject: of roots of Istio the trust domain.
    pub(crate) fn organization(&self) -> Option<String> {
        let (_, cert) = x509_parser::parse_x509_certificate(&self.der).ok()?;
        let text = cert.subject().iter_organization().next()?.as_str().ok()?;
        Some(text.to_owned())
    }

    /// Reads a certificate that may certify others.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        let (rest, cert) =
            x509_parser::parse_x509_certificate(der).map_err(|_| "not a certificate")?;
        if !rest.is_empty() {
            return Err("bytes after the certificate".to_owned());
        }
        if !cert.is_ca() {
            return Err("not the certificate of a CA".to_owned());
        }
        if let Ok(Some(usage)) = cert.key_usage()
            && !usage.value.key_cert_sign()
        {
            return Err("its key may not sign certificates".to_owned());
        }
        let key_id = cert.extensions().iter().find_map(|e| {
            let ParsedExtension::SubjectKeyIdentifier(id) = e.parsed_extension() else {
                return None;
            };
            Some(id.0.to_vec())
        });
        // Verifiers compare names byte by byte: what we write must be what is there.
        let subject = Name::from_der(cert.subject().as_raw())
            .ok()
            .filter(|name| name.to_der().is_ok_and(|d| d == cert.subject().as_raw()))
            .ok_or("its subject is not in canonical form")?;
        let at = |time: x509_parser::time::ASN1Time| {
            u64::try_from(time.timestamp())
                .map(|secs| UNIX_EPOCH + Duration::from_secs(secs))
                .map_err(|_| "has no usable validity")
        };
        let constraints = cert.basic_constraints().ok().flatten();
        Ok(Self {
            subject,
            issuer_raw: cert.issuer().as_raw().to_vec(),
            path_len: constraints.and_then(|it| it.value.path_len_constraint),
            public_raw: cert.public_key().subject_public_key.data.to_vec(),
            key_id,
            not_before: at(cert.validity().not_before)?,
            not_after: at(cert.validity().not_after)?,
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Whether its name is that of its issuer: path lengths do not count it.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.is_named(&self.issuer_raw)
    }

    /// Whether this is its name.
    pub(crate) fn is_named(&self, name_raw: &[u8]) -> bool {
        self.subject.to_der().is_ok_and(|own| own == name_raw)
    }

    /// Whether both are the same authority: one name and one key.
    pub(crate) fn is_same_authority(&self, other: &Self) -> bool {
        self.subject == other.subject && self.public_raw == other.public_raw
    }
}

/// The certificates in a PEM text, in order. Text between them is skipped, any
/// other PEM block is an error: a bundle is public, and a key pasted into it must
/// not be handed out.
pub(crate) fn certificates(pem_text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let blocks = pem::parse_many(pem_text).map_err(|_| "not in PEM form")?;
    if blocks.len() != pem_text.matches("-----BEGIN ").count() {
        return Err("not in PEM form".to_owned());
    }
    blocks
        .into_iter()
        .map(|block| match block.tag() {
            "CERTIFICATE" => Ok(CertificateDer::from(block.into_contents())),
            "X509 CRL" => Err("holds a revocation list where certificates belong".to_owned()),
            tag if tag.ends_with("PRIVATE KEY") => {
                Err("holds a private key where certificates belong".to_owned())
            }
            _ => Err("holds something else than certificates".to_owned()),
        })
        .collect()
}

/// One certificate as a PEM block that ends with a newline.
pub(crate) fn to_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

/// A name to certify.
pub(crate) enum San<'a> {
    Uri(&'a str),
    Dns(&'a str),
    Ip(IpAddr),
}

/// What a leaf says of itself.
pub(crate) struct Leaf<'a> {
    pub(crate) spki_der: &'a [u8],
    pub(crate) common_name: Option<&'a str>,
    pub(crate) sans: &'a [San<'a>],
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// Signs a leaf. Source: spec/control-plane.md §4.4.
pub(crate) fn sign_leaf(
    leaf: &Leaf<'_>,
    issuer: &CaCert,
    key: &PrivateKey,
) -> Result<Vec<u8>, CaError> {
    let subject = match leaf.common_name {
        // RFC 4514 would give meaning to some characters; identities have none of them.
        Some(name) => format!("CN={name}").parse().map_err(CaError::crypto)?,
        None => Name::default(),
    };
    let names = leaf
        .sans
        .iter()
        .map(general_name)
        .collect::<Result<Vec<_>, _>>()?;
    let mut extensions = vec![
        extension(
            true,
            &KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment),
        )?,
        extension(false, &ExtendedKeyUsage(vec![SERVER_AUTH, CLIENT_AUTH]))?,
        extension(
            true,
            &BasicConstraints {
                ca: false,
                path_len_constraint: None,
            },
        )?,
    ];
    if let Some(id) = &issuer.key_id {
        let key_identifier = Some(OctetString::new(id.as_slice()).map_err(CaError::crypto)?);
        let authority = AuthorityKeyIdentifier {
            key_identifier,
            ..AuthorityKeyIdentifier::default()
        };
        extensions.push(extension(false, &authority)?);
    }
    extensions.push(extension(true, &SubjectAltName(names))?);
    let tbs = Tbs {
        subject,
        spki_der: leaf.spki_der,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        extensions,
    };
    sign(tbs, issuer.subject.clone(), key)
}

/// A self-signed root over a key.
///
/// `subject` is that of the root it renews, byte for byte, so that leaves below
/// either verify with the other.
pub(crate) fn sign_root(
    subject: Name,
    key: &PrivateKey,
    key_id: Option<Vec<u8>>,
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<Vec<u8>, CaError> {
    let key_id = key_id.unwrap_or_else(|| {
        // RFC 7093 method 1.
        let hash = digest::digest(&digest::SHA256, key.public_raw());
        hash.as_ref().iter().copied().take(20).collect()
    });
    let id = OctetString::new(key_id).map_err(CaError::crypto)?;
    let extensions = vec![
        extension(true, &KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
        extension(
            true,
            &BasicConstraints {
                ca: true,
                path_len_constraint: None,
            },
        )?,
        extension(false, &SubjectKeyIdentifier(id))?,
    ];
    let tbs = Tbs {
        subject: subject.clone(),
        spki_der: &key.public_der(),
        not_before,
        not_after,
        extensions,
    };
    sign(tbs, subject, key)
}

struct Tbs<'a> {
    subject: Name,
    spki_der: &'a [u8],
    not_before: SystemTime,
    not_after: SystemTime,
    extensions: Vec<Extension>,
}

fn sign(tbs: Tbs<'_>, issuer: Name, key: &PrivateKey) -> Result<Vec<u8>, CaError> {
    let algorithm = key
        .signature_algorithm()
        .ok_or_else(|| CaError::Crypto("the key of the CA cannot sign".to_owned()))?;
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&key::serial()?).map_err(CaError::crypto)?,
        signature: algorithm.clone(),
        issuer,
        validity: Validity {
            not_before: time(tbs.not_before)?,
            not_after: time(tbs.not_after)?,
        },
        subject: tbs.subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(tbs.spki_der)
            .map_err(CaError::crypto)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(tbs.extensions),
    };
    let signature = key.sign(&tbs_certificate.to_der().map_err(CaError::crypto)?)?;
    let certificate = Certificate {
        tbs_certificate,
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&signature).map_err(CaError::crypto)?,
    };
    certificate.to_der().map_err(CaError::crypto)
}

fn general_name(san: &San<'_>) -> Result<GeneralName, CaError> {
    let ia5 = |text: &str| Ia5String::new(text).map_err(CaError::crypto);
    Ok(match san {
        San::Uri(uri) => GeneralName::UniformResourceIdentifier(ia5(uri)?),
        San::Dns(name) => GeneralName::DnsName(ia5(name)?),
        San::Ip(ip) => GeneralName::IpAddress(
            match ip {
                IpAddr::V4(ip) => OctetString::new(ip.octets()),
                IpAddr::V6(ip) => OctetString::new(ip.octets()),
            }
            .map_err(CaError::crypto)?,
        ),
    })
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, CaError> {
    let content = value.to_der().map_err(CaError::crypto)?;
    Ok(Extension {
        extn_id: T::OID,
        critical,
        extn_value: OctetString::new(content).map_err(CaError::crypto)?,
    })
}

/// RFC 5280 §4.1.2.5: two-digit years through 2049.
fn time(at: SystemTime) -> Result<Time, CaError> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = DateTime::from_unix_duration(Duration::from_secs(since.as_secs()))
        .map_err(CaError::crypto)?;
    Ok(if at.year() < 2050 {
        Time::UtcTime(UtcTime::from_date_time(at).map_err(CaError::crypto)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_date_time(at))
    })
}
