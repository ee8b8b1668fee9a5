//! Any bytes are refused or give a public key that reads back; nothing panics.
//! Seeds: `cargo fuzz run csr crates/ca/testdata/csr`.
#![no_main]

use ca::Csr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(csr) = Csr::from_der(bytes) {
        assert!(!csr.spki_der().is_empty());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Csr::from_pem(text);
        let _ = ca::TrustBundle::from_pem(text);
    }
});
