//! Conditions on dynamic metadata. Source: spec/policy-and-traffic.md §1.4, §1.8, §2.3.

use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
use matcher::value_matcher::MatchPattern;

use super::wire::string;
use crate::ir::StrMatch;

/// Where `jwt_authn` leaves what it verified.
const JWT: &str = "envoy.filters.http.jwt_authn";
/// Key of the verified payload there.
pub(super) const PAYLOAD: &str = "payload";

/// A condition on an entry of the metadata of a filter.
pub(super) fn entry<'a>(
    filter: &str,
    path: impl IntoIterator<Item = &'a str>,
    value: matcher::ValueMatcher,
) -> matcher::MetadataMatcher {
    let segment = |key: &str| PathSegment {
        segment: Some(Segment::Key(key.into())),
    };
    matcher::MetadataMatcher {
        filter: filter.into(),
        path: path.into_iter().map(segment).collect(),
        value: Some(value),
        invert: false,
    }
}

/// A condition on a claim of the verified token.
pub(super) fn claim(path: &[model::Str], value: matcher::ValueMatcher) -> matcher::MetadataMatcher {
    let path = std::iter::once(PAYLOAD).chain(path.iter().map(|key| &**key));
    entry(JWT, path, value)
}

/// One of these texts; `None` without any, which nothing is.
pub(super) fn one_of(texts: &[StrMatch]) -> Option<matcher::ValueMatcher> {
    let value = |text: &StrMatch| text_value(string(text, false));
    match texts {
        [] => None,
        [only] => Some(value(only)),
        several => Some(or(several.iter().map(value).collect())),
    }
}

/// A text.
pub(super) fn text_value(text: matcher::StringMatcher) -> matcher::ValueMatcher {
    wrap(MatchPattern::StringMatch(text))
}

/// Something is there.
pub(super) fn present() -> matcher::ValueMatcher {
    wrap(MatchPattern::PresentMatch(true))
}

/// The value is so, or is a list with one that is so.
pub(super) fn itself_or_item(value: matcher::ValueMatcher) -> matcher::ValueMatcher {
    or(vec![item(value.clone()), value])
}

/// A list with one that is so.
pub(super) fn item(value: matcher::ValueMatcher) -> matcher::ValueMatcher {
    let one_of = matcher::list_matcher::MatchPattern::OneOf(Box::new(value));
    let list = matcher::ListMatcher {
        match_pattern: Some(one_of),
    };
    wrap(MatchPattern::ListMatch(Box::new(list)))
}

fn or(value_matchers: Vec<matcher::ValueMatcher>) -> matcher::ValueMatcher {
    wrap(MatchPattern::OrMatch(matcher::OrMatcher { value_matchers }))
}

fn wrap(pattern: MatchPattern) -> matcher::ValueMatcher {
    matcher::ValueMatcher {
        match_pattern: Some(pattern),
    }
}
