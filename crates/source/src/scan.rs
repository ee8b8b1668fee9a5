//! Walking a directory: which files there are, within limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use model::finding::{Finding, Severity};
use model::parse::file_ref;

use crate::yaml::Format;

/// Most files of a source directory.
pub const FILES_COUNT_MAX: usize = 100_000;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most bytes of all files together.
pub const TOTAL_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Deepest directory below the source directory.
pub const DEPTH_MAX: usize = 64;

/// What tells whether a file may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    identity: (u64, u64),
    pub(crate) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Reached through a link: what it points at may change without the link changing.
    pub(crate) linked: bool,
}

impl Stamp {
    fn new(metadata: &Metadata, linked: bool) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            linked,
        }
    }
}

/// One pass over a directory.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Files by path relative to the root; `Err` when there is a file that cannot be read.
    pub(crate) files: BTreeMap<String, Result<Stamp, String>>,
    /// Directories that could not be listed: what was known below them stays.
    pub(crate) unreadable: Vec<String>,
    /// Findings about the directory itself.
    pub(crate) findings: Vec<Finding>,
    visited: BTreeSet<(u64, u64)>,
}

/// Lists the files below `root`. Hidden names are skipped, links are followed, and every
/// directory is visited once, however many links lead to it.
///
/// # Errors
/// When `root` itself cannot be listed.
pub(crate) fn scan(root: &Path) -> io::Result<Scan> {
    let mut out = Scan::default();
    let metadata = fs::metadata(root)?;
    out.visited.insert((metadata.dev(), metadata.ino()));
    let entries = list(root)?;
    out.directory("", entries, 0, false);
    Ok(out)
}

fn list(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        out.push((
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        ));
    }
    out.sort();
    Ok(out)
}

/// Whether a name is hidden.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

impl Scan {
    fn directory(
        &mut self,
        rel: &str,
        entries: Vec<(PathBuf, String)>,
        depth: usize,
        linked: bool,
    ) {
        for (path, name) in entries.into_iter().filter(|(_, name)| !is_hidden(name)) {
            let rel = if rel.is_empty() {
                name
            } else {
                format!("{rel}/{name}")
            };
            self.entry(&path, rel, depth, linked);
        }
    }

    fn entry(&mut self, path: &Path, rel: String, depth: usize, linked: bool) {
        let ours = Format::of(&rel).is_some();
        let linked = linked || fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // Gone between listing and looking; a dangling link is a file we cannot read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !linked => return,
            Err(error) if ours => {
                self.add(rel, Err(error.to_string()));
                return;
            }
            Err(_) => return,
        };
        if metadata.is_dir() {
            self.subdirectory(path, &rel, &metadata, depth + 1, linked);
        } else if ours && metadata.is_file() {
            self.add(rel, Ok(Stamp::new(&metadata, linked)));
        }
    }

    fn add(&mut self, rel: String, file: Result<Stamp, String>) {
        if self.files.len() < FILES_COUNT_MAX {
            self.files.insert(rel, file);
        } else if self.files.len() == FILES_COUNT_MAX && !self.has("too-many-files") {
            let what = format!(
                "There are more than {FILES_COUNT_MAX} files; this and later ones are not read"
            );
            self.find("too-many-files", &rel, what, "Use fewer, larger files");
        }
    }

    fn subdirectory(
        &mut self,
        path: &Path,
        rel: &str,
        metadata: &Metadata,
        depth: usize,
        linked: bool,
    ) {
        if !self.visited.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        if depth > DEPTH_MAX {
            let what =
                format!("This directory is more than {DEPTH_MAX} levels deep and is not read");
            self.find("directory-too-deep", rel, what, "Move its files up");
            return;
        }
        match list(path) {
            Ok(entries) => self.directory(rel, entries, depth, linked),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.unreadable.push(rel.to_owned());
                let what = format!("This directory cannot be listed: {error}");
                let fix = "Make it readable; until then its last good objects stay in effect";
                self.find("file-unreadable", rel, what, fix);
            }
        }
    }

    fn has(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }

    fn find(&mut self, code: &'static str, rel: &str, message: String, fix: &'static str) {
        self.findings.push(Finding::new(
            code,
            Severity::Error,
            file_ref(rel),
            message,
            fix,
        ));
    }
}

/// The stamp of one file, `None` when it is not there (or is a directory).
pub(crate) fn stamp(root: &Path, rel: &str) -> Option<Result<Stamp, String>> {
    let path = root.join(rel);
    let is_link =
        |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    let linked = path.ancestors().take_while(|at| *at != root).any(is_link);
    match fs::metadata(&path) {
        Ok(metadata) => metadata
            .is_file()
            .then(|| Ok(Stamp::new(&metadata, linked))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link(&path) => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// A file's content; `None` when it is larger than [`FILE_BYTES_MAX`].
pub(crate) fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= FILE_BYTES_MAX).then_some(bytes))
}
