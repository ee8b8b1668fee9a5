//! What a client wants of one type, and what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Str;
use proto::discovery::DeltaDiscoveryRequest;
use snapshot::{EncodedResource, ResourceMap, ResourceType};

use super::on_demand::OnDemand;
use super::verdict::Verdicts;
use super::{NAMES_MAX, reason};

/// The state of one type on one stream, for debug pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// Type URL.
    pub type_url: &'static str,
    /// Short name.
    pub short: &'static str,
    /// Nonce of the last response, empty when none was sent.
    pub nonce_sent: String,
    /// Nonce of the last accepted response.
    pub nonce_acked: String,
    /// Why the last response was rejected.
    pub last_error: Option<String>,
    /// Whether a response waits for its acknowledgement.
    pub in_flight: bool,
    /// Whether the client wants everything.
    pub wildcard: bool,
    /// Names that it asked for.
    pub names_count: usize,
    /// Resources that it holds.
    pub resources_count: usize,
    /// Responses sent.
    pub responses_count: u64,
}

/// One type on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// The client wants every resource.
    pub(super) wildcard: bool,
    /// Names the client asked for, beside the wildcard if there is one.
    names: BTreeSet<Str>,
    /// What the client holds as far as we know, be it accepted or rejected.
    pub(super) sent: ResourceMap,
    /// `sent` is a clone of a snapshot's map, so that a delta can be shared.
    pub(super) shared: bool,
    /// Names whose next mention must not be left out: those that do not exist are
    /// reported as removed.
    pub(super) asked: BTreeSet<Str>,
    /// A response is owed even if it says nothing.
    pub(super) reply: bool,
    /// What a reconnecting client says it holds, until the first response.
    pub(super) initial: Option<BTreeMap<String, String>>,
    /// The map that was last compared with a named subscription in full.
    pub(super) settled: Option<ResourceMap>,
    /// How many names the client held when it connected.
    initial_count: usize,
    /// The last response had only what was urgent.
    pub(super) is_turn_of_rest: bool,
    /// For clients that ask for addresses by name.
    pub(super) on_demand: OnDemand,
    /// What the response in flight changes.
    pub(super) in_flight_changed: Arc<[Arc<EncodedResource>]>,
    /// What the client is known to have accepted.
    accepted: ResourceMap,
    /// What was rejected, and what is left of it to try alone.
    pub(super) verdicts: Verdicts,
    /// When the response was sent that is not yet acknowledged.
    pub(super) in_flight_since_ms: Option<u64>,
    /// Since when something is ready to be sent but has to wait.
    pub(super) behind_since_ms: Option<u64>,
    nonce_sent: String,
    nonce_acked: String,
    last_error: Option<String>,
    responses_count: u64,
}

// === impl Subscription ===

impl Subscription {
    /// From the first delta request of a type. Whatever nonce it carries is from
    /// another stream and means nothing.
    ///
    /// Asking for nothing is asking for everything, except for kinds that are only
    /// ever named. Subscribing to `*` and unsubscribing from it at once is asking
    /// for nothing yet.
    pub(super) fn first_delta(ty: ResourceType, request: DeltaDiscoveryRequest) -> Self {
        let gone: BTreeSet<&str> = request
            .resource_names_unsubscribe
            .iter()
            .map(String::as_str)
            .collect();
        let subscribe = &request.resource_names_subscribe;
        let star = subscribe.iter().any(|name| name == "*") && !gone.contains("*");
        let wildcard = star || (subscribe.is_empty() && ty.is_wildcard_class());
        let kept = |name: &&str| *name != "*" && !name.is_empty() && !gone.contains(name);
        let asked: BTreeSet<Str> = subscribe
            .iter()
            .map(String::as_str)
            .filter(kept)
            .map(Str::from)
            .collect();
        let mut names = asked.clone();
        let initial = &request.initial_resource_versions;
        if !wildcard {
            names.extend(
                initial
                    .keys()
                    .map(String::as_str)
                    .filter(kept)
                    .map(Str::from),
            );
        }
        let is_held = |name: &str| !name.is_empty() && (wildcard || names.contains(name));
        let initial_count = request.initial_resource_versions.len();
        let mut initial = request.initial_resource_versions;
        initial.retain(|name, _| is_held(name));
        Self {
            wildcard,
            names,
            asked,
            reply: true,
            shared: true,
            initial_count,
            initial: Some(initial),
            ..Self::default()
        }
    }

