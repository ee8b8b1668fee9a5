//! TLS of HBONE. Source: spec/envoy-config.md §2.1, §7.1; spec/control-plane.md §4.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::BoolValue;
use model::proxy::SecretSource;
use prost::{Message, Name};

use super::wire::{any, seconds, string};
use crate::ir::{StrMatch, TlsIr};

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
    let matcher = |domain: &model::Str| tls::SubjectAltNameMatcher {
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
