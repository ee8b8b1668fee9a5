//! Which versions of TLS and which cipher suites our listeners offer.
//!
//! Source: spec/control-plane.md §1.1.

use std::collections::BTreeSet;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ProtocolVersion, SupportedCipherSuite};

/// Bounds of what is offered: by default TLS 1.2 and 1.3, with every suite that is considered safe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsLimits {
    is_13_only: bool,
    /// Suites of TLS 1.2; `None` is all. Those of TLS 1.3 cannot be chosen, as with istiod.
    suites: Option<BTreeSet<String>>,
}

// === impl TlsLimits ===

impl TlsLimits {
    /// Reads the two flags. What is not known is returned as flag and message; it never adds to
    /// what is offered.
    pub fn read(version: Option<&str>, suites: &[String]) -> (Self, Vec<(&'static str, String)>) {
        let mut ignored = Vec::new();
        let text = version.unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let is_13_only = digits == "13";
        if !text.is_empty() && !matches!(digits.as_str(), "12" | "13") {
            let text: String = text.chars().take(40).collect();
            let message =
                format!("TLS {text:?} cannot be the lowest version: 1.2 and 1.3 are offered");
            ignored.push(("tls-min-version", message));
        }
        let names = suites
            .iter()
            .map(|name| name.trim())
            .filter(|name| !name.is_empty());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let known: BTreeSet<String> = aws_lc_rs::default_provider()
            .cipher_suites
            .iter()
            .filter(|suite| !is_13(suite))
            .map(name)
            .collect();
        let unknown: Vec<&str> = names
            .difference(&known)
            .map(String::as_str)
            .take(10)
            .collect();
        if !unknown.is_empty() {
            let left = names.intersection(&known).count();
            let unknown: String = unknown.join(", ").chars().take(400).collect();
            let left = match left {
                0 => "TLS 1.3 alone is offered".to_owned(),
                left => format!("{left} of TLS 1.2 are left, and TLS 1.3"),
            };
            let message = format!("Not offered, or not to be chosen, are {unknown}: {left}");
            ignored.push(("tls-cipher-suites", message));
        }
        let limits = Self {
            is_13_only,
            suites: (!names.is_empty()).then_some(names),
        };
        (limits, ignored)
    }

    /// The cryptography of listeners.
    pub fn provider(&self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| {
            let is_chosen = || {
                self.suites
                    .as_ref()
                    .is_none_or(|all| all.contains(&name(suite)))
            };
            is_13(suite) || (!self.is_13_only && is_chosen())
        });
        provider
    }
}

fn is_13(suite: &SupportedCipherSuite) -> bool {
    suite.version().version == ProtocolVersion::TLSv1_3
}

/// As the register of cipher suites, and Go, have it.
fn name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(version: Option<&str>, suites: &[&str]) -> (usize, usize, usize) {
        let suites: Vec<String> = suites.iter().map(|&name| name.to_owned()).collect();
        let (limits, ignored) = TlsLimits::read(version, &suites);
        let all = limits.provider().cipher_suites;
        let newer = all.iter().filter(|suite| is_13(suite)).count();
        (newer, all.len() - newer, ignored.len())
    }

    #[test]
    fn flags_take_away_and_never_add() {
        let (newer, older, _) = offered(None, &[]);
        assert!(newer > 0 && older > 1);
        for version in ["1.3", "TLSv1_3", "VersionTLS13"] {
            assert_eq!(offered(Some(version), &[]), (newer, 0, 0), "{version}");
        }
        for version in ["1.2", "TLSv1_2", "VersionTLS12", ""] {
            assert_eq!(offered(Some(version), &[]), (newer, older, 0), "{version}");
        }
        for version in ["1.0", "new"] {
            assert_eq!(offered(Some(version), &[]), (newer, older, 1), "{version}");
        }
        let one = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
        assert_eq!(offered(None, &[one]), (newer, 1, 0));
        assert_eq!(
            offered(None, &[one, "TLS_RSA_WITH_RC4_128_SHA"]),
            (newer, 1, 1)
        );
        assert_eq!(offered(None, &["TLS_RSA_WITH_RC4_128_SHA"]), (newer, 0, 1));
        assert_eq!(offered(Some("1.3"), &[one]), (newer, 0, 0));
    }
}