    /// From the first SotW request of a type.
    pub(super) fn first_sotw(ty: ResourceType, names: Vec<String>) -> Self {
        let mut sub = Self {
            shared: true,
            initial: Some(BTreeMap::new()),
            ..Self::default()
        };
        sub.restart_sotw(ty, names);
        sub
    }

    /// A SotW request without a nonce: everything again, once the response in
    /// flight is acknowledged. Wildcard kinds ignore names.
    pub(super) fn restart_sotw(&mut self, ty: ResourceType, names: Vec<String>) {
        self.wildcard = ty.is_wildcard_class();
        self.names = if self.wildcard {
            BTreeSet::new()
        } else {
            to_names(names)
        };
        self.sent = ResourceMap::default();
        self.shared = true;
        self.settled = None;
        self.reply = true;
    }

    /// The names of a SotW acknowledgement replace those before. Added names are
    /// answered, lost ones are not.
    pub(super) fn change_sotw(&mut self, names: Vec<String>) {
        let names = to_names(names);
        for name in self.names.difference(&names) {
            self.sent.remove(name);
            self.asked.remove(name);
        }
        self.asked.extend(names.difference(&self.names).cloned());
        self.names = names;
    }

    /// The names of a later delta request. Unsubscribing wins over subscribing.
    pub(super) fn change_delta(&mut self, ty: ResourceType, request: &DeltaDiscoveryRequest) {
        let is_spontaneous = request.response_nonce.is_empty();
        let resends_all = matches!(ty, ResourceType::Address | ResourceType::Workload);
        let unsubscribe: BTreeSet<&str> = request
            .resource_names_unsubscribe
            .iter()
            .map(String::as_str)
            .collect();
        for name in &unsubscribe {
            if *name == "*" {
                // The mode is fixed by the first request; spec §10 case 28.
                if self.wildcard && resends_all && is_spontaneous {
                    self.resend_all();
                }
            } else {
                self.unsubscribe(name);
            }
        }
        for name in request.resource_names_subscribe.iter().map(String::as_str) {
            if name.is_empty() || unsubscribe.contains(name) {
                continue;
            }
            if name == "*" {
                if !self.wildcard {
                    self.wildcard = true;
                    self.reply = true;
                    self.shared = false;
                } else if resends_all && is_spontaneous {
                    self.resend_all();
                }
            } else {
                self.subscribe(name, is_spontaneous);
            }
        }
    }

