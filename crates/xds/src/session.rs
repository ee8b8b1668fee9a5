//! The protocol of one stream, without the stream.
//!
//! A [`Session`] is told of requests and snapshots and answers with effects.
//! What a client holds is a map per type (`sent`); what it should hold is in the
//! snapshot; every response is the difference of the two, in the order of
//! the push chains. So there is no queue that could overrun and no history that
//! could go wrong.
//!
//! Source: spec/control-plane.md §2.3–§2.7, §10; spec/workload-discovery.md §1.6.

mod on_demand;
mod portion;
mod push;
#[cfg(test)]
mod secret_tests;
mod subscription;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::rejection::Rejection;
use model::{ProxyClass, Str};
use proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest, Status};
use snapshot::{DeltaCache, ResourceMap, ResourceType, SecretAccess, Snapshot, needs_access};
use tonic::Code;

use crate::client::{Client, ClientKind};
use crate::response::{Payload, Response};
pub use portion::Limits;
use subscription::Subscription;
pub use subscription::TypeStatus;

/// Names that one subscription may hold.
pub const NAMES_MAX: usize = 100_000;
/// Names of secrets that one subscription may hold: each is judged anew for every snapshot.
pub const SECRET_NAMES_MAX: usize = 1000;
/// Length of a resource name, bytes.
pub const NAME_BYTES_MAX: usize = 4096;
/// Entries of `initial_resource_versions`.
pub const INITIAL_VERSIONS_MAX: usize = 500_000;
/// Types that one stream may ask for, known or not.
pub const TYPES_MAX: usize = 32;
/// Length of the recorded text of a rejection, bytes.
pub const LAST_ERROR_BYTES_MAX: usize = 1024;

/// How long the addresses of a ztunnel that asked for nothing else wait for it to ask for
/// policies, milliseconds. A ztunnel asks for both at once.
pub const HOLD_MS: u64 = 200;

/// Sent by proxies to say that they are healthy; never answered.
const HEALTH_TYPE: &str = "type.googleapis.com/istio.v1.HealthInformation";

/// The variant of the protocol that a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

/// A request of either flavour.
#[derive(Clone, Debug)]
pub enum Request {
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
    /// State of the world.
    Sotw(DiscoveryRequest),
}

impl Request {
    /// The sender; only that of the first request counts.
    pub fn node(&self) -> Option<&proto::core::Node> {
        match self {
            Self::Delta(request) => request.node.as_ref(),
            Self::Sotw(request) => request.node.as_ref(),
        }
    }

    /// The type asked for.
    pub fn type_url(&self) -> &str {
        match self {
            Self::Delta(request) => &request.type_url,
            Self::Sotw(request) => &request.type_url,
        }
    }

    /// Whether it names private keys of the client's namespace.
    pub(crate) fn asks_for_keys(&self) -> bool {
        let mut names: Box<dyn Iterator<Item = &String>> = match self {
            Self::Delta(request) => {
                let held = request.initial_resource_versions.keys();
                Box::new(request.resource_names_subscribe.iter().chain(held))
            }
            Self::Sotw(request) => Box::new(request.resource_names.iter()),
        };
        self.type_url() == ResourceType::Secret.type_url() && names.any(|name| needs_access(name))
    }

    /// Whether it only reports health, which opens no subscription.
    pub fn is_health(&self) -> bool {
        self.type_url() == HEALTH_TYPE
    }
}

/// Something worth counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The client accepted a response.
    Acked {
        /// Kind of the resources.
        ty: ResourceType,
        /// From response to acknowledgement, milliseconds.
        elapsed_ms: u64,
    },
    /// The client rejected a response.
    Nacked {
        /// Kind of the resources.
        ty: ResourceType,
        /// Its reason, bounded.
        message: String,
    },
    /// A message with an old nonce was ignored.
    StaleNonce {
        /// Kind of the resources.
        ty: ResourceType,
    },
}

