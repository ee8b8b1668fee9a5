//! Last good key sets on disk, so that a restart while an issuer is down refuses nobody.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use model::Str;
use serde::{Deserialize, Serialize};

use crate::key_set;

/// Largest file, read or written.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A key set and when it was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The key set in canonical form.
    pub(crate) keys: Str,
    /// When it was last fetched, in seconds since the epoch.
    pub(crate) fetched_s: u64,
}

/// By key of the source.
pub(crate) type Book = BTreeMap<Str, Stored>;

/// Reads what was saved; nothing when there is no file. Entries that are no key sets are left out.
///
/// # Errors
/// The file cannot be read, or is none of ours.
pub(crate) fn load(path: &Path) -> io::Result<Book> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("the file is too large"));
    }
    let mut book: Book = serde_json::from_slice(&text)?;
    book.retain(|_, stored| {
        let canonical = key_set::canonical(stored.keys.as_bytes());
        canonical.is_ok_and(|keys| keys == stored.keys)
    });
    Ok(book)
}

/// Saves as many as fit, for nobody else to read; a crash leaves the old file or the new one.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn save(path: &Path, book: &Book) -> io::Result<()> {
    let mut kept = BTreeMap::new();
    let mut bytes = 0_u64;
    for (key, stored) in book {
        // Quotes within are escaped.
        bytes += (key.len() + stored.keys.len()) as u64 * 2 + 64;
        if bytes > FILE_BYTES_MAX {
            tracing::warn!(path = %path.display(), "not all key sets fit into the file");
            break;
        }
        kept.insert(key, stored);
    }
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let new = path.with_extension("new");
    // One that a crash left may have another mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/jwks.json");
        assert_eq!(load(&path).unwrap(), Book::new());
        let stored = |keys: &str| Stored {
            keys: keys.into(),
            fetched_s: 7,
        };
        let good = stored(r#"{"keys":[{"kid":"a"}]}"#);
        let book: Book = [
            ("a".into(), good.clone()),
            ("b".into(), stored("nonsense")),
            ("c".into(), stored(r#"{"keys": [ {"kid":"a"}]}"#)),
        ]
        .into();
        save(&path, &book).unwrap();
        save(&path, &book).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(&path).unwrap(), [("a".into(), good)].into());
        std::fs::write(&path, "{").unwrap();
        assert!(load(&path).is_err());
    }
}
