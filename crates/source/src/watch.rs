//! Following changes: events are hints of where to look, the files are the truth.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::object::Input;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::directory::{Loader, SourceError};
use crate::scan::is_hidden;
use crate::yaml::Format;

/// Quiet time that ends a burst of events, and after which a file that was written whole is read
/// at once: an edit need not wait for others that may follow.
const QUIET: Duration = Duration::from_millis(20);
/// Longest burst.
const BURST_MAX: Duration = Duration::from_millis(200);
/// How often to look without being told: targets of links outside the directory and
/// file systems of other machines send no events.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
/// How often to look for a directory that is gone.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Events beyond this many paths become one look at the whole directory.
const PENDING_COUNT_MAX: usize = 10_000;

/// What the kernel told since the last look.
#[derive(Debug, Default)]
struct Pending {
    paths: BTreeSet<PathBuf>,
    /// Those of them that something may still be happening to: a file that is being written,
    /// or the old name of one that has no new name yet.
    open: BTreeSet<PathBuf>,
    all: bool,
}

impl Pending {
    fn add(&mut self, event: notify::Event) {
        let is_whole = is_whole(event.kind);
        for path in event.paths {
            if is_whole {
                self.open.remove(&path);
            } else {
                self.open.insert(path.clone());
            }
            self.paths.insert(path);
        }
    }

    /// Whether all that is known to have changed is as somebody wanted it.
    fn is_settled(&self) -> bool {
        let hidden = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            is_hidden(&name.to_string_lossy())
        };
        !self.all && self.open.is_empty() && !self.paths.iter().all(hidden)
    }
}

/// Shared between the kernel's callback and the task.
#[derive(Debug, Default)]
struct Mailbox {
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Mailbox {
    fn put(&self, event: notify::Result<notify::Event>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // Our own reading opens and closes files, which is no change.
            Ok(event) if is_reading(event.kind) => return,
            Ok(event) if !event.need_rescan() && pending.paths.len() < PENDING_COUNT_MAX => {
                pending.add(event);
            }
            _ => pending.all = true,
        }
        drop(pending);
        self.wake.notify_one();
    }

    fn look_everywhere(&self) {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .all = true;
        self.wake.notify_one();
    }

    fn is_settled(&self) -> bool {
        let pending = self.pending.lock();
        pending.unwrap_or_else(PoisonError::into_inner).is_settled()
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Whether an event says that nothing more comes of what was begun: the writer closed the file,
/// or it took its name in one step.
fn is_whole(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    )
}

pub(crate) async fn run(root: &Path, tx: mpsc::Sender<Vec<Input>>) -> Result<(), SourceError> {
    let mailbox = Arc::new(Mailbox::default());
    // Watch first, look second: nothing falls in between.
    let mut watcher = Some(watch(root, &mailbox)?);
    let (mut loader, first) = blocking(Loader::new(root), |loader| {
        loader.rescan(&BTreeSet::new()).map(|()| loader.changes())
    })
    .await?;
    if tx.send(first?).await.is_err() {
        return Ok(());
    }
    let mut due = Instant::now() + RESCAN_INTERVAL;
    let mut looked = Instant::now();
    loop {
        let all = tokio::select! {
            () = tx.closed() => return Ok(()),
            () = sleep_until(due) => true,
            () = burst(&mailbox, looked) => false,
        };
        let mut pending = mailbox.take();
        pending.all |= all;
        if pending.all {
            due = Instant::now() + RESCAN_INTERVAL;
        }
        let at = root.to_owned();
        let (back, (batch, lost)) =
            blocking(loader, move |loader| look(&at, loader, &pending)).await?;
        loader = back;
        looked = Instant::now();
        if lost || watcher.is_none() {
            // The directory was replaced, and the old watch follows the old one.
            watcher = watch(root, &mailbox).ok();
            match watcher {
                Some(_) => mailbox.look_everywhere(),
                None => due = Instant::now() + RETRY_INTERVAL,
            }
        }
        if !batch.is_empty() && tx.send(batch).await.is_err() {
            return Ok(());
        }
    }
}

fn watch(root: &Path, mailbox: &Arc<Mailbox>) -> Result<RecommendedWatcher, SourceError> {
    let fail = |source| SourceError::Watch {
        path: root.to_owned(),
        source,
    };
    let mailbox = Arc::clone(mailbox);
    let mut watcher = notify::recommended_watcher(move |event| mailbox.put(event)).map_err(fail)?;
    watcher
        .watch(root, RecursiveMode::Recursive)
        .map_err(fail)?;
    Ok(watcher)
}

/// Waits for the first event, and then for the end of its burst or, where it was quiet before,
/// until what changed is settled.
async fn burst(mailbox: &Mailbox, looked: Instant) {
    mailbox.wake.notified().await;
    let was_quiet = looked.elapsed() >= QUIET;
    let end = Instant::now() + BURST_MAX;
    while !(was_quiet && mailbox.is_settled()) {
        let quiet = Instant::now() + QUIET;
        let woken = timeout_at(quiet.min(end), mailbox.wake.notified()).await;
        if woken.is_err() {
            return;
        }
    }
}

async fn blocking<T: Send + 'static>(
    mut loader: Loader,
    work: impl FnOnce(&mut Loader) -> T + Send + 'static,
) -> Result<(Loader, T), SourceError> {
    let task = tokio::task::spawn_blocking(move || {
        let out = work(&mut loader);
        (loader, out)
    });
    task.await.map_err(|_| SourceError::Interrupted)
}