/// What the owner of a session has to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a response.
    Send(Response),
    /// Have this class translated for as long as the stream lives.
    Interest(ProxyClass),
    /// End the stream with this status.
    Close(Code, String),
    /// Count something.
    Observe(Observation),
}

/// Effects, in order.
pub type Effects = Vec<Effect>;

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    client: Client,
    flavour: Flavour,
    cache: Arc<DeltaCache>,
    nonce_prefix: String,
    nonces_count: u64,
    subscriptions: BTreeMap<ResourceType, Subscription>,
    /// Types we do not serve and have answered once.
    unknown: BTreeSet<String>,
    interest_raised: bool,
    closed: bool,
    limits: Limits,
    /// Addresses wait until then for policies to be asked for.
    hold_until_ms: Option<u64>,
    /// Who may read private keys; `None` to go by the Gateways of the snapshot.
    access: Option<Arc<dyn SecretAccess>>,
}

// === impl Session ===

impl Session {
    /// The session of a client that was just identified. `nonce_prefix` must differ
    /// between streams, so that nonces are unique.
    pub fn new(
        client: Client,
        flavour: Flavour,
        cache: Arc<DeltaCache>,
        nonce_prefix: impl Into<String>,
    ) -> Self {
        Self {
            client,
            flavour,
            cache,
            nonce_prefix: nonce_prefix.into(),
            nonces_count: 0,
            subscriptions: BTreeMap::new(),
            unknown: BTreeSet::new(),
            interest_raised: false,
            closed: false,
            limits: Limits::default(),
            hold_until_ms: None,
            access: None,
        }
    }

    /// With another judge of who may read private keys.
    #[must_use]
    pub fn with_secret_access(self, access: Arc<dyn SecretAccess>) -> Self {
        Self {
            access: Some(access),
            ..self
        }
    }

    /// Whether the client has asked for private keys of its namespace.
    pub(crate) fn asks_for_keys(&self) -> bool {
        let secrets = self.subscriptions.get(&ResourceType::Secret);
        secrets.is_some_and(|secrets| secrets.names().iter().any(|name| needs_access(name)))
    }

    /// With other limits on responses.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// When to call [`Self::on_tick`] unless something else happens first, on the clock of
    /// the calls before.
    pub fn deadline(&self) -> Option<u64> {
        self.hold_until_ms.filter(|_| !self.closed)
    }

    /// Takes note of the time. A ztunnel's addresses wait for its policies only so long.
    pub fn on_tick(&mut self, now_ms: u64, snapshot: &Arc<Snapshot>) -> Effects {
        let mut effects = Effects::new();
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now_ms);
        if is_due {
            self.push(now_ms, snapshot, true, &mut effects);
        }
        effects
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The variant of the protocol that the client speaks.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The state of every subscription, by type.
    pub fn status(&self) -> Vec<TypeStatus> {
        self.subscriptions
            .iter()
            .map(|(ty, sub)| sub.status(*ty))
            .collect()
    }

    /// Takes a request of the client. `now_ms` is any monotonic clock.
    pub fn on_request(
        &mut self,
        now_ms: u64,
        request: Request,
        snapshot: &Arc<Snapshot>,
    ) -> Effects {
        let mut effects = Effects::new();
        if self.closed {
            return effects;
        }
        if let Err(close) = self.accept(now_ms, request, &mut effects) {
            self.closed = true;
            effects.push(close);
            return effects;
        }
        self.push(now_ms, snapshot, true, &mut effects);
        effects
    }

    /// Takes a new snapshot.
    pub fn on_snapshot(&mut self, now_ms: u64, snapshot: &Arc<Snapshot>) -> Effects {
        let mut effects = Effects::new();
        if !self.closed {
            self.push(now_ms, snapshot, false, &mut effects);
        }
        effects
    }

