//! What is written to a ConfigMap, and what becomes of it.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use model::input::is_selected;
use model::{ObjectKey, ObjectRef, Str};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::send::{Done, Write, count, created, send};
use super::table::Listed;
use super::{CONCURRENCY, KEY_CRL, KEY_ROOT, Term, hash};
use crate::jitter::{backoff, jittered};
use crate::queue::Queue;
use crate::write::{ATTEMPTS_MAX, BACKOFF, BACKOFF_MAX, Failure, PAUSE};

/// Namespaces that never get one.
const SKIPPED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
/// ConfigMaps judged before others get their turn.
const JUDGED_MAX: usize = 1_000;

// === impl Term ===

impl Term<'_> {
    /// The key and value that a ConfigMap is to hold; `None` when it is none of ours.
    fn wanted(&self, name: &str) -> Option<(&'static str, String)> {
        let roots = self.config.bundles.borrow();
        if roots.root_pem.is_empty() {
            return None;
        }
        if name == self.config.names.root {
            return Some((KEY_ROOT, roots.root_pem.clone()));
        }
        Some((KEY_CRL, roots.crl_pem.clone()?))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.selectors.is_some()
            && self.places.is_listed()
            && self.maps.values().all(Listed::is_listed)
    }

    /// Whether a namespace is given roots.
    fn is_ours(&self, ns: &Str) -> bool {
        let Some(place) = self.places.get(ns) else {
            return false;
        };
        let selectors = self.selectors.as_deref().unwrap_or_default();
        !place.is_ending
            && !SKIPPED.contains(&ns.as_str())
            && (*ns == self.config.system_namespace || is_selected(selectors, Some(&place.labels)))
    }

    /// What is to be written now, if anything.
    pub(super) fn judge(&self, object: &ObjectRef) -> Option<Write> {
        let ObjectKey { ns, name } = &object.key;
        if !self.is_ours(ns) {
            return None;
        }
        let (key, value) = self.wanted(name)?;
        let Some(seen) = self.maps.get(name)?.get(ns) else {
            return Some(Write::Create(Box::new(created(&object.key, key, value))));
        };
        if seen.value == Some(hash(&value)) {
            return None;
        }
        let mut patch = json!({
            "metadata": {"resourceVersion": seen.version},
            "data": {key: value},
        });
        if seen.is_binary
            && let Some(fields) = patch.as_object_mut()
        {
            fields.insert("binaryData".to_owned(), json!({key: null}));
        }
        Some(Write::Patch(patch))
    }

    pub(super) fn start(&mut self, tasks: &mut JoinSet<Done>) {
        let now = Instant::now();
        for _ in 0..JUDGED_MAX {
            if tasks.len() >= CONCURRENCY || !self.is_ready() {
                break;
            }
            let Some(object) = self.queue.pop(now) else {
                return;
            };
            let uid = self.places.get(&object.key.ns).map(|place| &place.uid);
            let uid = uid.cloned().unwrap_or_default();
            if self.written.get(&object) == Some(&uid) {
                continue;
            }
            let write = self.judge(&object);
            let what = write.as_ref().map(Write::what);
            let skipped = self.parked.skip(&object, what.as_ref());
            for probe in skipped.probes {
                self.queue.push(probe, now);
            }
            for ended in skipped.ended {
                self.config.reports.forget(ended, &object.key.ns);
            }
            let (Some(write), Some(what)) = (write, what) else {
                continue;
            };
            if self.parked.holds(&what, &object) {
                continue;
            }
            // Until the watch tells of it, or it fails.
            self.written.insert(object.clone(), uid);
            let turn = self.bucket.take();
            let client = self.config.client.clone();
            let leadership = self.config.leadership.clone();
            let metrics = self.config.metrics.clone();
            let reports = self.config.reports.clone();
            tasks.spawn(async move {
                tokio::time::sleep_until(turn).await;
                let sending = send(client, &leadership, &object, write, &reports);
                let result = AssertUnwindSafe(sending).catch_unwind().await;
                let result = result
                    .unwrap_or_else(|_| Err(Some(Failure::Other("the write panicked".to_owned()))));
                count(&metrics, &result);
                let result = result.map(|_| ());
                Done {
                    object,
                    what,
                    result,
                }
            });
        }
        if !self.is_ready() {
            // Everything is marked again when the lists are there.
            self.queue = Queue::default();
        }
    }

    pub(super) fn finish(&mut self, done: Done) {
        let object = done.object;
        let failure = match done.result {
            Ok(()) => {
                self.failures.remove(&object);
                for parked in self.parked.allow(&done.what, &object) {
                    self.queue.push(parked, Instant::now());
                }
                return;
            }
            Err(Some(Failure::Gone)) => {
                // Events tell when its namespace, or it, is there again.
                self.written.remove(&object);
                self.failures.remove(&object);
                return;
            }
            Err(Some(Failure::Refused(message))) => {
                self.written.remove(&object);
                self.failures.remove(&object);
                debug!(object = %object.key, message, "root refused");
                if let Some(wait) = self.parked.refuse(done.what, &object) {
                    self.queue.push(object, Instant::now() + jittered(wait));
                }
                return;
            }
            Err(None) => Failure::Other("no longer leading".to_owned()),
            Err(Some(failure)) => failure,
        };
        self.written.remove(&object);
        let failures = self.failures.entry(object.clone()).or_default();
        *failures += 1;
        let wait = if *failures < ATTEMPTS_MAX {
            debug!(object = %object.key, ?failure, "root not written");
            backoff(BACKOFF, BACKOFF_MAX, *failures)
        } else {
            warn!(object = %object.key, ?failure, "root not written, it is tried again in a minute");
            *failures = 0;
            jittered(PAUSE)
        };
        self.queue.push(object, Instant::now() + wait);
    }
}
