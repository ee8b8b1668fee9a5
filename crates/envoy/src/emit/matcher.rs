//! The matcher tree of `main_internal`. Source: spec/envoy-config.md §2.3.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3 as inputs;
use envoy_types::pb::google::protobuf::{Any, StringValue};
use envoy_types::pb::xds::r#type::matcher::v3 as matcher;
use ipnet::IpNet;
use model::Str;
use prost::{Message, Name};

use super::wire::{any, xds_extension};
use crate::ir::{PortTarget, RangeIr, RangeTarget};
use matcher::matcher::on_match::OnMatch as On;
use matcher::matcher::{MatcherTree, MatcherType, OnMatch, matcher_tree};

/// Filter state with what the outer tunnel names.
pub(super) const AUTHORITY: &str = "io.istio.connect_authority";
/// Filter state with what opened it.
pub(super) const SOURCE: &str = "io.istio.source";

/// By what the tunnel names, where anything can be reached so, then by destination address.
pub(super) fn tree(
    authorities: &BTreeMap<Str, PortTarget>,
    ranges: &[RangeIr],
) -> matcher::Matcher {
    let by_address = by_address(ranges);
    if authorities.is_empty() {
        return by_address;
    }
    let entry = |(name, target): (&Str, &PortTarget)| (name.to_string(), port_target(target));
    let map = authorities.iter().map(entry).collect();
    state_of(AUTHORITY, map, Some(nested(by_address)))
}

/// By a text of filter state.
fn state_of(
    key: &str,
    map: BTreeMap<String, OnMatch>,
    otherwise: Option<OnMatch>,
) -> matcher::Matcher {
    let input = inputs::FilterStateInput {
        key: key.into(),
        ..Default::default()
    };
    let map = matcher_tree::TreeType::ExactMatchMap(matcher_tree::MatchMap {
        map: map.into_iter().collect(),
    });
    tree_of(key, &input, map, otherwise)
}

/// By destination address. Without any range nothing matches, which is not the same as no
/// matcher: then every chain would have to match by itself.
fn by_address(ranges: &[RangeIr]) -> matcher::Matcher {
    let ip = proto::IpMatcher {
        range_matchers: ranges.iter().map(range).collect(),
    };
    let config = Any {
        type_url: proto::type_url::IP_MATCHER.into(),
        value: ip.encode_to_vec(),
    };
    let by_ip = matcher_tree::TreeType::CustomMatch(xds_extension("ip", config));
    tree_of("ip", &inputs::DestinationIpInput {}, by_ip, None)
}

fn range(ir: &RangeIr) -> proto::IpRangeMatcher {
    let cidr = |net: &IpNet| proto::CidrRange {
        address_prefix: net.addr().to_string(),
        prefix_len: Some(net.prefix_len().into()),
    };
    let inner = match &ir.target {
        RangeTarget::Service(ports) => {
            let entry =
                |(port, target): (&u16, &PortTarget)| (port.to_string(), port_target(target));
            let map = matcher_tree::MatchMap {
                map: ports.iter().map(entry).collect(),
            };
            let by_port = matcher_tree::TreeType::ExactMatchMap(map);
            tree_of("port", &inputs::DestinationPortInput {}, by_port, None)
        }
        RangeTarget::Workloads => sniff("direct-http", "direct-tcp"),
    };
    proto::IpRangeMatcher {
        ranges: ir.ranges.iter().map(cidr).collect(),
        on_match: nested(inner).encode_to_vec(),
        exclusive: false,
    }
}

fn port_target(target: &PortTarget) -> OnMatch {
    match target {
        PortTarget::Chain(name) => chain(name),
        PortTarget::Sniffed { http, tcp } => nested(sniff(http, tcp)),
        PortTarget::BySource {
            of_waypoints,
            of_gateways,
            of_others,
        } => {
            let of_gateways = of_gateways.iter().map(|name| ("gateway", name));
            let known = [("waypoint", of_waypoints)].into_iter().chain(of_gateways);
            let map = known.map(|(source, name)| (source.to_owned(), chain(name)));
            let others = of_others.as_ref().map(|name| chain(name));
            nested(state_of(SOURCE, map.collect(), others))
        }
    }
}

/// By what the HTTP inspector found. The quotes are part of the values.
fn sniff(http: &str, tcp: &str) -> matcher::Matcher {
    let keys = ["'h2c'", "'http/1.1'"];
    let map = keys.map(|key| (key.to_owned(), chain(http)));
    let map = matcher_tree::MatchMap { map: map.into() };
    tree_of(
        "application-protocol",
        &inputs::ApplicationProtocolInput {},
        matcher_tree::TreeType::ExactMatchMap(map),
        Some(chain(tcp)),
    )
}

fn tree_of<M: Message + Name>(
    name: &str,
    input: &M,
    tree: matcher_tree::TreeType,
    otherwise: Option<OnMatch>,
) -> matcher::Matcher {
    let tree = MatcherTree {
        input: Some(xds_extension(name, any(input))),
        tree_type: Some(tree),
    };
    matcher::Matcher {
        on_no_match: otherwise.map(Box::new),
        matcher_type: Some(MatcherType::MatcherTree(tree)),
    }
}

fn chain(name: &str) -> OnMatch {
    let value = any(&StringValue { value: name.into() });
    OnMatch {
        on_match: Some(On::Action(xds_extension(name, value))),
        ..Default::default()
    }
}

fn nested(inner: matcher::Matcher) -> OnMatch {
    OnMatch {
        on_match: Some(On::Matcher(Box::new(inner))),
        ..Default::default()
    }
}
