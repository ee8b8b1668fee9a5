//! Telemetry. Source: spec/policy-and-traffic.md §4, §9.3.

use super::Verdict;
use super::common::{attachment, duration};
use super::read::At;

pub(super) fn check(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    attachment(verdict, spec);
    let tracing = spec.items("tracing");
    if tracing.len() > 1 {
        let message = "only one entry of tracing counts";
        verdict.warn(&spec.field("tracing"), message);
    }
    for one in &tracing {
        self::tracing(verdict, one);
    }
    for one in spec.items("metrics") {
        metrics(verdict, &one);
    }
    for one in spec.items("accessLogging") {
        providers(verdict, &one);
        let filter = one.get("filter");
        if let Some(filter) = filter.filter(|filter| !is_balanced(filter.text("expression"))) {
            verdict.reject(filter.field("expression"), "not an expression");
        }
    }
}

fn providers(verdict: &mut Verdict, at: &At<'_>) {
    for provider in at.items("providers") {
        if provider.text("name").is_empty() {
            verdict.reject(provider.field("name"), "a name is required");
        }
    }
}

fn tracing(verdict: &mut Verdict, at: &At<'_>) {
    providers(verdict, at);
    if at.items("providers").len() > 1 {
        verdict.warn(
            &at.field("providers"),
            "only one provider of tracing counts",
        );
    }
    let sampling = at.number("randomSamplingPercentage");
    if sampling.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        let field = at.field("randomSamplingPercentage");
        verdict.reject(field, "not a percentage");
    }
    for (name, tag) in at.entries("customTags") {
        if name.is_empty() {
            verdict.reject(tag.path(), "a tag without a name");
        }
        if tag.is_null() {
            verdict.reject(tag.path(), "a tag that says nothing");
        }
        for (kind, field) in [
            ("literal", "value"),
            ("header", "name"),
            ("environment", "name"),
            ("formatter", "value"),
        ] {
            if let Some(source) = tag.get(kind).filter(|source| source.text(field).is_empty()) {
                verdict.reject(source.field(field), "missing or empty");
            }
        }
    }
}

fn metrics(verdict: &mut Verdict, at: &At<'_>) {
    providers(verdict, at);
    duration(verdict, at, "reportingInterval");
    for one in at.items("overrides") {
        let custom = one.get("match").and_then(|one| one.get("customMetric"));
        if let Some(custom) = custom.filter(|custom| custom.as_text().is_empty()) {
            verdict.reject(custom.path(), "an empty name");
        }
        for (name, tag) in one.entries("tagOverrides") {
            if name.is_empty() {
                verdict.warn(tag.path(), "a tag without a name has no effect");
            }
            if tag.is_null() {
                verdict.reject(tag.path(), "an entry that says nothing");
                continue;
            }
            let is_removal = tag.text("operation") == "REMOVE";
            match (is_removal, tag.text("value").is_empty()) {
                (true, false) => verdict.reject(tag.field("value"), "REMOVE takes no value"),
                (false, true) => verdict.reject(tag.field("value"), "UPSERT needs a value"),
                _ => {}
            }
        }
    }
}

/// Whether an expression can be one: it has text, and its brackets and quotes are closed.
fn is_balanced(text: &str) -> bool {
    let mut open = Vec::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => open.push(')'),
            (None, '[') => open.push(']'),
            (None, '{') => open.push('}'),
            (None, ')' | ']' | '}') if open.pop() != Some(c) => return false,
            _ => {}
        }
    }
    open.is_empty() && quote.is_none() && !text.trim().is_empty()
}
