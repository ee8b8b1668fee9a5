//! Our own root as a Secret: the one that istiod keeps, so that either adopts the other's.
//!
//! | key | holds |
//! |---|---|
//! | `ca-cert.pem` | certificate of the key that signs |
//! | `ca-key.pem` | the key that signs: PKCS#1, SEC1 or PKCS#8 |
//! | `root-cert.pem` | every root that is trusted |
//! | `cert-chain.pem`, `key.pem` | empty, as istiod has them |
//! | `next-ca-key.pem`, `previous-ca-key.pem` | during a rotation, of ours alone |
//!
//! Source: spec/control-plane.md §4.6, §10 items 72 and 73.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ca::root::{Created, RootStore, StoredRoot};
use ca::{Authority, CaError, Part, Source, TrustBundle};
use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PartialObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Client};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::Reports;
use crate::write::Failure;

/// Name of the Secret.
pub const SECRET_NAME: &str = "istio-ca-secret";
/// Its type.
pub const SECRET_TYPE: &str = "istio.io/ca-root";

const CERT: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const ROOTS: &str = "root-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const LEAF_KEY: &str = "key.pem";
const NEXT_KEY: &str = "next-ca-key.pem";
const PREVIOUS_KEY: &str = "previous-ca-key.pem";

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// First pause of [`start`], doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long [`start`] tries. Source: spec/control-plane.md §4.6.
const START_MAX: Duration = Duration::from_secs(20 * 60);

/// The root in the Secret `istio-ca-secret` of a namespace.
///
/// Its calls block on requests: they must be made from threads that may block, such as those
/// of `spawn_blocking`, while the runtime of the handle runs.
#[derive(Clone)]
pub struct SecretStore {
    secrets: Api<Secret>,
    namespace: String,
    runtime: Handle,
    reports: Option<Reports>,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let store = f.debug_struct("SecretStore");
        { store }
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

// === impl SecretStore ===

impl SecretStore {
    /// The store of a namespace; requests run on `runtime`.
    pub fn new(client: Client, namespace: &str, runtime: Handle) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            runtime,
            reports: None,
        }
    }

    /// The same, which tells when the API server refuses.
    #[must_use]
    pub fn with_reports(self, reports: Reports) -> Self {
        Self {
            reports: Some(reports),
            ..self
        }
    }

    /// Tells what became of a request.
    fn tell<T>(&self, verb: &str, answer: &kube::Result<T>) {
        let Some(reports) = &self.reports else {
            return;
        };
        let what = format!("{verb} secrets/{SECRET_NAME}");
        match answer {
            Ok(_) => reports.allowed(&what, ""),
            Err(error) => {
                if let Failure::Refused(message) = Failure::of(error, SECRET_NAME) {
                    let _ = reports.refused(&what, "", &message);
                }
            }
        }
    }

    fn at(&self, key: &str) -> PathBuf {
        let whole = PathBuf::from(format!("Secret {}/{SECRET_NAME}", self.namespace));
        if key.is_empty() {
            whole
        } else {
            whole.join(key)
        }
    }

    fn unavailable(&self, reason: impl std::fmt::Display) -> CaError {
        CaError::Unavailable {
            path: self.at(""),
            reason: reason.to_string(),
        }
    }

    /// Waits for a request.
    fn ask<T>(
        &self,
        verb: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        let asked = async {
            let answer = timeout(TIMEOUT, request).await;
            if let Ok(answer) = &answer {
                self.tell(verb, answer);
            }
            answer
        };
        match self.runtime.block_on(asked) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Refusal::Conflict),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Refusal::Gone),
            Ok(Err(kube::Error::Api(status))) => {
                let reason = format!("{} {}: {}", status.code, status.reason, status.message);
                Err(Refusal::Other(self.unavailable(reason)))
            }
            // What serde says of a Secret could repeat parts of it.
            Ok(Err(kube::Error::SerdeError(_))) => {
                let reason = "the API server answers with what is no Secret";
                Err(Refusal::Other(self.unavailable(reason)))
            }
            Ok(Err(error)) => Err(Refusal::Other(self.unavailable(error))),
            Err(_) => {
                let reason = format!("no answer within {} s", TIMEOUT.as_secs());
                Err(Refusal::Other(self.unavailable(reason)))
            }
        }
    }

    fn get(&self) -> Result<Option<Secret>, CaError> {
        match self.ask("get", self.secrets.get(SECRET_NAME)) {
            Ok(secret) => Ok(Some(secret)),
            Err(Refusal::Gone) => Ok(None),
            Err(Refusal::Conflict) => Err(CaError::Conflict),
            Err(Refusal::Other(error)) => Err(error),
        }
    }

    fn corrupt(&self, key: &str, reason: impl Into<String>) -> CaError {
        CaError::Corrupt {
            path: self.at(key),
            reason: reason.into(),
        }
    }

    /// The root of a Secret. A certificate that signs is a root, also when the bundle beside
    /// it does not have it yet: so does istiod read it.
    fn read(&self, secret: &Secret) -> Result<StoredRoot, CaError> {
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let text = |key: &str| -> Result<Option<Zeroizing<String>>, CaError> {
            let Some(bytes) = data.get(key).filter(|bytes| !bytes.0.is_empty()) else {
                return Ok(None);
            };
            let text = std::str::from_utf8(&bytes.0).map_err(|_| self.corrupt(key, "not text"))?;
            Ok(Some(Zeroizing::new(text.to_owned())))
        };
        let required =
            |key: &str| text(key)?.ok_or_else(|| CaError::Incomplete { path: self.at(key) });
        if text(CHAIN)?.is_some() {
            return Err(self.corrupt(
                CHAIN,
                "this CA has issuers of its own; such a one belongs into the Secret cacerts",
            ));
        }
        let cert = required(CERT)?;
        let own = TrustBundle::from_pem(&cert).map_err(|e| self.corrupt(CERT, e))?;
        let bundle_pem = match text(ROOTS)? {
            None => cert.to_string(),
            Some(roots) => {
                let known = TrustBundle::from_pem(&roots).map_err(|e| self.corrupt(ROOTS, e))?;
                if known.contains(&own) {
                    roots.to_string()
                } else {
                    [known.pem(), own.pem()].concat()
                }
            }
        };
        Ok(StoredRoot {
            key_pem: required(KEY)?,
            bundle_pem,
            next_key_pem: text(NEXT_KEY)?,
            previous_key_pem: text(PREVIOUS_KEY)?,
        })
    }

    /// The data of a root over that of a Secret; keys that are not ours stay.
    fn write(
        &self,
        root: &StoredRoot,
        data: &mut BTreeMap<String, ByteString>,
    ) -> Result<(), CaError> {
        let cert = root
            .certificate_pem()
            .ok_or_else(|| self.corrupt(ROOTS, "does not belong to the private key beside it"))?;
        let mut set = |key: &str, text: &str| {
            data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        set(CERT, &cert);
        set(KEY, &root.key_pem);
        set(ROOTS, &root.bundle_pem);
        set(CHAIN, "");
        set(LEAF_KEY, "");
        for (key, text) in [
            (NEXT_KEY, &root.next_key_pem),
            (PREVIOUS_KEY, &root.previous_key_pem),
        ] {
            match text {
                Some(text) => {
                    data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
                }
                None => {
                    data.remove(key);
                }
            }
        }
        Ok(())
    }
}