    /// Applies a request to the subscriptions; what to send follows from them.
    fn accept(
        &mut self,
        now_ms: u64,
        request: Request,
        effects: &mut Effects,
    ) -> Result<(), Effect> {
        // Before anything that may close the stream: whoever counts the streams of a
        // class may rely on one `Interest` each.
        if !self.interest_raised {
            self.interest_raised = true;
            effects.extend(self.client.class.clone().map(Effect::Interest));
        }
        check_bounds(&request)?;
        if request.is_health() {
            return Ok(());
        }
        let Some(ty) = ResourceType::from_type_url(request.type_url()) else {
            return self.accept_unknown(request.type_url(), effects);
        };
        match (self.flavour, request) {
            (Flavour::Delta, Request::Delta(request)) => {
                self.accept_delta(now_ms, ty, request, effects)
            }
            (Flavour::Sotw, Request::Sotw(request)) => {
                self.accept_sotw(now_ms, ty, request, effects);
                Ok(())
            }
            _ => Err(Effect::Close(
                Code::Internal,
                "request of the other flavour".to_owned(),
            )),
        }
    }

    /// A type we do not serve gets one empty response: a client may wait for it.
    fn accept_unknown(&mut self, type_url: &str, effects: &mut Effects) -> Result<(), Effect> {
        if self.unknown.contains(type_url) {
            return Ok(());
        }
        if self.unknown.len() + self.subscriptions.len() >= TYPES_MAX {
            return Err(exhausted("too many types on one stream"));
        }
        self.unknown.insert(type_url.to_owned());
        let response = Response {
            ty: None,
            type_url: Str::from(type_url),
            nonce: self.next_nonce(),
            version: ResourceMap::default().version_str().to_string(),
            behind_ms: 0,
            requested: true,
            payload: Payload::Own {
                chunks: Vec::new(),
                removed: Vec::new(),
            },
        };
        effects.push(Effect::Send(response));
        Ok(())
    }

    fn accept_delta(
        &mut self,
        now_ms: u64,
        ty: ResourceType,
        request: DeltaDiscoveryRequest,
        effects: &mut Effects,
    ) -> Result<(), Effect> {
        let is_first = !self.subscriptions.contains_key(&ty);
        let (names_count, names_max) = if let Some(sub) = self.subscriptions.get_mut(&ty) {
            let nonce = &request.response_nonce;
            if take_verdict(
                sub,
                now_ms,
                ty,
                nonce,
                (request.error_detail.as_ref(), push::is_of_proxies(ty)),
                effects,
            ) {
                sub.change_delta(ty, &request);
            }
            (sub.names_count(), sub.names_max())
        } else if request.error_detail.is_some() {
            (0, 0)
        } else {
            let sub = Subscription::first_delta(ty, request);
            let sub = self.subscriptions.entry(ty).or_insert(sub);
            (sub.names_count(), sub.names_max())
        };
        if is_first && names_max > 0 {
            self.note_first(now_ms, ty);
        }
        let names_max = match ty {
            ResourceType::Secret => SECRET_NAMES_MAX,
            _ => names_max,
        };
        if names_count > names_max {
            return Err(exhausted("too many names in one subscription"));
        }
        Ok(())
    }

    /// A workload that names a policy which its ztunnel does not know is open to what that
    /// policy denies, so the policies come first although the addresses are asked for first.
    fn note_first(&mut self, now_ms: u64, ty: ResourceType) {
        let has_policies = self
            .subscriptions
            .contains_key(&ResourceType::Authorization);
        if has_policies {
            self.hold_until_ms = None;
        } else if ty == ResourceType::Address && self.client.kind == ClientKind::Ztunnel {
            self.hold_until_ms = Some(now_ms.saturating_add(HOLD_MS));
        }
    }

    fn accept_sotw(
        &mut self,
        now_ms: u64,
        ty: ResourceType,
        request: DiscoveryRequest,
        effects: &mut Effects,
    ) {
        let is_named = !ty.is_wildcard_class();
        let Some(sub) = self.subscriptions.get_mut(&ty) else {
            let unsubscribes = is_named && request.resource_names.is_empty();
            if request.error_detail.is_none() && !unsubscribes {
                self.subscriptions
                    .insert(ty, Subscription::first_sotw(ty, request.resource_names));
            }
            return;
        };
        if request.error_detail.is_none() && is_named && request.resource_names.is_empty() {
            self.subscriptions.remove(&ty);
            return;
        }
        if request.error_detail.is_none() && request.response_nonce.is_empty() {
            sub.restart_sotw(ty, request.resource_names);
            return;
        }
        let nonce = &request.response_nonce;
        if take_verdict(
            sub,
            now_ms,
            ty,
            nonce,
            (
                request.error_detail.as_ref(),
                is_named && push::is_of_proxies(ty),
            ),
            effects,
        ) && is_named
        {
            sub.change_sotw(request.resource_names);
        }
    }

