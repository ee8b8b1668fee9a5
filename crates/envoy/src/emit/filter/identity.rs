//! The client's identity for applications. Source: spec/envoy-config.md §2.4.

use core::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as mutation;

/// Name of the filter.
pub(in super::super) const NAME: &str = "istio.waypoint.xfcc_client_identity";

/// What a client sent is overwritten, so that nobody can claim to be another.
pub(in super::super) fn config() -> mutation::HeaderMutation {
    let value = "By=%FILTER_STATE(io.istio.local_principal:PLAIN)%;\
                 URI=%FILTER_STATE(io.istio.peer_principal:PLAIN)%";
    let option = core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: "x-forwarded-client-cert".into(),
            value: value.into(),
            ..Default::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    };
    mutation::HeaderMutation {
        mutations: Some(mutation::Mutations {
            request_mutations: vec![rules::HeaderMutation {
                action: Some(rules::header_mutation::Action::Append(option)),
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
