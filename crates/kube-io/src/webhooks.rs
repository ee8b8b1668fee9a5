//! The trust bundle in ValidatingWebhookConfigurations, so that the API server trusts our
//! webhook, and their failure policy.
//!
//! Source: spec/control-plane.md §8.9.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use http::{Method, Request, header};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::PostParams;
use kube::client::Body;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::write::Failure;
use crate::{Leadership, Reports};

/// Label of the control plane that a configuration belongs to.
const REVISION: &str = "istio.io/rev";
/// How rules of roles name them.
const RESOURCE: &str = "validatingwebhookconfigurations";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure or a self-test that did not pass, doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// While nothing leads to another look.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// What the API server says of an object that a webhook refuses.
const DENIED: &str = "denied the request";

/// What patches webhook configurations.
pub struct WebhookPatcher {
    /// Speaks to the API server.
    pub client: Client,
    /// Only the leader writes.
    pub leadership: Leadership,
    /// Revision of this control plane; empty is `default`.
    pub revision: String,
    /// Where the self-test would create its Gateway.
    pub system_namespace: String,
    /// Whether webhooks that work are made binding: `failurePolicy` Ignore becomes Fail.
    pub fail_closed: bool,
    /// The trust bundle, PEM; empty until there is one.
    pub roots: watch::Receiver<String>,
    /// Who is told that the API server refuses, if anybody.
    pub reports: Option<Reports>,
}

type Configurations = BTreeMap<String, ValidatingWebhookConfiguration>;

