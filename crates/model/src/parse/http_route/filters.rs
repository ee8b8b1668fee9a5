//! Filters of rules and of backends. Source: spec/gateway-api.md §6.3; spec/envoy-config.md §5.4.

use crate::Str;
use crate::input::{
    HeaderEdits, HttpCors, HttpMirror, HttpRedirect, HttpRewrite, PathModifier, RouteFilter,
};
use crate::object::Invalid;

use super::super::clip;
use super::super::read::{at_most, strs};
use super::rule::{RuleReader, is_token, target};
use super::{port_number, wire};

const FILTERS_COUNT_MAX: usize = 16;
const HEADERS_COUNT_MAX: usize = 16;
const CORS_COUNT_MAX: usize = 64;
const HEADER_NAME_BYTES_MAX: usize = 256;
const HEADER_VALUE_BYTES_MAX: usize = 4096;
const PATH_BYTES_MAX: usize = 1024;
const HOSTNAME_BYTES_MAX: usize = 253;
const REDIRECT_STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const REDIRECT_STATUS_DEFAULT: u16 = 302;
const MILLION: u32 = 1_000_000;

impl RuleReader<'_, '_> {
    /// `filters` of a rule, one entry for each that is written.
    pub(in crate::parse) fn filters(
        &mut self,
        wire: Vec<wire::Filter>,
    ) -> Result<Vec<RouteFilter>, Invalid> {
        at_most(&wire, FILTERS_COUNT_MAX, &format!("{}.filters", self.at()))?;
        let mut out: Vec<RouteFilter> = Vec::with_capacity(wire.len());
        for (i, wire) in wire.into_iter().enumerate() {
            let found = self.filter(&format!("filters[{i}]"), wire)?;
            self.repeated(&format!("filters[{i}]"), &out, &found);
            out.push(found);
        }
        let redirects = out
            .iter()
            .any(|one| matches!(one, RouteFilter::Redirect(_)));
        if redirects && out.iter().any(|one| matches!(one, RouteFilter::Rewrite(_))) {
            let what = "A redirected request is not forwarded, so URLRewrite has no effect";
            let fix = "Remove URLRewrite, or RequestRedirect";
            self.note("field-not-applied", "filters", what, fix);
        }
        Ok(out)
    }

    /// `filters` of a backend, which may change headers and nothing else.
    pub(super) fn backend_filters(
        &mut self,
        backend: &str,
        wire: Vec<wire::Filter>,
    ) -> Result<Vec<RouteFilter>, Invalid> {
        let list = format!("{}.{backend}.filters", self.at());
        at_most(&wire, FILTERS_COUNT_MAX, &list)?;
        let mut out: Vec<RouteFilter> = Vec::with_capacity(wire.len());
        for (i, wire) in wire.into_iter().enumerate() {
            let at = format!("{backend}.filters[{i}]");
            let kind = wire.r#type.as_str();
            let found = if matches!(kind, "RequestHeaderModifier" | "ResponseHeaderModifier") {
                self.filter(&at, wire)?
            } else {
                RouteFilter::Unsupported(clip(kind))
            };
            self.repeated(&at, &out, &found);
            out.push(found);
        }
        Ok(out)
    }

    /// Only mirrors may stand several times; of others the first counts.
    fn repeated(&mut self, at: &str, before: &[RouteFilter], found: &RouteFilter) {
        let same = |one: &RouteFilter| std::mem::discriminant(one) == std::mem::discriminant(found);
        let once = !matches!(
            found,
            RouteFilter::Mirror(_) | RouteFilter::Unsupported(_) | RouteFilter::Invalid(..)
        );
        if once && before.iter().any(same) {
            let what = "A filter of this type comes before it; only the first one counts";
            self.note("route-duplicate-filter", at, what, "Merge them into one");
        }
    }

