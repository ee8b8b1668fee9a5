//! Bytes to documents.

use serde_json::Value;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, several documents per file.
    Yaml,
    /// JSON, several values per file.
    Json,
}

impl Format {
    /// The format of a file by the end of its name; `None` when it is not one of ours.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name.rsplit_once('.') {
            Some((stem, "yaml" | "yml")) if !stem.is_empty() => Some(Self::Yaml),
            Some((stem, "json")) if !stem.is_empty() => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why bytes are not documents: one line, with the place where known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// The documents of a file in order; empty ones are left out.
///
/// # Errors
/// When the bytes are not UTF-8 or not of the format, or when they expand beyond
/// reason (aliases of aliases).
pub fn documents(format: Format, bytes: &[u8]) -> Result<Vec<Value>, Unreadable> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Unreadable(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents: Vec<Value> = match format {
        Format::Json => serde_json::Deserializer::from_str(text)
            .into_iter::<Value>()
            .collect::<Result<_, _>>()
            .map_err(|error| Unreadable(error.to_string()))?,
        Format::Yaml => {
            serde_saphyr::from_multiple_with_options(text, options()).map_err(yaml_error)?
        }
    };
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// The one document of a YAML text, null when it is empty.
pub(crate) fn document(text: &str) -> Result<Value, Unreadable> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(yaml_error)
}

/// The parser's own limits against alias bombs and deep nesting, with room for as
/// many plain documents as fit into one file.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 100_000,
            max_nodes: 4_000_000,
            max_events: 16_000_000,
            max_recorded_anchor_events: 100_000,
        },
        with_snippet: false,
    }
}

fn yaml_error(error: serde_saphyr::Error) -> Unreadable {
    const CHARS_MAX: usize = 300;
    let line = |text: String| -> String {
        text.chars()
            .take(CHARS_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    let text = line(error.to_string());
    if text.starts_with("budget breached") {
        return Unreadable(
            "it expands beyond the limits of a file (aliases of aliases?)".to_owned(),
        );
    }
    match error.location() {
        Some(at) if at.line() > 0 && !text.contains("line ") => Unreadable(format!(
            "line {}, column {}: {text}",
            at.line(),
            at.column()
        )),
        _ => Unreadable(text),
    }
}
