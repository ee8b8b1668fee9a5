//! Filters of rules as Envoy has them. Source: spec/gateway-api.md §6.3; spec/envoy-config.md §5.4.

use std::time::Duration;

use model::Str;
use model::input::{
    HeaderEdits, HttpCors, HttpRedirect, HttpRewrite, HttpRule, PathModifier, RouteFilter,
    SessionPersistence,
};

use super::headers;
use crate::ir::{CorsIr, OriginMatch, PathRewrite, RedirectIr, RoutePath, SessionIr};

/// The filters of a rule or backend, of which each type counts once.
#[derive(Default)]
pub(super) struct Filters<'r> {
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
    /// Host that a header asks for.
    pub(super) host: Option<Str>,
    pub(super) redirect: Option<&'r HttpRedirect>,
    pub(super) rewrite: Option<&'r HttpRewrite>,
    pub(super) cors: Option<&'r HttpCors>,
}

impl<'r> Filters<'r> {
    pub(super) fn of(filters: &'r [RouteFilter]) -> Self {
        let mut out = Self::default();
        // Backwards, so that the first one of a type is the one that stays.
        for filter in filters.iter().rev() {
            match filter {
                RouteFilter::RequestHeaders(edits) => {
                    (out.request, out.host) = headers::split(edits);
                }
                RouteFilter::ResponseHeaders(edits) => (out.response, _) = headers::split(edits),
                RouteFilter::Redirect(redirect) => out.redirect = Some(redirect),
                RouteFilter::Rewrite(rewrite) => out.rewrite = Some(rewrite),
                RouteFilter::Cors(cors) => out.cors = Some(cors),
                RouteFilter::Mirror(_) | RouteFilter::Unsupported(_) | RouteFilter::Invalid(..) => {
                }
            }
        }
        out
    }
}

/// A redirect from a port to which requests come in plain HTTP or in HTTPS. Its port is the one
/// given, else that of the scheme, else the one of the request; it is left out where the scheme
/// implies it.
pub(super) fn redirect(
    filter: &HttpRedirect,
    path: &RoutePath,
    (port, https): (u16, bool),
) -> RedirectIr {
    let of_scheme = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let scheme = filter.scheme.as_ref();
    let default = scheme.map(|scheme| of_scheme(scheme));
    let implied = if https { 443 } else { 80 };
    let port = filter.port.or(default).unwrap_or(port);
    RedirectIr {
        status: filter.status,
        scheme: filter.scheme.clone(),
        host: filter.host.clone(),
        port: (port != default.unwrap_or(implied)).then_some(port),
        path: path_rewrite(filter.path.as_ref(), path),
    }
}

/// What becomes of a path that was matched in this way.
pub(super) fn path_rewrite(
    modifier: Option<&PathModifier>,
    path: &RoutePath,
) -> Option<PathRewrite> {
    let prefix = match modifier? {
        PathModifier::Full(text) => return Some(PathRewrite::Full(text.clone())),
        PathModifier::Prefix(text) => text.trim_end_matches('/'),
    };
    match path {
        RoutePath::Prefix(matched) if prefix.is_empty() => {
            Some(PathRewrite::StripPrefix(matched.clone()))
        }
        RoutePath::Exact(_) if prefix.is_empty() => Some(PathRewrite::Full(arcstr::literal!("/"))),
        // The slash that the match is made of is replaced as well.
        RoutePath::Any if prefix.is_empty() => None,
        RoutePath::Any => Some(PathRewrite::Prefix(arcstr::format!("{prefix}/"))),
        _ => Some(PathRewrite::Prefix(Str::from(prefix))),
    }
}

pub(super) fn cors(filter: &HttpCors) -> CorsIr {
    let joined = |words: &[Str]| Str::from(words.join(","));
    CorsIr {
        origins: filter.origins.iter().map(origin).collect(),
        methods: joined(&filter.methods),
        headers: joined(&filter.headers),
        expose: joined(&filter.expose),
        max_age_s: filter.max_age_s,
        credentials: filter.credentials.then_some(true),
        forward_unmatched_preflights: false,
    }
}

/// A star stands for anything.
fn origin(text: &Str) -> OriginMatch {
    let pieces: Vec<&str> = text.split('*').collect();
    match pieces[..] {
        ["", ""] => OriginMatch::Any,
        [_] => OriginMatch::Exact(text.clone()),
        [prefix, ""] => OriginMatch::Prefix(Str::from(prefix)),
        _ => OriginMatch::Pieces(pieces.into_iter().map(Str::from).collect()),
    }
}

/// Session persistence of a rule: its cookie is for the matched path. `unnamed` is the name of
/// one that is given none.
pub(super) fn session(
    rule: &HttpRule,
    path: &RoutePath,
    unnamed: impl Fn() -> Str,
) -> Option<SessionIr> {
    let SessionPersistence {
        name,
        header,
        absolute_timeout,
        permanent,
        ..
    } = rule.session.as_ref()?;
    let name = if name.is_empty() {
        unnamed()
    } else {
        name.clone()
    };
    if *header {
        return Some(SessionIr::Header(Str::from(name.to_ascii_lowercase())));
    }
    let fits = |path: &&Str| path.chars().all(|c| c.is_ascii_graphic() && c != ';');
    let path = match path {
        RoutePath::Exact(path) | RoutePath::Prefix(path) => Some(path).filter(fits),
        _ => None,
    };
    let ttl = absolute_timeout.filter(|_| *permanent);
    Some(SessionIr::Cookie {
        name,
        path: path.cloned().unwrap_or(arcstr::literal!("/")),
        ttl: ttl.unwrap_or(Duration::ZERO),
    })
}
