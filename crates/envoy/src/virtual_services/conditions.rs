//! Matches as conditions of routes. Source: spec/envoy-config.md §5.3.

use model::Str;
use model::input::{StringMatch, VirtualMatch, claim_of_header};

use crate::ir::{ClaimCondition, HeaderCondition, RoutePath, RouteValue};

/// The path of a match.
pub(super) fn path(m: &VirtualMatch) -> RoutePath {
    match &m.uri {
        None => RoutePath::Any,
        Some(StringMatch::Exact(text)) => RoutePath::Exact(text.clone()),
        Some(StringMatch::Prefix(text)) if text == "/" => RoutePath::Any,
        Some(StringMatch::Prefix(text)) => RoutePath::TextPrefix(text.clone()),
        Some(StringMatch::Regex(text)) => RoutePath::Regex(text.clone()),
    }
}

/// A value; `None` and the expression `*` ask for presence alone.
fn value(of: Option<&StringMatch>) -> RouteValue {
    match of {
        None => RouteValue::Present,
        Some(StringMatch::Regex(text)) if text == "*" => RouteValue::Present,
        Some(StringMatch::Prefix(text)) if text.is_empty() => RouteValue::Present,
        Some(StringMatch::Exact(text)) => RouteValue::Exact(text.clone()),
        Some(StringMatch::Prefix(text)) => RouteValue::Prefix(text.clone()),
        Some(StringMatch::Regex(text)) => RouteValue::Regex(text.clone()),
    }
}

/// Headers by name, those that must be absent among them, then method, authority and scheme.
pub(super) fn headers(m: &VirtualMatch) -> Vec<HeaderCondition> {
    let plain = |list: &[(Str, Option<StringMatch>)], invert: bool| {
        let own = list
            .iter()
            .filter(|(name, _)| claim_of_header(name).is_none());
        let condition = |(name, of): &(Str, Option<StringMatch>)| HeaderCondition {
            name: name.to_ascii_lowercase().into(),
            value: value(of.as_ref()),
            invert,
        };
        own.map(condition).collect::<Vec<_>>()
    };
    let mut out = plain(&m.headers, false);
    out.extend(plain(&m.without_headers, true));
    out.sort_by(|a, b| a.name.cmp(&b.name));
    let pseudo = [
        (":method", &m.method),
        (":authority", &m.authority),
        (":scheme", &m.scheme),
    ];
    out.extend(pseudo.into_iter().filter_map(|(name, of)| {
        Some(HeaderCondition {
            name: name.into(),
            value: value(Some(of.as_ref()?)),
            invert: false,
        })
    }));
    out
}

/// Claims of the verified token, which matches name as headers.
pub(super) fn claims(m: &VirtualMatch) -> Vec<ClaimCondition> {
    let list = |list: &[(Str, Option<StringMatch>)], invert: bool| {
        let claim = |(name, of): &(Str, Option<StringMatch>)| {
            Some(ClaimCondition {
                path: claim_of_header(name)?,
                value: value(of.as_ref()),
                invert,
            })
        };
        list.iter().filter_map(claim).collect::<Vec<_>>()
    };
    let mut out = list(&m.headers, false);
    out.extend(list(&m.without_headers, true));
    out
}

/// Query parameters.
pub(super) fn query(m: &VirtualMatch) -> Vec<(Str, RouteValue)> {
    let pair = |(name, of): &(Str, Option<StringMatch>)| (name.clone(), value(of.as_ref()));
    m.query.iter().map(pair).collect()
}