/// Looks where the events point. Returns the changes, and whether the watch is lost.
fn look(root: &Path, loader: &mut Loader, pending: &Pending) -> (Vec<Input>, bool) {
    let mut all = pending.all;
    let mut lost = false;
    let mut touched = BTreeSet::new();
    for path in &pending.paths {
        match place(root, path, loader) {
            Place::Nowhere => {}
            Place::File(path) => {
                touched.insert(path);
            }
            Place::Everywhere => all = true,
            Place::Root => {
                all = true;
                lost = true;
            }
        }
    }
    if !all {
        all = !touched.iter().all(|path| loader.touch(path));
    }
    if all && let Err(error) = loader.rescan(&touched) {
        loader.set_unreadable(&error);
        lost = true;
    }
    (loader.changes(), lost)
}

/// Where to look because of an event.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Nothing of ours.
    Nowhere,
    /// One file.
    File(String),
    /// The whole directory.
    Everywhere,
    /// The directory itself was touched.
    Root,
}

fn place(root: &Path, path: &Path, loader: &Loader) -> Place {
    let Ok(rel) = path.strip_prefix(root) else {
        return Place::Everywhere;
    };
    let mut names = Vec::new();
    for component in rel.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy()),
            _ => return Place::Everywhere,
        }
    }
    if names.is_empty() {
        return Place::Root;
    }
    if names.iter().any(|name| is_hidden(name)) {
        // Links may lead through hidden directories, as ConfigMap volumes do.
        return if loader.has_links() {
            Place::Everywhere
        } else {
            Place::Nowhere
        };
    }
    let rel = names.join("/");
    if Format::of(&rel).is_some() {
        return Place::File(rel);
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() || metadata.is_symlink() => Place::Everywhere,
        Err(_) if loader.is_known_directory(&rel) => Place::Everywhere,
        _ => Place::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use notify::Event;
    use notify::event::{CreateKind, DataChange, RemoveKind};

    use super::*;

    const WRITTEN: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const WRITING: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));

    fn renamed(mode: RenameMode) -> EventKind {
        EventKind::Modify(ModifyKind::Name(mode))
    }

    fn is_settled(events: &[(EventKind, &[&str])]) -> bool {
        let mut pending = Pending::default();
        for (kind, paths) in events {
            let event = Event::new(*kind);
            pending.add(
                paths
                    .iter()
                    .fold(event, |it, path| it.add_path(path.into())),
            );
        }
        pending.is_settled()
    }

    #[test]
    fn a_file_is_settled_once_its_writer_has_closed_it() {
        let created = EventKind::Create(CreateKind::File);
        assert!(!is_settled(&[(created, &["a.yaml"])]));
        assert!(!is_settled(&[(WRITING, &["a.yaml"])]));
        assert!(is_settled(&[
            (created, &["a.yaml"]),
            (WRITING, &["a.yaml"]),
            (WRITTEN, &["a.yaml"]),
        ]));
        // Another one is still being written: both are read later.
        assert!(!is_settled(&[
            (WRITTEN, &["a.yaml"]),
            (WRITING, &["b.yaml"])
        ]));
    }

    #[test]
    fn a_rename_is_settled_when_both_names_are_known() {
        let (from, to) = (renamed(RenameMode::From), renamed(RenameMode::To));
        let both = renamed(RenameMode::Both);
        // From elsewhere.
        assert!(is_settled(&[(to, &["a.yaml"])]));
        // Under its old name it is not gone: it would be missing until the new one is read.
        assert!(!is_settled(&[(from, &["a.yaml"])]));
        assert!(!is_settled(&[(from, &["a.yaml"]), (to, &["b.yaml"])]));
        assert!(is_settled(&[
            (from, &["a.yaml"]),
            (to, &["b.yaml"]),
            (both, &["a.yaml", "b.yaml"]),
        ]));
    }

    #[test]
    fn what_is_removed_or_hidden_or_unknown_waits_for_quiet() {
        let removed = EventKind::Remove(RemoveKind::File);
        assert!(!is_settled(&[(removed, &["a.yaml"])]));
        assert!(!is_settled(&[(WRITTEN, &[".a.yaml"])]));
        assert!(!is_settled(&[]));
        let all = Pending {
            all: true,
            ..Pending::default()
        };
        assert!(!all.is_settled());
    }
}
