//! Persistence of sessions. Source: spec/gateway-api.md §6.3.

use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3 as session;
use envoy_types::pb::envoy::extensions::http::stateful_session as state;
use envoy_types::pb::envoy::r#type::http::v3::Cookie;

use super::super::wire::{duration, extension};
use crate::ir::SessionIr;

/// Name of the filter, by which routes configure it.
pub(in super::super) const FILTER: &str = "envoy.filters.http.stateful_session";

/// What the filter does for a route.
pub(super) fn per_route(ir: &SessionIr) -> session::StatefulSessionPerRoute {
    use session::stateful_session_per_route::Override;
    let state = match ir {
        SessionIr::Cookie { name, path, ttl } => {
            let cookie = Cookie {
                name: name.to_string(),
                ttl: (!ttl.is_zero()).then(|| duration(*ttl)),
                path: path.to_string(),
                ..Default::default()
            };
            let config = state::cookie::v3::CookieBasedSessionState {
                cookie: Some(cookie),
            };
            extension("envoy.http.stateful_session.cookie", &config)
        }
        SessionIr::Header(name) => {
            let config = state::header::v3::HeaderBasedSessionState {
                name: name.to_string(),
            };
            extension("envoy.http.stateful_session.header", &config)
        }
    };
    session::StatefulSessionPerRoute {
        r#override: Some(Override::StatefulSession(session::StatefulSession {
            session_state: Some(state),
            ..Default::default()
        })),
    }
}
