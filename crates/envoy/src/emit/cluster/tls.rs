//! TLS that the waypoint itself opens. Source: spec/envoy-config.md §3.8,
//! spec/policy-and-traffic.md §7.6.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use model::Str;
use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

use super::super::tls::{credential, socket};
use super::super::wire::{file, string};
use crate::ir::{StrMatch, TlsAuthority, TlsCertificate, UpstreamTlsIr};

/// Where systems keep the roots that they trust. Envoy has a field for them that it does not
/// evaluate: with it alone every certificate would do.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The client side of a connection to a backend.
pub(super) fn backend(ir: &UpstreamTlsIr) -> core::TransportSocket {
    let mut common = tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12 as i32,
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
            ..Default::default()
        }),
        alpn_protocols: ir.h2.then(|| "h2".to_owned()).into_iter().collect(),
        validation_context_type: Some(validation(ir)),
        ..Default::default()
    };
    match &ir.certificate {
        None => {}
        Some(TlsCertificate::Files(chain, key)) => {
            common.tls_certificates = vec![tls::TlsCertificate {
                certificate_chain: Some(file(chain)),
                private_key: Some(file(key)),
                ..Default::default()
            }];
        }
        Some(TlsCertificate::Secret(name)) => {
            common.tls_certificate_sds_secret_configs = vec![credential(name)];
        }
    }
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: ir.sni.to_string(),
        auto_sni_san_validation: names_come_from_sni(ir),
        ..Default::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

/// The host of the request becomes the SNI.
pub(super) fn sni_comes_from_request(ir: &UpstreamTlsIr) -> bool {
    ir.sni.is_empty()
}

/// The certificate must be for the host of the request.
pub(super) fn names_come_from_request(ir: &UpstreamTlsIr) -> bool {
    sni_comes_from_request(ir) && ir.subject_alt_names.is_empty() && !ir.insecure
}

/// The certificate must be for the SNI that is given. With the roots of the system any owner
/// of any domain would do otherwise.
fn names_come_from_sni(ir: &UpstreamTlsIr) -> bool {
    !ir.sni.is_empty() && ir.subject_alt_names.is_empty() && !ir.insecure
}

fn validation(ir: &UpstreamTlsIr) -> ValidationContextType {
    if ir.insecure {
        return ValidationContextType::ValidationContext(Default::default());
    }
    let names = |name: &Str| tls::SubjectAltNameMatcher {
        san_type: kind_of(name) as i32,
        matcher: Some(string(&StrMatch::Exact(name.clone()), false)),
        oid: String::new(),
    };
    let mut context = tls::CertificateValidationContext {
        match_typed_subject_alt_names: ir.subject_alt_names.iter().map(names).collect(),
        ..Default::default()
    };
    match &ir.authority {
        TlsAuthority::System => context.trusted_ca = Some(file(SYSTEM_ROOTS)),
        TlsAuthority::File(path, revoked) => {
            context.trusted_ca = Some(file(path));
            context.crl = revoked.as_ref().map(|path| file(path));
        }
        TlsAuthority::Secret(name) => {
            return ValidationContextType::CombinedValidationContext(
                CombinedCertificateValidationContext {
                    default_validation_context: Some(context),
                    validation_context_sds_secret_config: Some(credential(name)),
                    ..Default::default()
                },
            );
        }
    }
    ValidationContextType::ValidationContext(context)
}

/// Which kind of name of a certificate a text is.
fn kind_of(name: &str) -> tls::subject_alt_name_matcher::SanType {
    use tls::subject_alt_name_matcher::SanType;
    if name.contains("://") {
        SanType::Uri
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        SanType::IpAddress
    } else if name.contains('@') {
        SanType::Email
    } else {
        SanType::Dns
    }
}