    fn filter(&mut self, at: &str, wire: wire::Filter) -> Result<RouteFilter, Invalid> {
        let kind = Str::from(wire.r#type.as_str());
        let http_only = matches!(kind.as_str(), "RequestRedirect" | "URLRewrite" | "CORS");
        if self.grpc && http_only {
            return Ok(RouteFilter::Unsupported(kind));
        }
        let found = match kind.as_str() {
            "RequestHeaderModifier" => match wire.request_header_modifier {
                Some(wire) => {
                    let edits = self.edits(&format!("{at}.requestHeaderModifier"), wire, true)?;
                    Some(match edits {
                        Ok(edits) => RouteFilter::RequestHeaders(edits),
                        Err(reason) => RouteFilter::Invalid(kind.clone(), reason),
                    })
                }
                None => None,
            },
            "ResponseHeaderModifier" => match wire.response_header_modifier {
                Some(wire) => {
                    let edits = self.edits(&format!("{at}.responseHeaderModifier"), wire, false)?;
                    Some(match edits {
                        Ok(edits) => RouteFilter::ResponseHeaders(edits),
                        Err(reason) => RouteFilter::Invalid(kind.clone(), reason),
                    })
                }
                None => None,
            },
            "RequestMirror" => wire.request_mirror.map(|wire| self.mirror(at, wire)),
            "RequestRedirect" => wire.request_redirect.map(|wire| self.redirect(at, wire)),
            "URLRewrite" => wire.url_rewrite.map(|wire| self.rewrite(at, wire)),
            "CORS" => match wire.cors {
                Some(wire) => Some(self.cors(at, wire)?),
                None => None,
            },
            other => Some(RouteFilter::Unsupported(clip(other))),
        };
        Ok(found.unwrap_or_else(|| {
            self.bad(at, "a filter of this type needs the field of the same name");
            RouteFilter::RequestHeaders(HeaderEdits::default())
        }))
    }

    /// Changes of headers, or why the filter is invalid.
    fn edits(
        &mut self,
        at: &str,
        wire: wire::HeaderModifier,
        request: bool,
    ) -> Result<Result<HeaderEdits, Str>, Invalid> {
        let mut out = HeaderEdits::default();
        let lists = [("set", wire.set), ("add", wire.add)];
        for (list, wire) in lists {
            let wire = wire.unwrap_or_default();
            let field = format!("{}.{at}.{list}", self.at());
            at_most(&wire, HEADERS_COUNT_MAX, &field)?;
            let mut kept: Vec<(Str, Str)> = Vec::with_capacity(wire.len());
            for (i, header) in wire.into_iter().enumerate() {
                let at = format!("{at}.{list}[{i}]");
                let wrong = |c: char| c.is_control() && c != '\t';
                if header.value.contains(wrong) {
                    let what = "the value of a header has no control characters";
                    return Ok(Err(arcstr::format!("{list}[{i}]: {what}")));
                }
                if header.value.len() > HEADER_VALUE_BYTES_MAX {
                    let reason = format!("a value has at most {HEADER_VALUE_BYTES_MAX} bytes");
                    self.bad(&format!("{at}.value"), &reason);
                    continue;
                }
                let seen = |name: &Str| kept.iter().any(|(one, _)| one == name);
                if let Some(name) = self.header_name(&at, &header.name, request, seen) {
                    kept.push((name, Str::from(header.value)));
                }
            }
            match list {
                "set" => out.set = kept,
                _ => out.add = kept,
            }
        }
        let remove = wire.remove.unwrap_or_default();
        let field = format!("{}.{at}.remove", self.at());
        at_most(&remove, HEADERS_COUNT_MAX, &field)?;
        for (i, name) in remove.iter().enumerate() {
            let at = format!("{at}.remove[{i}]");
            let kept = &out.remove;
            let seen = |name: &Str| kept.contains(name);
            // A request without host is none.
            if let Some(name) = self.header_name(&at, name, false, seen) {
                out.remove.push(name);
            }
        }
        Ok(Ok(out))
    }

    /// The name in lower case; `None` when the entry does not count. `host` may be changed where
    /// it becomes a rewrite of the host.
    fn header_name(
        &mut self,
        at: &str,
        name: &str,
        host: bool,
        seen: impl Fn(&Str) -> bool,
    ) -> Option<Str> {
        let name = Str::from(name.to_ascii_lowercase());
        let authority = matches!(name.as_str(), "host" | ":authority");
        if authority && !host || name.starts_with(':') && !authority {
            let effect = "proxies change this header by other means only";
            self.not_applied(at, effect);
            return None;
        }
        if !authority && !is_token(&name) || name.len() > HEADER_NAME_BYTES_MAX {
            self.bad(at, "it is no name of a header");
            return None;
        }
        if seen(&name) {
            let what = format!("{name} stands in the list twice; only the first counts");
            self.note("route-duplicate-header", at, &what, "Remove one of them");
            return None;
        }
        Some(name)
    }

    fn mirror(&mut self, at: &str, wire: wire::Mirror) -> RouteFilter {
        let at = format!("{at}.requestMirror");
        let share = match (wire.percent, wire.fraction) {
            (None, None) => Some(MILLION),
            (Some(percent), None) => per_million(percent, 100),
            (None, Some(part)) => per_million(part.numerator, part.denominator.unwrap_or(100)),
            (Some(_), Some(_)) => {
                self.bad(&at, "percent and fraction exclude each other");
                Some(0)
            }
        };
        if share.is_none() {
            self.bad(
                &at,
                "the share of mirrored requests is not 0 to all of them",
            );
        }
        RouteFilter::Mirror(HttpMirror {
            target: target(wire.backend_ref, self.ns()),
            per_million: share.unwrap_or(0),
        })
    }

    fn redirect(&mut self, at: &str, wire: wire::Redirect) -> RouteFilter {
        let at = format!("{at}.requestRedirect");
        let scheme = wire.scheme.map(Str::from);
        if scheme
            .as_ref()
            .is_some_and(|word| !matches!(word.as_str(), "http" | "https"))
        {
            self.bad(&format!("{at}.scheme"), "it is http or https");
        }
        let port = wire.port.and_then(port_number);
        if wire.port.is_some() && port.is_none() {
            self.bad(&format!("{at}.port"), "a port is 1 to 65535");
        }
        let status = match wire.status_code.map(u16::try_from) {
            None => REDIRECT_STATUS_DEFAULT,
            Some(Ok(status)) if REDIRECT_STATUSES.contains(&status) => status,
            Some(_) => {
                let reason = "it is 301, 302, 303, 307 or 308";
                self.bad(&format!("{at}.statusCode"), reason);
                REDIRECT_STATUS_DEFAULT
            }
        };
        RouteFilter::Redirect(HttpRedirect {
            scheme,
            host: self.hostname(&at, wire.hostname),
            path: self.path(&at, wire.path, true),
            port,
            status,
        })
    }

    fn rewrite(&mut self, at: &str, wire: wire::Rewrite) -> RouteFilter {
        let at = format!("{at}.urlRewrite");
        RouteFilter::Rewrite(HttpRewrite {
            host: self.hostname(&at, wire.hostname),
            path: self.path(&at, wire.path, false),
        })
    }

    fn hostname(&mut self, at: &str, host: Option<String>) -> Option<Str> {
        let host = host?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || host.len() > HOSTNAME_BYTES_MAX || !host.chars().all(fits) {
            self.bad(&format!("{at}.hostname"), "it is no host name");
            return None;
        }
        Some(Str::from(host))
    }

    /// `path` of a redirect, which may say a query as well, or of a rewrite.
    fn path(
        &mut self,
        at: &str,
        wire: Option<wire::PathModifier>,
        redirect: bool,
    ) -> Option<PathModifier> {
        let wire = wire?;
        let at = format!("{at}.path");
        let (field, value) = match wire.r#type.as_str() {
            "ReplaceFullPath" => ("replaceFullPath", wire.replace_full_path),
            "ReplacePrefixMatch" => ("replacePrefixMatch", wire.replace_prefix_match),
            _ => {
                let reason = "it is ReplaceFullPath or ReplacePrefixMatch";
                self.bad(&format!("{at}.type"), reason);
                return None;
            }
        };
        let at = format!("{at}.{field}");
        let Some(value) = value else {
            self.bad(&at, "a path modifier of this type needs it");
            return None;
        };
        let full = field == "replaceFullPath";
        let path = if full && redirect {
            value.split('?').next().unwrap_or_default()
        } else {
            &value
        };
        let rooted = path.starts_with('/') || !full && path.is_empty();
        let fits = |c: char| c.is_ascii_graphic() && c != '#';
        if !rooted || path.contains('?') || !value.chars().all(fits) {
            self.bad(&at, "it is no absolute path");
            return None;
        }
        if value.len() > PATH_BYTES_MAX {
            self.bad(&at, &format!("it has more than {PATH_BYTES_MAX} bytes"));
            return None;
        }
        let value = Str::from(value);
        Some(if full {
            PathModifier::Full(value)
        } else {
            PathModifier::Prefix(value)
        })
    }

