//! The root as files of a state directory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Created, RootStore, StoredRoot};
use crate::bundle::TrustBundle;
use crate::signer::Part;
use crate::{CaError, files};

/// Directory of the root inside the state directory.
const CA_DIR: &str = "ca";
const BUNDLE_FILE: &str = "root-cert.pem";
const KEY_FILE: &str = "root-key.pem";
const NEXT_KEY_FILE: &str = "next-root-key.pem";
const PREVIOUS_KEY_FILE: &str = "previous-root-key.pem";
const LOCK_FILE: &str = ".lock";

/// A root in `<state directory>/ca`: `root-cert.pem`, the whole bundle, and
/// `root-key.pem`; during a rotation also the next or the previous key.
///
/// The directory appears whole by one rename. Later changes replace one file after
/// the other, in an order in which every state between two of them is a valid one.
#[derive(Clone, Debug)]
pub struct FileStore {
    dir: PathBuf,
}

// === impl FileStore ===

impl FileStore {
    /// The store of a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join(CA_DIR),
        }
    }

    /// The directory to watch for changes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the trusted roots.
    pub fn root_path(&self) -> PathBuf {
        self.dir.join(BUNDLE_FILE)
    }

    fn read(&self) -> Result<Option<StoredRoot>, CaError> {
        if !has_entries(&self.dir)? {
            return Ok(None);
        }
        let optional = |name: &str| {
            let path = self.dir.join(name);
            match path.try_exists() {
                Ok(true) => read_key(&path).map(Some),
                Ok(false) => Ok(None),
                Err(e) => Err(CaError::io(&path, e)),
            }
        };
        Ok(Some(StoredRoot {
            bundle_pem: files::read_text(&self.root_path())?,
            key_pem: read_key(&self.dir.join(KEY_FILE))?,
            next_key_pem: optional(NEXT_KEY_FILE)?,
            previous_key_pem: optional(PREVIOUS_KEY_FILE)?,
        }))
    }

    fn write_optional(&self, name: &str, key: Option<&Zeroizing<String>>) -> Result<(), CaError> {
        let path = self.dir.join(name);
        match key {
            Some(key) => files::write_private(&path, key.as_bytes()),
            None => match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CaError::io(&path, e)),
                _ => Ok(()),
            },
        }
    }
}

impl RootStore for FileStore {
    fn load(&self) -> Result<Option<StoredRoot>, CaError> {
        // A writer may be between two files; without the lock file there never was one.
        let lock_path = self.dir.join(LOCK_FILE);
        let lock = match File::open(&lock_path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(CaError::io(&lock_path, e)),
        };
        if let Some(lock) = &lock {
            lock.lock_shared().map_err(|e| CaError::io(&lock_path, e))?;
        }
        self.read()
    }

    fn create(&self, root: &StoredRoot) -> Result<Created, CaError> {
        let temporary = files::sibling(&self.dir);
        files::create_dir(&temporary)?;
        let placed = files::write_new(&temporary.join(KEY_FILE), root.key_pem.as_bytes())
            .and_then(|()| {
                files::write_new(&temporary.join(BUNDLE_FILE), root.bundle_pem.as_bytes())
            })
            .and_then(|()| fs::rename(&temporary, &self.dir))
            .and_then(|()| files::sync_parent(&self.dir));
        match placed {
            Ok(()) => Ok(Created::Ours),
            Err(error) => {
                let _ = fs::remove_dir_all(&temporary);
                if has_entries(&self.dir)? {
                    Ok(Created::Theirs)
                } else {
                    Err(CaError::io(&self.dir, error))
                }
            }
        }
    }

    fn replace(&self, old: &StoredRoot, new: &StoredRoot) -> Result<(), CaError> {
        let lock_path = self.dir.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| CaError::io(&lock_path, e))?;
        lock.lock().map_err(|e| CaError::io(&lock_path, e))?;
        if self.read()?.as_ref() != Some(old) {
            return Err(CaError::Conflict);
        }
        // New keys first, so that none is lost; a bundle that grows before the key
        // that needs it, one that shrinks after the key that needed it.
        if new.next_key_pem.is_some() {
            self.write_optional(NEXT_KEY_FILE, new.next_key_pem.as_ref())?;
        }
        if new.previous_key_pem.is_some() {
            self.write_optional(PREVIOUS_KEY_FILE, new.previous_key_pem.as_ref())?;
        }
        let (key, bundle) = (self.dir.join(KEY_FILE), self.root_path());
        let grows = match (
            TrustBundle::from_pem(&old.bundle_pem),
            TrustBundle::from_pem(&new.bundle_pem),
        ) {
            (Ok(old), Ok(new)) => new.contains(&old),
            _ => false,
        };
        let write_bundle = || {
            if new.bundle_pem == old.bundle_pem {
                return Ok(());
            }
            files::write_private(&bundle, new.bundle_pem.as_bytes())
        };
        if grows {
            write_bundle()?;
        }
        if new.key_pem != old.key_pem {
            files::write_private(&key, new.key_pem.as_bytes())?;
        }
        if !grows {
            write_bundle()?;
        }
        self.write_optional(NEXT_KEY_FILE, new.next_key_pem.as_ref())?;
        self.write_optional(PREVIOUS_KEY_FILE, new.previous_key_pem.as_ref())
    }

    fn place(&self, part: Part) -> PathBuf {
        match part {
            Part::Key => self.dir.join(KEY_FILE),
            Part::Certificate | Part::Chain | Part::Roots => self.root_path(),
        }
    }
}

fn read_key(path: &Path) -> Result<Zeroizing<String>, CaError> {
    files::require_private(path)?;
    files::read_text(path).map(Zeroizing::new)
}

fn has_entries(dir: &Path) -> Result<bool, CaError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(CaError::io(dir, e)),
    }
}
