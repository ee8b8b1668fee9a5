//! Fills an authority and follows changes of what it was filled from.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::cacerts::CaCerts;
use crate::root::{self, FileStore, RootStore};
use crate::{Authority, CaError, RootPolicy};

/// Quiet after the last change of a file, before it is read.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long changes that do not end are waited for.
const DEBOUNCE_MAX: Duration = Duration::from_secs(2);
/// Reads without any event, for file systems that give none.
const POLL: Duration = Duration::from_secs(60);
/// How often the life of our own root is looked at.
/// Source: spec/control-plane.md §4.6.
const RENEW_CHECK: Duration = Duration::from_secs(3600);

/// Where the signer comes from.
#[derive(Clone)]
pub enum Source {
    /// A root of our own.
    Own(Arc<dyn RootStore>),
    /// A plugged-in CA; `multiroot` is `ISTIO_MULTIROOT_MESH`.
    PluggedIn {
        /// The directory.
        ca: CaCerts,
        /// Whether roots may change by way of a bundle with both.
        multiroot: bool,
    },
}

// === impl Source ===

impl Source {
    /// The plugged-in CA of `cacerts` if one is there, else our own root under
    /// `state_dir`.
    ///
    /// # Errors
    /// [`CaError::Partial`] for half a plugged-in CA.
    pub fn select(
        cacerts: Option<&Path>,
        use_crl: bool,
        multiroot: bool,
        state_dir: &Path,
    ) -> Result<Self, CaError> {
        let own = Arc::new(FileStore::new(state_dir));
        Self::select_or(cacerts, use_crl, multiroot, own)
    }

    /// The plugged-in CA of `cacerts` if one is there, else our own root in `own`.
    ///
    /// # Errors
    /// [`CaError::Partial`] for half a plugged-in CA.
    pub fn select_or(
        cacerts: Option<&Path>,
        use_crl: bool,
        multiroot: bool,
        own: Arc<dyn RootStore>,
    ) -> Result<Self, CaError> {
        let plugged = match cacerts {
            Some(dir) => CaCerts::detect(dir, use_crl)?,
            None => None,
        };
        Ok(match plugged {
            Some(ca) => Self::PluggedIn { ca, multiroot },
            None => Self::Own(own),
        })
    }

    /// Fills an authority for the first time; our own root is created if there never
    /// was one. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`]; all of them are reasons not to start.
    pub fn start(&self, authority: &Authority, now: SystemTime) -> Result<(), CaError> {
        if let Self::Own(store) = self {
            let signer = root::load_or_create(&**store, &authority.trust_domain(), now)?;
            return authority.install(signer, RootPolicy::Renewable).map(|_| ());
        }
        self.reload(authority, now).map(|_| ())
    }

    /// Reads again, and installs what changed. Never creates a root: one that is gone
    /// is an error, and the authority keeps what it has. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`]; the authority is then unchanged.
    pub fn reload(&self, authority: &Authority, now: SystemTime) -> Result<bool, CaError> {
        match self {
            Self::Own(store) => {
                let signer = root::load(&**store, now)?;
                authority.install(signer, RootPolicy::Renewable)
            }
            Self::PluggedIn { ca, multiroot } => {
                let policy = match multiroot {
                    true => RootPolicy::Overlapping,
                    false => RootPolicy::Fixed,
                };
                let loaded = ca.load(now)?;
                let changed = authority.install(loaded.signer, policy)?;
                authority.install_crl(&loaded.crl_pem);
                Ok(changed)
            }
        }
    }

    /// Renews our own root when its life runs out, then reads it.
    fn renew(&self, authority: &Authority, now: SystemTime) -> Result<bool, CaError> {
        if let Self::Own(store) = self {
            match root::renew_if_due(&**store, now) {
                Ok(true) => info!("the certificate of the root is renewed over its key"),
                // Another replica was faster.
                Ok(false) | Err(CaError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        self.reload(authority, now)
    }
}

/// Follows a source until dropped: changed files are read when they have been quiet
/// for 100 ms, and once a minute in any case; our own root is renewed in time. What
/// does not load is logged, and the authority keeps what it has.
///
/// `dir` is watched for events; without it there is only the poll.
pub async fn watch(source: Source, dir: Option<&Path>, authority: Arc<Authority>) {
    let changed = Arc::new(Notify::new());
    // Held for as long as events are wanted.
    let _watcher = dir.and_then(|dir| {
        subscribe(dir, Arc::clone(&changed))
            .inspect_err(|error| warn!(dir = %dir.display(), %error, "no file events; polling"))
            .ok()
    });
    follow(source, changed, authority).await;
}

/// As [`watch`], where the caller says by `changed` when to read before the next poll.
pub async fn follow(source: Source, changed: Arc<Notify>, authority: Arc<Authority>) {
    let mut renew_at = Instant::now() + jitter(RENEW_CHECK);
    let mut last_error = String::new();
    loop {
        let is_renewal = tokio::select! {
            () = changed.notified() => {
                quiet(&changed).await;
                false
            }
            () = sleep(POLL) => false,
            () = sleep_until(renew_at) => {
                renew_at = Instant::now() + RENEW_CHECK;
                true
            }
        };
        let (source, authority) = (source.clone(), Arc::clone(&authority));
        let read = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now();
            if is_renewal {
                source.renew(&authority, now)
            } else {
                source.reload(&authority, now)
            }
        });
        match read.await {
            Ok(Ok(changed)) => {
                last_error.clear();
                if changed {
                    info!("the CA signs with new material");
                }
            }
            // Once per error: a poll would repeat it for ever.
            Ok(Err(error)) if error.to_string() != last_error => {
                last_error = error.to_string();
                error!(%error, "the CA keeps what it has");
            }
            Ok(Err(_)) => {}
            Err(error) => error!(%error, "reading the CA panicked"),
        }
    }
}

fn subscribe(dir: &Path, changed: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is not a change, and we read ourselves.
        if event.is_ok_and(|e| !e.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Waits until nothing has happened for the debounce time.
async fn quiet(changed: &Notify) {
    let end = Instant::now() + DEBOUNCE_MAX;
    while Instant::now() < end && timeout(DEBOUNCE, changed.notified()).await.is_ok() {}
}

/// A random share of `up_to`, so that replicas do not act at once.
fn jitter(up_to: Duration) -> Duration {
    let mut bytes = [0; 2];
    let _ = SystemRandom::new().fill(&mut bytes);
    up_to * u32::from(u16::from_le_bytes(bytes)) / u32::from(u16::MAX)
}
