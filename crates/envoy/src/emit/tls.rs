//! TLS of HBONE. Source: spec/envoy-config.md §2.1, §7.1; spec/control-plane.md §4.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::BoolValue;
use model::Str;
use model::proxy::SecretSource;
use prost::{Message, Name};

use super::wire::{any, seconds, string};
use crate::ir::{ServerTlsIr, StrMatch, TlsIr};

/// A transport socket.
pub(super) fn socket<M: Message + Name>(name: &str, config: &M) -> core::TransportSocket {
    use core::transport_socket::ConfigType;
    let config_type = Some(ConfigType::TypedConfig(any(config)));
    core::TransportSocket {
        name: name.into(),
        config_type,
    }
}

/// The plain transport socket.
pub(super) fn raw() -> core::TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

/// The server side: a client certificate is required.
pub(super) fn downstream(ir: &TlsIr) -> core::TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common(ir)),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

/// The client side.
pub(super) fn upstream(ir: &TlsIr) -> core::TransportSocket {
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common(ir)),
        ..Default::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

fn common(ir: &TlsIr) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let version = tls::tls_parameters::TlsProtocol::TlSv13 as i32;
    let matcher = |domain: &Str| tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri as i32,
        matcher: Some(string(
            &StrMatch::Prefix(arcstr::format!("spiffe://{domain}/")),
            false,
        )),
        oid: String::new(),
    };
    let default = tls::CertificateValidationContext {
        match_typed_subject_alt_names: ir.trust_domains.iter().map(matcher).collect(),
        ..Default::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(default),
        validation_context_sds_secret_config: Some(secret("ROOTCA", ir.secrets)),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: version,
            tls_maximum_protocol_version: version,
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret("default", ir.secrets)],
        alpn_protocols: vec!["h2".into()],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    }
}

/// The server side of a gateway. Source: spec/envoy-config.md §6.5.
pub(super) fn server(ir: &ServerTlsIr) -> core::TransportSocket {
    use model::gateway::TlsMode;
    let is_required = matches!(ir.mode, TlsMode::Mutual | TlsMode::IstioMutual);
    let of_mesh = matches!(ir.mode, TlsMode::IstioSimple | TlsMode::IstioMutual);
    let certificates = if of_mesh {
        vec![secret("default", ir.mesh.secrets)]
    } else {
        ir.credentials.iter().map(|name| credential(name)).collect()
    };
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: (!ir.cipher_suites.is_empty()).then(|| tls::TlsParameters {
                cipher_suites: ir.cipher_suites.iter().map(Str::to_string).collect(),
                ..Default::default()
            }),
            tls_certificate_sds_secret_configs: certificates,
            alpn_protocols: vec!["h2".into(), "http/1.1".into()],
            validation_context_type: clients(ir),
            ..Default::default()
        }),
        require_client_certificate: Some(BoolValue { value: is_required }),
        ..Default::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

/// What clients of a gateway must show; `None` where nobody looks.
fn clients(ir: &ServerTlsIr) -> Option<tls::common_tls_context::ValidationContextType> {
    use model::gateway::TlsMode;
    use tls::certificate_validation_context::TrustChainVerification;
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let (source, default) = match ir.mode {
        TlsMode::Simple
        | TlsMode::IstioSimple
        | TlsMode::Passthrough
        | TlsMode::AutoPassthrough => return None,
        TlsMode::IstioMutual => {
            return common(&ir.mesh).validation_context_type;
        }
        TlsMode::Mutual | TlsMode::OptionalMutual => {
            // Without authorities nobody is vouched for: a name that is never answered.
            let name = ir.authority.as_deref().unwrap_or("invalid://");
            let mut default = tls::CertificateValidationContext::default();
            if ir.accepts_untrusted {
                default.trust_chain_verification = TrustChainVerification::AcceptUntrusted as i32;
            }
            (credential(name), default)
        }
    };
    Some(ValidationContextType::CombinedValidationContext(
        CombinedCertificateValidationContext {
            default_validation_context: Some(default),
            validation_context_sds_secret_config: Some(source),
            ..Default::default()
        },
    ))
}

/// A secret of the control plane. Nothing waits for it for ever: the chain or cluster stays, and
/// handshakes fail as long as it is missing.
pub(super) fn credential(name: &str) -> tls::SdsSecretConfig {
    let sds_config = core::ConfigSource {
        initial_fetch_timeout: None,
        ..super::cluster::ads()
    };
    tls::SdsSecretConfig {
        name: name.into(),
        sds_config: Some(sds_config),
    }
}

/// A secret: from the node's agent, or (without source) a static one of the bootstrap.
fn secret(name: &str, source: SecretSource) -> tls::SdsSecretConfig {
    let sds_config = match source {
        SecretSource::SdsGrpc => Some(agent()),
        SecretSource::Bootstrap => None,
    };
    tls::SdsSecretConfig {
        name: name.into(),
        sds_config,
    }
}

fn agent() -> core::ConfigSource {
    use core::config_source::ConfigSourceSpecifier;
    let grpc = core::grpc_service::EnvoyGrpc {
        cluster_name: "sds-grpc".into(),
        ..Default::default()
    };
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    core::ConfigSource {
        initial_fetch_timeout: Some(seconds(0)),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
        ..Default::default()
    }
}
