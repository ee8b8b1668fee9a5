//! PEM in, PEM out: only the blocks that are meant to be served pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// Characters of a line of PEM.
const LINE_CHARS: usize = 64;

/// Certificates in order, written anew.
pub(super) struct Certificates {
    /// PEM.
    pub(super) pem: Vec<u8>,
    /// The public key of the first.
    pub(super) public_key: Vec<u8>,
    /// When the first ends, seconds since the epoch.
    pub(super) expires_s: i64,
}

/// The certificates of a value. Other blocks, private keys above all, are left out.
///
/// # Errors
/// What is wrong, in words without any part of the value.
pub(super) fn certificates(value: &[u8]) -> Result<Certificates, &'static str> {
    let mut out: Option<Certificates> = None;
    for block in Pem::iter_from_buffer(value) {
        let block = block.map_err(|_| "is not valid PEM")?;
        let contents = Zeroizing::new(block.contents);
        if block.label != "CERTIFICATE" {
            continue;
        }
        let (_, found) = X509Certificate::from_der(&contents)
            .map_err(|_| "has a block that is no certificate")?;
        let out = out.get_or_insert_with(|| Certificates {
            pem: Vec::new(),
            public_key: found.public_key().subject_public_key.data.to_vec(),
            expires_s: found.validity().not_after.timestamp(),
        });
        write("CERTIFICATE", &contents, &mut out.pem);
    }
    out.ok_or("has no certificate in PEM")
}

/// The revocation lists of a value, written anew.
///
/// # Errors
/// As above.
pub(super) fn revocations(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    for block in Pem::iter_from_buffer(value) {
        let block = block.map_err(|_| "is not valid PEM")?;
        let contents = Zeroizing::new(block.contents);
        if block.label == "X509 CRL" {
            CertificateRevocationList::from_der(&contents)
                .map_err(|_| "has a block that is no revocation list")?;
            write("X509 CRL", &contents, &mut out);
        }
    }
    if out.is_empty() {
        return Err("has no revocation list in PEM");
    }
    Ok(out)
}

/// The private key of a value, written anew, and its public key.
///
/// # Errors
/// As above.
pub(super) fn private_key(value: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), &'static str> {
    for block in Pem::iter_from_buffer(value) {
        let block = block.map_err(|_| "is not valid PEM")?;
        let contents = Zeroizing::new(block.contents);
        if !matches!(
            block.label.as_str(),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY"
        ) {
            continue;
        }
        let pair = rcgen::KeyPair::try_from(contents.as_slice())
            .map_err(|_| "is not a private key that can be used")?;
        let mut pem = Zeroizing::new(Vec::new());
        write(&block.label, &contents, &mut pem);
        return Ok((pem, pair.public_key_raw().to_vec()));
    }
    Err("has no private key in PEM")
}

fn write(label: &str, contents: &[u8], out: &mut Vec<u8>) {
    let text = Zeroizing::new(STANDARD.encode(contents));
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in text.as_bytes().chunks(LINE_CHARS) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}