/// Patches until cancelled. Whatever fails is tried again with growing pauses.
pub async fn run(mut patcher: WebhookPatcher, cancel: CancellationToken) {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(patcher.client.clone());
    let config = watcher::Config::default().labels(&format!("{REVISION}={}", patcher.revision()));
    let events = watch_objects(api.clone(), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut seen = Configurations::new();
    let mut listed = Configurations::new();
    let (mut is_complete, mut pause, mut next) = (false, PAUSE, Instant::now() + IDLE);
    let mut leadership = patcher.leadership.clone();
    loop {
        let is_due = tokio::select! {
            () = cancel.cancelled() => return,
            Some(event) = events.next() => {
                patcher.tell_watch(event.as_ref().err());
                observe(event, &mut seen, &mut listed, &mut is_complete)
            }
            Ok(()) = patcher.roots.changed() => true,
            true = leadership.changed() => true,
            () = sleep_until(next) => true,
        };
        if !is_due || !is_complete {
            continue;
        }
        let settled = tokio::select! {
            () = cancel.cancelled() => return,
            settled = patcher.reconcile(&api, &mut seen) => settled,
        };
        if settled {
            (pause, next) = (PAUSE, Instant::now() + IDLE);
        } else {
            next = Instant::now() + pause;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Takes an event in. Returns whether there is something to look at.
fn observe(
    event: Result<Event<ValidatingWebhookConfiguration>, watcher::Error>,
    seen: &mut Configurations,
    listed: &mut Configurations,
    is_complete: &mut bool,
) -> bool {
    match event {
        Ok(Event::Init) => listed.clear(),
        Ok(Event::InitApply(found)) => {
            listed.insert(found.name_any(), found);
        }
        Ok(Event::InitDone) => {
            *seen = std::mem::take(listed);
            *is_complete = true;
            return true;
        }
        Ok(Event::Apply(found)) => {
            seen.insert(found.name_any(), found);
            return true;
        }
        Ok(Event::Delete(found)) => {
            seen.remove(&found.name_any());
        }
        Err(error) => tracing::debug!(%error, "webhook configurations are not watched"),
    }
    false
}

// === impl WebhookPatcher ===

impl WebhookPatcher {
    fn revision(&self) -> &str {
        match self.revision.as_str() {
            "" => "default",
            revision => revision,
        }
    }

    /// Writes what differs. Returns whether nothing is left to do.
    async fn reconcile(
        &self,
        api: &Api<ValidatingWebhookConfiguration>,
        seen: &mut Configurations,
    ) -> bool {
        let roots = self.roots.borrow().clone();
        if ca::TrustBundle::from_pem(&roots).is_err() || self.leadership.term().is_none() {
            // A change of either leads here again.
            return true;
        }
        let mut settled = true;
        for current in seen.values_mut() {
            if with_roots(current, &roots).is_some() {
                settled &= self.write(api, current, |c| with_roots(c, &roots)).await;
            }
        }
        let is_open = |c: &ValidatingWebhookConfiguration| binding(c).is_some();
        if !settled || !self.fail_closed || !seen.values().any(is_open) {
            return settled;
        }
        match self.self_test().await {
            Ok(()) => {}
            Err(reason) => {
                tracing::info!(reason, "webhooks stay at failurePolicy Ignore");
                return false;
            }
        }
        for current in seen.values_mut() {
            if is_open(current) {
                settled &= self.write(api, current, binding).await;
            }
        }
        settled
    }

    /// Says that a request failed: to whom refusals are told if it is one, else in the log.
    fn tell(&self, what: &str, error: &kube::Error, name: &str) {
        let failure = Failure::of(error, name);
        if let (Some(reports), Failure::Refused(message)) = (&self.reports, failure) {
            let _ = reports.refused(&format!("{what} {RESOURCE}"), "", &message);
        } else {
            tracing::warn!(what, name, %error, "webhook configurations are out of reach");
        }
    }

    fn allowed(&self, what: &str) {
        if let Some(reports) = &self.reports {
            reports.allowed(&format!("{what} {RESOURCE}"), "");
        }
    }

    /// The same of the watch, which fails or goes on.
    fn tell_watch(&self, error: Option<&watcher::Error>) {
        match error {
            Some(watcher::Error::InitialListFailed(error)) => self.tell("list", error, ""),
            Some(watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error)) => {
                self.tell("watch", error, "");
            }
            Some(error) => tracing::debug!(%error, "watch of webhook configurations"),
            None => {
                self.allowed("list");
                self.allowed("watch");
            }
        }
    }

    /// Writes a configuration as `change` makes it, by the version that was seen.
    async fn write(
        &self,
        api: &Api<ValidatingWebhookConfiguration>,
        current: &mut ValidatingWebhookConfiguration,
        change: impl Fn(&ValidatingWebhookConfiguration) -> Option<ValidatingWebhookConfiguration>,
    ) -> bool {
        let Some(wanted) = change(current) else {
            return true;
        };
        if self.leadership.term_for(TIMEOUT).is_none() {
            return false;
        }
        let name = current.name_any();
        let parameters = PostParams::default();
        let replaced = timeout(TIMEOUT, api.replace(&name, &parameters, &wanted)).await;
        match replaced {
            Ok(Ok(now)) => {
                tracing::info!(name, "webhook configuration written");
                self.allowed("update");
                *current = now;
                true
            }
            // Its new version is on its way, or it is gone.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => true,
            Ok(Err(error)) => {
                self.tell("update", &error, &name);
                false
            }
            Err(_) => {
                tracing::warn!(name, "webhook configuration not written in time");
                false
            }
        }
    }

    /// Asks the API server to create what our webhook refuses, without creating it.
    async fn self_test(&self) -> Result<(), String> {
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {
                "name": "invalid-gateway",
                "namespace": self.system_namespace,
                "annotations": {"internal.istio.io/webhook-always-reject": "true"},
                "labels": {REVISION: self.revision()},
            },
            "spec": {},
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!(
                "/apis/networking.istio.io/v1/namespaces/{}/gateways?dryRun=All",
                self.system_namespace
            ))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(gateway.to_string().into_bytes()))
            .map_err(|error| error.to_string())?;
        let asked = async {
            let response: http::Response<Body> = self.client.send(request).await?;
            let code = response.status();
            let bytes = response.into_body().collect_bytes().await?;
            Ok::<_, kube::Error>((code, bytes))
        };
        let (code, bytes) = match timeout(TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the self-test was not answered in time".to_owned()),
        };
        let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = status.get("message").and_then(Value::as_str);
        verdict(code.as_u16(), message.unwrap_or_default())
    }
}

/// Whether the self-test has passed.
fn verdict(code: u16, message: &str) -> Result<(), String> {
    let is_absent = code == 404 && !message.contains("namespaces");
    let is_not_testable = message.contains("does not support dry run");
    if message.contains(DENIED) || is_absent || is_not_testable {
        return Ok(());
    }
    if (200..300).contains(&code) {
        return Err("the webhook let an invalid Gateway pass the self-test".to_owned());
    }
    Err(format!("the self-test was answered by {code}: {message}"))
}

/// The configuration with these roots, if it has others.
fn with_roots(
    current: &ValidatingWebhookConfiguration,
    roots: &str,
) -> Option<ValidatingWebhookConfiguration> {
    let mut wanted = current.clone();
    for webhook in wanted.webhooks.iter_mut().flatten() {
        webhook.client_config.ca_bundle = Some(ByteString(roots.as_bytes().to_vec()));
    }
    (wanted != *current).then_some(wanted)
}

/// The configuration with webhooks that must answer, if one of them need not.
fn binding(current: &ValidatingWebhookConfiguration) -> Option<ValidatingWebhookConfiguration> {
    let mut wanted = current.clone();
    for webhook in wanted.webhooks.iter_mut().flatten() {
        webhook.failure_policy = Some("Fail".to_owned());
    }
    (wanted != *current).then_some(wanted)
}

#[cfg(test)]
mod tests;
