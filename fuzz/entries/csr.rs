//! Any bytes are refused or give a public key that reads back; nothing panics.

use ca::{CSR_BYTES_MAX, Csr};

pub fn run(bytes: &[u8]) {
    if let Ok(csr) = Csr::from_der(bytes) {
        assert!(!csr.spki_der().is_empty() && bytes.len() <= CSR_BYTES_MAX);
    }
    let _ = ca::peer_spiffe_id(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Csr::from_pem(text);
        let _ = ca::TrustBundle::from_pem(text);
    }
}
