//! A directory as a source.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use model::finding::{Finding, Severity};
use model::object::Input;
use model::parse::file_ref;
use rayon::prelude::*;
use tokio::sync::mpsc;

use crate::file_set::{Content, FileSet};
use crate::scan::{self, FILE_BYTES_MAX, FILES_COUNT_MAX, Stamp, TOTAL_BYTES_MAX};
use crate::watch;
use crate::yaml::{Format, Unreadable};

/// How many files, and of how many bytes, are read before the first of them is taken in.
const BATCH_FILES_MAX: usize = 1024;
const BATCH_BYTES_MAX: u64 = 4 * FILE_BYTES_MAX;

/// A directory of `*.yaml`, `*.yml` and `*.json` files, read recursively.
///
/// Hidden files and directories (leading `.`) are skipped and links are followed.
/// Writers should replace files by renaming: a file written in place may be read half.
#[derive(Clone, Copy, Debug)]
pub struct Directory;

/// Why a directory is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory itself cannot be listed.
    #[error("cannot read directory {}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses to report changes.
    #[error("cannot watch directory {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// Reading was cut short because the runtime stops.
    #[error("reading was interrupted")]
    Interrupted,
}

impl Directory {
    /// Everything in one complete batch: a `Resync` of every kind, then the findings.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] when the directory itself cannot be listed.
    pub fn load(path: impl AsRef<Path>) -> Result<Vec<Input>, SourceError> {
        let mut loader = Loader::new(path.as_ref());
        loader.rescan(&BTreeSet::new())?;
        Ok(loader.changes())
    }

    /// Sends the complete batch, then a batch for every change, until the receiver is gone.
    ///
    /// # Errors
    /// When the directory cannot be read or watched at the start. Later troubles are findings.
    pub async fn watch(
        path: impl AsRef<Path>,
        tx: mpsc::Sender<Vec<Input>>,
    ) -> Result<(), SourceError> {
        watch::run(path.as_ref(), tx).await
    }
}

/// Reads files into a [`FileSet`], only those that may have changed.
#[derive(Debug)]
pub(crate) struct Loader {
    root: PathBuf,
    set: FileSet,
    stamps: BTreeMap<String, Stamp>,
}

impl Loader {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            set: FileSet::new(),
            stamps: BTreeMap::new(),
        }
    }

    pub(crate) fn changes(&mut self) -> Vec<Input> {
        self.set.changes()
    }

    /// Whether some file was reached through a link, so that its content may change
    /// under another name.
    pub(crate) fn has_links(&self) -> bool {
        self.stamps.values().any(|stamp| stamp.linked)
    }

    /// Whether `rel` is a directory that holds known files.
    pub(crate) fn is_known_directory(&self, rel: &str) -> bool {
        self.set.has_below(rel)
    }

    /// Looks at the whole directory; reads files whose stamp changed, linked ones and
    /// those in `touched`.
    ///
    /// # Errors
    /// When the directory itself cannot be listed; what is known then stays.
    pub(crate) fn rescan(&mut self, touched: &BTreeSet<String>) -> Result<(), SourceError> {
        let scan = scan::scan(&self.root).map_err(|source| SourceError::Unreadable {
            path: self.root.clone(),
            source,
        })?;
        let kept = |path: &str| {
            let below = |dir: &String| {
                path.strip_prefix(dir.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            scan.files.contains_key(path) || scan.unreadable.iter().any(below)
        };
        let gone: Vec<String> = self
            .set
            .paths()
            .filter(|path| !kept(path))
            .map(str::to_owned)
            .collect();
        for path in &gone {
            self.forget(path);
        }
        let mut batch = Vec::new();
        let mut bytes_count = 0;
        for (path, file) in &scan.files {
            let same =
                matches!(file, Ok(stamp) if !stamp.linked && self.stamps.get(path) == Some(stamp));
            if same && !touched.contains(path) {
                continue;
            }
            let size = file.as_ref().map_or(0, |stamp| stamp.size);
            if batch.len() >= BATCH_FILES_MAX || bytes_count + size > BATCH_BYTES_MAX {
                self.read_all(&batch);
                batch.clear();
                bytes_count = 0;
            }
            bytes_count += size;
            batch.push((path.as_str(), file));
        }
        self.read_all(&batch);
        self.set.set_directory_findings(scan.findings);
        Ok(())
    }

    /// Notes that the directory itself cannot be listed now.
    pub(crate) fn set_unreadable(&mut self, error: &SourceError) {
        let reason =
            std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        self.set.set_directory_findings(vec![Finding::new(
            "file-unreadable",
            Severity::Error,
            file_ref("."),
            format!("The directory cannot be read: {reason}"),
            "Restore it; until then the last good objects stay in effect",
        )]);
    }

    /// Looks at one file again. False when a look at the whole directory is needed.
    pub(crate) fn touch(&mut self, path: &str) -> bool {
        let at = self.root.join(path);
        if at.is_dir() || (!self.set.has(path) && self.set.count() >= FILES_COUNT_MAX) {
            return false;
        }
        match scan::stamp(&self.root, path) {
            Some(file) => self.read(path, &file),
            None => self.forget(path),
        }
        true
    }

    fn forget(&mut self, path: &str) {
        self.stamps.remove(path);
        self.set.remove(path);
    }

    /// Reads and parses on all processors, and takes in one after another.
    fn read_all(&mut self, files: &[(&str, &Result<Stamp, String>)]) {
        let root = &self.root;
        let read: Vec<Option<Read>> = files
            .par_iter()
            .map(|(path, file)| file.is_ok().then(|| Read::of(root, path)))
            .collect();
        for ((path, file), read) in files.iter().zip(read) {
            self.take_in(path, file, read);
        }
    }

    fn read(&mut self, path: &str, file: &Result<Stamp, String>) {
        let read = file.is_ok().then(|| Read::of(&self.root, path));
        self.take_in(path, file, read);
    }

    fn take_in(&mut self, path: &str, file: &Result<Stamp, String>, read: Option<Read>) {
        self.stamps.remove(path);
        let (stamp, read) = match (file, read) {
            (Ok(stamp), Some(read)) => (stamp, read),
            (Ok(_), None) => return,
            (Err(reason), _) => return self.set.set_unreadable(path, reason),
        };
        match read {
            Read::Whole(count, _)
                if self.set.bytes_count_without(path) + count > TOTAL_BYTES_MAX =>
            {
                let reason = format!("all files together have more than {TOTAL_BYTES_MAX} bytes");
                self.set.set_too_large(path, &reason);
            }
            Read::Whole(_, content) => {
                self.set.set_content(path, content);
                self.stamps.insert(path.to_owned(), *stamp);
            }
            Read::TooLarge => {
                self.set
                    .set_too_large(path, &format!("it has more than {FILE_BYTES_MAX} bytes"));
            }
            Read::Failed(error) if error.kind() == io::ErrorKind::NotFound && !stamp.linked => {
                self.set.remove(path);
            }
            Read::Failed(error) => self.set.set_unreadable(path, &error.to_string()),
        }
    }
}

/// What reading a file gave.
enum Read {
    /// Its size, and its documents or why it has none.
    Whole(usize, Result<Content, Unreadable>),
    TooLarge,
    Failed(io::Error),
}

impl Read {
    fn of(root: &Path, path: &str) -> Self {
        debug_assert!(Format::of(path).is_some(), "only our formats are read");
        match scan::content(&root.join(path)) {
            Ok(Some(bytes)) => Self::Whole(bytes.len(), Content::read(path, &bytes)),
            Ok(None) => Self::TooLarge,
            Err(error) => Self::Failed(error),
        }
    }
}