    fn cors(&mut self, at: &str, wire: wire::Cors) -> Result<RouteFilter, Invalid> {
        let at = format!("{at}.cors");
        let origins = wire.allow_origins.unwrap_or_default();
        let field = format!("{}.{at}.allowOrigins", self.at());
        at_most(&origins, CORS_COUNT_MAX, &field)?;
        let fits = |c: char| c.is_ascii_graphic() && !"\"',\\".contains(c);
        for (i, origin) in origins.iter().enumerate() {
            if origin.is_empty() || origin.len() > HOSTNAME_BYTES_MAX || !origin.chars().all(fits) {
                let at = format!("{at}.allowOrigins[{i}]");
                self.bad(&at, "it is no origin such as https://a.example");
            }
        }
        let max_age_s = match wire.max_age.map(u32::try_from) {
            None | Some(Ok(0)) => None,
            Some(Ok(seconds)) => Some(seconds),
            Some(Err(_)) => {
                self.bad(&format!("{at}.maxAge"), "it is a number of seconds");
                None
            }
        };
        Ok(RouteFilter::Cors(HttpCors {
            origins: strs(origins),
            methods: self.words(&at, "allowMethods", wire.allow_methods)?,
            headers: self.words(&at, "allowHeaders", wire.allow_headers)?,
            expose: self.words(&at, "exposeHeaders", wire.expose_headers)?,
            credentials: wire.allow_credentials.unwrap_or(false),
            max_age_s,
        }))
    }

    /// Names of methods or headers; a star is a token as well.
    fn words(
        &mut self,
        at: &str,
        field: &str,
        words: Option<Vec<String>>,
    ) -> Result<Vec<Str>, Invalid> {
        let words = words.unwrap_or_default();
        at_most(
            &words,
            CORS_COUNT_MAX,
            &format!("{}.{at}.{field}", self.at()),
        )?;
        for (i, word) in words.iter().enumerate() {
            if !is_token(word) {
                self.bad(&format!("{at}.{field}[{i}]"), "it is no method or header");
            }
        }
        Ok(strs(words))
    }
}

/// A share in parts per million.
fn per_million(numerator: i64, denominator: i64) -> Option<u32> {
    let numerator = u64::try_from(numerator).ok()?;
    let denominator = u64::try_from(denominator).ok().filter(|&whole| whole > 0)?;
    if numerator > denominator {
        return None;
    }
    let share = u128::from(numerator) * u128::from(MILLION) / u128::from(denominator);
    u32::try_from(share).ok()
}