impl RootStore for SecretStore {
    fn load(&self) -> Result<Option<StoredRoot>, CaError> {
        let secret = self.get()?;
        secret.map(|secret| self.read(&secret)).transpose()
    }

    fn create(&self, root: &StoredRoot) -> Result<Created, CaError> {
        let mut data = BTreeMap::new();
        self.write(root, &mut data)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET_NAME.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        match self.ask(
            "create",
            self.secrets.create(&PostParams::default(), &secret),
        ) {
            Ok(_) => Ok(Created::Ours),
            Err(Refusal::Conflict) => Ok(Created::Theirs),
            Err(Refusal::Gone) => Err(self.unavailable("there is no such namespace")),
            Err(Refusal::Other(error)) => Err(error),
        }
    }

    fn replace(&self, old: &StoredRoot, new: &StoredRoot) -> Result<(), CaError> {
        let Some(mut secret) = self.get()? else {
            return Err(CaError::Conflict);
        };
        if self.read(&secret)? != *old {
            return Err(CaError::Conflict);
        }
        self.write(new, secret.data.get_or_insert_default())?;
        // With the resourceVersion that was read, so that nobody's change is lost.
        let parameters = PostParams::default();
        let replaced = self.secrets.replace(SECRET_NAME, &parameters, &secret);
        match self.ask("update", replaced) {
            Ok(_) => Ok(()),
            Err(Refusal::Conflict | Refusal::Gone) => Err(CaError::Conflict),
            Err(Refusal::Other(error)) => Err(error),
        }
    }

    fn place(&self, part: Part) -> PathBuf {
        self.at(match part {
            Part::Key => KEY,
            Part::Certificate => CERT,
            Part::Chain => CHAIN,
            Part::Roots => ROOTS,
        })
    }
}

enum Refusal {
    /// Somebody was faster.
    Conflict,
    /// It is not there.
    Gone,
    Other(CaError),
}

/// Fills an authority for the first time, as [`Source::start`] does, for as long as whoever
/// keeps the root does not answer: with growing pauses, up to 20 minutes.
///
/// # Errors
/// What does not read is an error at once: nothing is created in its place.
pub async fn start(source: Source, authority: Arc<Authority>) -> Result<(), CaError> {
    let (until, mut pause) = (Instant::now() + START_MAX, PAUSE);
    loop {
        let (source, to) = (source.clone(), Arc::clone(&authority));
        let started =
            tokio::task::spawn_blocking(move || source.start(&to, SystemTime::now())).await;
        let error = match started {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ CaError::Unavailable { .. })) if Instant::now() + pause < until => error,
            Ok(Err(error)) => return Err(error),
            Err(error) => return Err(CaError::Crypto(error.to_string())),
        };
        tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "the root cannot be read yet");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Tells of every change of the Secret until dropped; for [`ca::follow`], which also polls.
pub async fn follow(client: Client, namespace: &str, changed: Arc<Notify>) {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={SECRET_NAME}"));
    let events = watch_objects(secrets, config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut is_failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {
                is_failing = false;
                changed.notify_one();
            }
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "the Secret of the root is not watched; polling");
                }
                is_failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
