//! What is written to an object, and what becomes of it.

use std::sync::Arc;

use model::status::{MANAGER_FINDINGS, StatusKey, StatusRow};
use model::{Kind, ObjectRef};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::apply::{self, Done, Job};
use super::plan::{self, Form};
use super::repeat::Verdict;
use super::{JUDGED_MAX, Rows, SETTLE, Writer, Written, findings};
use crate::jitter::{backoff, jittered};
use crate::write::{ATTEMPTS_MAX, BACKOFF, BACKOFF_MAX, Failure, PAUSE};

// === impl Writer ===

impl Writer {
    /// What the managers say of an object as it was seen.
    fn rows(&self, object: &ObjectRef) -> Rows {
        let Some(snapshot) = &self.snapshot else {
            return Rows::new();
        };
        if snapshot.foreign.contains(object) {
            return Rows::new();
        }
        let first = StatusKey {
            object: object.clone(),
            manager: "",
        };
        let rows = snapshot.statuses.range(first..);
        let rows = rows.take_while(|(key, _)| key.object == *object);
        let served = rows.filter(|(key, _)| self.scope.serves(key.manager));
        let mut rows: Rows = served
            .map(|(key, row)| (key.manager, Arc::clone(row)))
            .collect();
        if self.scope.serves(MANAGER_FINDINGS) && findings::has_conditions(&object.kind) {
            // Without a generation: which one they were found in, no snapshot says.
            let row = self.findings.get(object).cloned().unwrap_or_default();
            rows.push((MANAGER_FINDINGS, row));
        }
        rows
    }

    /// Judges what is due, and starts what is to be written.
    pub(super) fn start(&mut self, tasks: &mut JoinSet<Done>) {
        let now = Instant::now();
        for _ in 0..JUDGED_MAX {
            if tasks.len() >= self.limits.concurrency {
                return;
            }
            let Some(object) = self.queue.pop(now) else {
                return;
            };
            if let Some(job) = self.judge(&object) {
                self.running.insert(object);
                let shared = Arc::clone(&self.shared);
                tasks.spawn(async move { apply::write(&shared, job).await });
            }
        }
    }

    /// What is to be written to an object now.
    fn judge(&mut self, object: &ObjectRef) -> Option<Job> {
        if self.running.contains(object) {
            // It is judged again when that is done: the watch tells of it.
            self.queue.push(object.clone(), Instant::now() + SETTLE);
            return None;
        }
        let Some(seen) = self.observed.get(object) else {
            self.written.remove(object);
            self.repeats.remove(object);
            self.failures.remove(object);
            self.skip_probe(object);
            return None;
        };
        let form = self.forms.get(&object.kind).copied();
        let form = form.unwrap_or_else(|| Form::of(&object.kind));
        let rows = self.rows(object);
        let is_due = |(manager, row): &(&str, Arc<StatusRow>)| {
            // Before the pipeline has seen an edit, what it says is of no use.
            !plan::is_old(row, &seen) && plan::is_due(object, (manager, row), &seen, form)
        };
        let mut wait = None;
        let mut due: Rows = rows.into_iter().filter(is_due).collect();
        due.retain(
            |(manager, row)| match self.repeats.judge(object, (manager, row), &seen) {
                Verdict::Now => true,
                Verdict::Never => false,
                Verdict::After(until) => {
                    wait = Some(wait.map_or(until, |wait: Instant| wait.min(until)));
                    false
                }
            },
        );
        if let Some(until) = wait {
            self.queue.push(object.clone(), until);
        }
        if due.is_empty() {
            self.failures.remove(object);
            self.skip_probe(object);
            return None;
        }
        if let Some(written) = self.written.get(object)
            && written.judged == seen.resource_version
            && (!written.is_unchanged || written.rows == due)
        {
            return None;
        }
        if self.parked.holds(&object.kind, object) {
            return None;
        }
        Some(Job {
            object: object.clone(),
            rows: due,
            seen,
            form,
        })
    }

    /// Another object is to show whether its kind may be written there, since this one needs
    /// nothing.
    fn skip_probe(&mut self, object: &ObjectRef) {
        let skipped = self.parked.skip(object, None);
        for probe in skipped.probes {
            self.queue.push(probe, Instant::now());
        }
        for kind in skipped.ended {
            let version = plan::find(&kind).map(Kind::api_version).unwrap_or_default();
            let what = apply::what(&apply::resource(object, &version));
            self.shared.reports.forget(&what, &object.key.ns);
        }
    }

    /// Takes up what became of a write.
    pub(super) fn finish(&mut self, done: Done) {
        let object = done.job.object;
        self.running.remove(&object);
        for (manager, row, became) in done.sent {
            if self.repeats.note(&object, (manager, &row), became) {
                warn!(kind = %object.kind, object = %object.key, manager, "another one writes this status too; ours is repeated seldom");
            }
        }
        if let Some(form) = done.form {
            self.forms.insert(object.kind.clone(), form);
        }
        let now = Instant::now();
        match done.result {
            Ok(is_unchanged) => {
                self.failures.remove(&object);
                for parked in self.parked.allow(&object.kind, &object) {
                    self.queue.push(parked, now);
                }
                let written = Written {
                    judged: done.job.seen.resource_version.clone(),
                    is_unchanged,
                    rows: done.job.rows,
                };
                self.written.insert(object, written);
            }
            // If the right has ended, this is dropped with everything else.
            Err(None) => self.queue.push(object, now + SETTLE),
            Err(Some(Failure::Gone)) => {
                self.failures.remove(&object);
            }
            Err(Some(Failure::Refused(_))) => {
                if let Some(wait) = self.parked.refuse(object.kind.clone(), &object) {
                    self.queue.push(object, now + jittered(wait));
                }
            }
            Err(Some(failure)) => self.retry(object, &failure),
        }
    }

    fn retry(&mut self, object: ObjectRef, failure: &Failure) {
        let failures = self.failures.entry(object.clone()).or_default();
        *failures += 1;
        let wait = if *failures < ATTEMPTS_MAX {
            debug!(kind = %object.kind, object = %object.key, ?failure, "status not written");
            backoff(BACKOFF, BACKOFF_MAX, *failures)
        } else {
            warn!(kind = %object.kind, object = %object.key, ?failure, "status not written, it is tried again in a minute");
            *failures = 0;
            jittered(PAUSE)
        };
        self.queue.push(object, Instant::now() + wait);
    }
}
