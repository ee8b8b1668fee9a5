//! What a pod knows of itself: labels and annotations in files of the downward API.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Longest file that is read: annotations of an object have at most 256 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Annotations that are about the object and not about the pod.
const TOOL_PREFIX: &str = "kubectl.kubernetes.io/";

/// Labels and annotations of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFiles {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

// === impl PodFiles ===

impl PodFiles {
    /// Reads `labels` and `annotations` of a directory. A file that is not there is empty; so is
    /// one that cannot be read, which is said.
    pub fn read(dir: &Path) -> Self {
        let mut files = Self {
            labels: read(&dir.join("labels")),
            annotations: read(&dir.join("annotations")),
        };
        files
            .annotations
            .retain(|key, _| !key.starts_with(TOOL_PREFIX));
        files
    }
}

fn read(path: &Path) -> BTreeMap<String, String> {
    let mut text = String::new();
    let file = File::open(path).map(|file| file.take(FILE_BYTES_MAX));
    match file.and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "not read");
            BTreeMap::new()
        }
    }
}

/// Lines `key="value"`, the value quoted as Go does. Other lines say nothing.
fn parse(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), unquote(value)?))
    };
    text.lines().filter_map(pair).collect()
}

fn unquote(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let digits = match chars.next()? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => {
                out.push(control(other));
                continue;
            }
        };
        let hex: String = chars.by_ref().take(digits).collect();
        let code = u32::from_str_radix(&hex, 16).ok()?;
        // Bytes that are no text of their own.
        let is_byte = digits == 2 && code > 0x7f;
        let known = (!is_byte).then(|| char::from_u32(code)).flatten();
        out.push(known.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(out)
}

fn control(letter: char) -> char {
    match letter {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn lines_are_read_as_they_are_quoted() {
        let text = r#"
app="web"
empty=""
a.b/c="x=y \"z\" \\ \n\t\u00e9\U0001F600\x07 é"
bytes="\xff"
open="x
plain=x
bad="\u00"
end="\"
"#;
        let read = parse(text);
        let pairs: Vec<(&str, &str)> = read.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            pairs,
            [
                ("a.b/c", "x=y \"z\" \\ \n\té😀\x07 é"),
                ("app", "web"),
                ("bad", "\0"),
                ("bytes", "\u{fffd}"),
                ("empty", ""),
            ]
        );
    }

    #[test]
    fn a_directory_without_files_says_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(PodFiles::read(dir.path()), PodFiles::default());
        std::fs::write(dir.path().join("labels"), "a=\"b\"\n").unwrap();
        let lines = "c=\"d\"\nkubectl.kubernetes.io/x=\"y\"\n";
        std::fs::write(dir.path().join("annotations"), lines).unwrap();
        let read = PodFiles::read(dir.path());
        assert_eq!(read.labels["a"], "b");
        assert_eq!(read.annotations.len(), 1);
    }
}
