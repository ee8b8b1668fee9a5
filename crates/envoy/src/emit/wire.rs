//! Small constructors of messages that everything needs.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::{Any, Duration, UInt32Value};
use envoy_types::pb::xds;
use ipnet::IpNet;
use prost::{Message, Name};

use crate::ir::StrMatch;

/// Canonical bytes of a message. Maps of the bindings are hash maps; the descriptors put
/// their entries in order.
pub(super) fn encode<M: Message + Name>(message: &M) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    // A type that the pool lacks would keep its own order: right, but not stable. The test
    // of all emitted types sees to it that there is none.
    proto::canonical::canonicalize(&M::full_name(), &bytes).unwrap_or(bytes)
}

/// A message in an `Any`.
pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// An extension of `envoy.config.core`.
pub(super) fn extension<M: Message + Name>(name: &str, config: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig {
        name: name.into(),
        typed_config: Some(any(config)),
    }
}

/// An extension of `xds.core`.
pub(super) fn xds_extension(name: &str, config: Any) -> xds::core::v3::TypedExtensionConfig {
    xds::core::v3::TypedExtensionConfig {
        name: name.into(),
        typed_config: Some(config),
    }
}

pub(super) fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

pub(super) fn uint32(value: u32) -> UInt32Value {
    UInt32Value { value }
}

/// An address range as Envoy spells it.
pub(super) fn cidr(net: &IpNet) -> core::CidrRange {
    core::CidrRange {
        address_prefix: net.addr().to_string(),
        prefix_len: Some(uint32(net.prefix_len().into())),
    }
}

/// A socket address; a host name is allowed in DNS clusters.
pub(super) fn socket(host: &str, port: u16) -> core::Address {
    use core::socket_address::PortSpecifier;
    let socket = core::SocketAddress {
        address: host.into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

/// The address of an internal listener.
pub(super) fn internal(listener: &str, endpoint_id: String) -> core::Address {
    use core::envoy_internal_address::AddressNameSpecifier;
    let address = core::EnvoyInternalAddress {
        endpoint_id,
        address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener.into())),
    };
    core::Address {
        address: Some(core::address::Address::EnvoyInternalAddress(address)),
    }
}

/// `ip:port`, IPv6 in brackets.
pub(super) fn ip_port(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

/// A string condition.
pub(super) fn string(condition: &StrMatch, ignore_case: bool) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    let pattern = match condition {
        StrMatch::Exact(text) => MatchPattern::Exact(text.to_string()),
        StrMatch::Prefix(text) => MatchPattern::Prefix(text.to_string()),
        StrMatch::Suffix(text) => MatchPattern::Suffix(text.to_string()),
        StrMatch::Contains(text) => MatchPattern::Contains(text.to_string()),
        StrMatch::Present => MatchPattern::SafeRegex(regex(".+")),
    };
    matcher::StringMatcher {
        ignore_case,
        match_pattern: Some(pattern),
    }
}

/// An RE2 expression.
pub(super) fn regex(text: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: text.into(),
        engine_type: None,
    }
}
