//! Regular expressions and substitutions that Envoy would refuse, and a whole route
//! configuration with them. Source: spec/policy-and-traffic.md §9.4.

use model::input::{StringMatch, VirtualHttp, VirtualMatch, VirtualService};

use crate::regex;

/// A value that cannot be told to Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// Path of the field, from `spec` or from its rule.
    pub(crate) field: String,
    /// What is wrong, as a clause.
    pub(crate) reason: String,
}

/// The matches that cannot be told. Each is left out alone; its rule keeps the others.
pub(crate) fn bad_matches(spec: &VirtualService) -> Vec<Defect> {
    let mut out = Vec::new();
    for (i, rule) in spec.http.iter().enumerate() {
        for (j, m) in rule.matches.iter().enumerate() {
            out.extend(match_defect(m).map(|(field, reason)| {
                let field = format!("spec.http[{i}].match[{j}].{field}");
                Defect { field, reason }
            }));
        }
    }
    out
}

/// Whether a match can be told.
pub(super) fn readable(m: &VirtualMatch) -> bool {
    match_defect(m).is_none()
}

fn match_defect(m: &VirtualMatch) -> Option<(String, String)> {
    let path = m.uri.as_ref().and_then(bad);
    if let Some(reason) = path {
        return Some(("uri.regex".to_owned(), reason));
    }
    let pseudo = [
        ("scheme", &m.scheme),
        ("method", &m.method),
        ("authority", &m.authority),
    ];
    for (field, of) in pseudo {
        if let Some(reason) = of.as_ref().and_then(bad_or_any) {
            return Some((format!("{field}.regex"), reason));
        }
    }
    let named = [
        ("headers", &m.headers),
        ("withoutHeaders", &m.without_headers),
        ("queryParams", &m.query),
    ];
    for (field, list) in named {
        for (name, of) in list {
            if let Some(reason) = of.as_ref().and_then(bad_or_any) {
                return Some((format!("{field}.{name}.regex"), reason));
            }
        }
    }
    None
}

fn bad(of: &StringMatch) -> Option<String> {
    match of {
        StringMatch::Regex(text) => regex::check(text).err(),
        _ => None,
    }
}

/// The same where `*` stands for presence.
fn bad_or_any(of: &StringMatch) -> Option<String> {
    match of {
        StringMatch::Regex(text) if text == "*" => None,
        of => bad(of),
    }
}

/// The first value of what a rule does that cannot be told; it answers 500 instead.
pub(crate) fn rule_defect(rule: &VirtualHttp) -> Option<Defect> {
    let rewrite = rule.rewrite.as_ref().and_then(|r| r.uri_regex.as_ref());
    if let Some((pattern, substitution)) = rewrite {
        let at = "rewrite.uriRegexRewrite";
        if let Err(reason) = regex::check(pattern) {
            let field = format!("{at}.match");
            return Some(Defect { field, reason });
        }
        if let Err(reason) = substitutes(pattern, substitution) {
            let field = format!("{at}.rewrite");
            return Some(Defect { field, reason });
        }
    }
    let origins = rule.cors.iter().flat_map(|cors| &cors.origins).enumerate();
    origins
        .filter_map(|(i, origin)| Some((i, bad(origin)?)))
        .map(|(i, reason)| Defect {
            field: format!("corsPolicy.allowOrigins[{i}].regex"),
            reason,
        })
        .next()
}

/// Whether RE2 can put a substitution in place: a backslash stands before a group that the
/// pattern has, or before another backslash.
fn substitutes(pattern: &str, substitution: &str) -> Result<(), String> {
    let groups = regex_syntax::parse(pattern)
        .map(|hir| hir.properties().explicit_captures_len())
        .map_err(|_| "the regular expression is not valid".to_owned())?;
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        match rest.next().map(|c| (c, c.to_digit(10))) {
            Some(('\\', _)) => {}
            Some((_, Some(group))) if usize::try_from(group).is_ok_and(|at| at <= groups) => {}
            Some((_, Some(group))) => {
                return Err(format!(
                    "it names group {group}, and the pattern has {groups}"
                ));
            }
            _ => return Err("a backslash must stand before a digit or a backslash".to_owned()),
        }
    }
    Ok(())
}