    fn subscribe(&mut self, name: &str, is_spontaneous: bool) {
        // An acknowledgement that repeats its names must stay unanswered, or the
        // two sides would answer each other for ever.
        if self.names.insert(Str::from(name)) || is_spontaneous {
            self.resend(name);
            self.asked.insert(Str::from(name));
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        let was_named = self.names.remove(name);
        if !self.wildcard {
            self.forget(name);
            self.asked.remove(name);
            self.on_demand.due.remove(name);
            self.on_demand.waiting.remove(name);
        } else if was_named {
            // The wildcard still covers it, while the client may have dropped it.
            self.resend(name);
            self.asked.insert(Str::from(name));
        }
    }

    /// Forgets that the client holds a resource, so that it is sent again.
    pub(super) fn resend(&mut self, name: &str) -> bool {
        let held = self.forget(name);
        if held {
            self.shared = false;
            self.settled = None;
        }
        held
    }

    fn forget(&mut self, name: &str) -> bool {
        let said = self
            .initial
            .as_mut()
            .is_some_and(|initial| initial.remove(name).is_some());
        self.sent.remove(name) || said
    }

    fn resend_all(&mut self) {
        let held = self
            .sent
            .iter()
            .map(|r| (r.name().to_string(), String::new()))
            .collect();
        self.initial.get_or_insert(held);
        self.reply = true;
    }

    /// Whether the client wants a resource of this name.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Adds a name that another one stands for.
    pub(super) fn add_name(&mut self, name: Str) {
        self.names.insert(name);
    }

    /// Names asked for, sorted.
    pub(super) fn names(&self) -> &BTreeSet<Str> {
        &self.names
    }

    pub(super) fn names_count(&self) -> usize {
        self.names.len()
    }

    /// How many names it may hold. A client that reconnects states what it was sent.
    pub(super) fn names_max(&self) -> usize {
        NAMES_MAX + self.initial_count
    }

    pub(super) fn nonce_sent(&self) -> &str {
        &self.nonce_sent
    }

    /// Notes an acceptance; the time since the response, if one was awaited.
    pub(super) fn ack(&mut self, nonce: &str, now_ms: u64) -> Option<u64> {
        if nonce.is_empty() {
            return None;
        }
        self.last_error = None;
        nonce.clone_into(&mut self.nonce_acked);
        let changed = std::mem::take(&mut self.in_flight_changed);
        self.verdicts.accept(&changed);
        self.settle_accepted();
        self.in_flight_since_ms
            .take()
            .map(|since| now_ms.saturating_sub(since))
    }

    /// Notes a rejection. What was rejected counts as sent: the same bytes would be
    /// rejected again. Where the response had several resources and it is not clear which of them
    /// is meant, they are sent again in halves, so that only the bad one is left out.
    pub(super) fn nack(&mut self, ty: ResourceType, nonce: &str, text: &str, can_split: bool) {
        let kept = reason(text);
        self.last_error = Some(kept.to_owned());
        if nonce.is_empty() {
            return;
        }
        self.in_flight_since_ms = None;
        let changed = std::mem::take(&mut self.in_flight_changed);
        let again = self.verdicts.reject(ty, &changed, text, kept, can_split);
        if again.is_empty() {
            self.settle_accepted();
        }
        for name in again {
            // It may hold an older version, so that a removal must still be told.
            let outdated = self.sent.get(&name).map(|one| Arc::new(one.to_outdated()));
            if let Some(outdated) = outdated {
                self.sent.insert(outdated);
                self.shared = false;
                self.settled = None;
            }
        }
    }

    /// What the client has now: what it was sent, but the older version of what it refused.
    fn settle_accepted(&mut self) {
        if self.verdicts.is_clean() {
            self.accepted = self.sent.clone();
            return;
        }
        let mut accepted = self.sent.clone();
        for resource in self.sent.iter().filter(|one| self.verdicts.is_refused(one)) {
            match self.accepted.get(resource.name()) {
                Some(older) => accepted.insert(Arc::clone(older)),
                None => accepted.remove(resource.name()),
            };
        }
        self.accepted = accepted;
    }

    /// The state of the world without what was refused: its older version stands there instead.
    pub(super) fn acceptable<'a>(
        &'a self,
        world: &'a ResourceMap,
    ) -> impl Iterator<Item = &'a Arc<EncodedResource>> {
        world.iter().filter_map(|resource| {
            if self.verdicts.is_refused(resource) {
                self.accepted.get(resource.name())
            } else {
                Some(resource)
            }
        })
    }

    /// Notes a response.
    pub(super) fn note_sent(&mut self, nonce: &str, now_ms: u64) {
        nonce.clone_into(&mut self.nonce_sent);
        self.in_flight_since_ms = Some(now_ms);
        self.behind_since_ms = None;
        self.responses_count += 1;
        self.reply = false;
        self.initial = None;
        self.asked.clear();
    }

    pub(super) fn status(&self, ty: ResourceType) -> TypeStatus {
        TypeStatus {
            type_url: ty.type_url(),
            short: ty.short(),
            nonce_sent: self.nonce_sent.clone(),
            nonce_acked: self.nonce_acked.clone(),
            last_error: self.last_error.clone(),
            in_flight: self.in_flight_since_ms.is_some(),
            wildcard: self.wildcard,
            names_count: self.names.len(),
            resources_count: self.sent.len(),
            responses_count: self.responses_count,
        }
    }
}

fn to_names(names: Vec<String>) -> BTreeSet<Str> {
    names
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(Str::from)
        .collect()
}