    /// What the client refuses of what it should have: the resources to blame, with its words.
    pub fn rejections(&self) -> Vec<Rejection> {
        let mut out = Vec::new();
        for (ty, sub) in &self.subscriptions {
            let refused = sub.verdicts.refused(&sub.sent);
            out.extend(refused.map(|(name, text)| Rejection {
                type_url: Str::from(ty.type_url()),
                name: name.clone(),
                text: text.clone(),
            }));
        }
        out
    }

    fn next_nonce(&mut self) -> String {
        self.nonces_count += 1;
        format!("{}{:x}", self.nonce_prefix, self.nonces_count)
    }
}

/// Handles the nonce and the error of a request for a watched type; false when the
/// request is stale and must be ignored as a whole.
fn take_verdict(
    sub: &mut Subscription,
    now_ms: u64,
    ty: ResourceType,
    nonce: &str,
    (error, can_split): (Option<&Status>, bool),
    effects: &mut Effects,
) -> bool {
    if !nonce.is_empty() && nonce != sub.nonce_sent() {
        effects.push(Effect::Observe(Observation::StaleNonce { ty }));
        return false;
    }
    if let Some(error) = error {
        let message = reason(&error.message).to_owned();
        sub.nack(ty, nonce, &error.message, can_split);
        effects.push(Effect::Observe(Observation::Nacked { ty, message }));
    } else if let Some(elapsed_ms) = sub.ack(nonce, now_ms) {
        effects.push(Effect::Observe(Observation::Acked { ty, elapsed_ms }));
    }
    true
}

fn exhausted(message: &str) -> Effect {
    Effect::Close(Code::ResourceExhausted, message.to_owned())
}

fn check_bounds(request: &Request) -> Result<(), Effect> {
    let too_long = |name: &String| name.len() > NAME_BYTES_MAX;
    let (names, is_long) = match request {
        Request::Delta(r) => {
            if r.initial_resource_versions.len() > INITIAL_VERSIONS_MAX {
                return Err(exhausted("too many initial resource versions"));
            }
            let names = r
                .resource_names_subscribe
                .len()
                .max(r.resource_names_unsubscribe.len());
            let mut all = r.resource_names_subscribe.iter();
            let is_long = all.any(too_long)
                || r.resource_names_unsubscribe.iter().any(too_long)
                || r.initial_resource_versions.keys().any(too_long);
            (names, is_long)
        }
        Request::Sotw(r) => (
            r.resource_names.len(),
            r.resource_names.iter().any(too_long),
        ),
    };
    let is_secret = ResourceType::from_type_url(request.type_url()) == Some(ResourceType::Secret);
    if names > NAMES_MAX || is_secret && names > SECRET_NAMES_MAX {
        return Err(exhausted("too many names in one request"));
    }
    if is_long || request.type_url().len() > NAME_BYTES_MAX {
        return Err(Effect::Close(
            Code::InvalidArgument,
            "a name is too long".to_owned(),
        ));
    }
    Ok(())
}

/// The beginning of a text that a client sent, cut between characters.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Why a client refuses something. Envoy begins with the whole message that it does not take and
/// says what is wrong with it last.
pub(crate) fn reason(text: &str) -> &str {
    if text.len() <= LAST_ERROR_BYTES_MAX || !text.starts_with("goo.gle/debug") {
        return bounded(text, LAST_ERROR_BYTES_MAX);
    }
    let mut start = text.len() - LAST_ERROR_BYTES_MAX;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod mesh_properties;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;
