//! Findings as a condition of their object. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use model::status::{Condition, ConditionStatus, StatusRow, TYPE_FINDINGS};
use model::{Finding, Kind, ObjectRef, Severity, Str};

use super::plan;
use crate::kinds;

/// Findings that one message lists.
const LISTED_MAX: usize = 20;
/// Longest message, in bytes; the API takes 32 KiB.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Longest line of one finding, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// What is said of each object that has a finding of an error or a warning and whose kind has
/// conditions of its own.
pub(crate) fn by_object(findings: &[Finding]) -> BTreeMap<ObjectRef, Arc<StatusRow>> {
    let mut all: BTreeMap<&ObjectRef, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        let is_told = finding.severity != Severity::Info && is_about(finding);
        if is_told && has_conditions(&finding.object.kind) {
            all.entry(&finding.object).or_default().push(finding);
        }
    }
    let rows = all.into_iter();
    rows.map(|(object, findings)| (object.clone(), Arc::new(row(findings))))
        .collect()
}

/// Whether objects of a kind have `status.conditions`.
pub(crate) fn has_conditions(kind: &str) -> bool {
    match plan::find(kind) {
        Some(Kind::Service | Kind::Gateway) => true,
        Some(kind) => kind.group().ends_with(".istio.io"),
        None => model::parse::not_supported()
            .any(|(group, name)| name == kind && kinds::has_status_unsupported(group, name)),
    }
}

/// Whether a finding is about the object that its name says. `Gateway` is the name of two kinds,
/// of which one is not applied, and all that is said of that one is this.
fn is_about(finding: &Finding) -> bool {
    finding.code != "kind-not-supported" || finding.object.kind != Kind::Gateway.as_str()
}

fn row(mut findings: Vec<&Finding>) -> StatusRow {
    findings.sort_by_key(|finding| finding.severity);
    let reason = findings.first().map(|finding| camel_case(finding.code));
    let mut message = String::new();
    for (number, finding) in findings.iter().enumerate() {
        let line = line(finding);
        let is_full = number == LISTED_MAX || message.len() + line.len() > MESSAGE_BYTES_MAX;
        if is_full {
            let left = findings.len() - number;
            let _ = write!(message, "{left} more");
            break;
        }
        message.push_str(&line);
        message.push('\n');
    }
    let condition = Condition {
        ty: Str::from(TYPE_FINDINGS),
        status: ConditionStatus::True,
        reason: Str::from(reason.unwrap_or_default()),
        message: Str::from(message.trim_end()),
        observed_generation: None,
    };
    StatusRow {
        conditions: vec![condition],
        ..StatusRow::default()
    }
}

/// `severity code field: message. fix`.
fn line(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let field = match finding.field.as_str() {
        "" => String::new(),
        field => format!(" {field}"),
    };
    let text = sentences(finding);
    cut(
        format!("{severity} {}{field}: {text}", finding.code),
        LINE_BYTES_MAX,
    )
}

/// What happens and what to do.
pub(crate) fn sentences(finding: &Finding) -> String {
    let mut text = finding.message.to_string();
    if !finding.fix.is_empty() {
        if !text.ends_with('.') {
            text.push('.');
        }
        text.push(' ');
        text.push_str(&finding.fix);
    }
    text.replace(['\n', '\r'], " ")
}

/// At most so many bytes of a text.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut room = bytes_max.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        text.truncate(room);
        text.push('…');
    }
    text
}

/// `wp-not-ready` → `WpNotReady`.
pub(crate) fn camel_case(code: &str) -> String {
    let words = code.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.flat_map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters)
    });
    words.collect()
}
