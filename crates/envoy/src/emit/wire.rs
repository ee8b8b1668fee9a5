//! Small constructors of messages that everything needs.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use envoy_types::pb::xds;
use ipnet::IpNet;
use prost::{Message, Name};

use crate::ir::StrMatch;

/// Longest duration that is emitted.
const DURATION_MAX: std::time::Duration = std::time::Duration::from_secs(3_155_760_000);

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

/// A duration, cut at what every field of Envoy still takes (a hundred years).
pub(super) fn duration(of: std::time::Duration) -> Duration {
    let of = of.min(DURATION_MAX);
    Duration {
        seconds: i64::try_from(of.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(of.subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn uint32(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(super) fn boolean(value: bool) -> BoolValue {
    BoolValue { value }
}

/// A share in parts per million.
pub(super) fn per_million(numerator: u32) -> FractionalPercent {
    FractionalPercent {
        numerator,
        denominator: fractional_percent::DenominatorType::Million as i32,
    }
}

/// A share without a runtime key.
pub(super) fn fraction(share: FractionalPercent) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent {
        default_value: Some(share),
        runtime_key: String::new(),
    }
}

/// A file of the proxy.
pub(super) fn file(path: &str) -> core::DataSource {
    data(core::data_source::Specifier::Filename(path.into()))
}

/// Content that stands in the message.
pub(super) fn data(specifier: core::data_source::Specifier) -> core::DataSource {
    core::DataSource {
        specifier: Some(specifier),
        ..Default::default()
    }
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

/// Text as RE2 matches it literally: everything but ASCII letters, digits and `_` is escaped,
/// and what is not ASCII stands for itself.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
