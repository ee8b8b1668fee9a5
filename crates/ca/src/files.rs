//! Files with private content: mode 0600, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::CaError;

/// The largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Creates a directory and its parents, those that it creates with mode 0700.
pub(crate) fn create_dir(path: &Path) -> Result<(), CaError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| CaError::io(path, e))
}

/// A sibling path that no other writer uses.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{n}.tmp", std::process::id()))
}

/// Writes a file with mode 0600: readers see the old content or the new one.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), CaError> {
    let temporary = sibling(path);
    let written = write_new(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|e| CaError::io(path, e))
}

/// Creates a file that must not exist, with mode 0600, and flushes it to disk.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename in the parent directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Reads a small text file of the CA.
pub(crate) fn read_text(path: &Path) -> Result<String, CaError> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => CaError::Incomplete {
            path: path.to_owned(),
        },
        _ => CaError::io(path, e),
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| CaError::io(path, e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CaError::corrupt(path, "larger than 64 KiB"));
    }
    String::from_utf8(bytes).map_err(|_| CaError::corrupt(path, "not text"))
}

/// Refuses a private key that anyone but its owner may touch.
pub(crate) fn require_private(path: &Path) -> Result<(), CaError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(CaError::Incomplete {
                path: path.to_owned(),
            });
        }
        Err(e) => return Err(CaError::io(path, e)),
    };
    if mode & 0o077 != 0 {
        return Err(CaError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}
