//! The task of one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authn::{Caller, Peer};
use model::rejection::Rejection;
use model::{ProxyClass, SpiffeId};
use parking_lot::Mutex;
use prometheus::IntGauge;
use snapshot::{SecretAccess, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::{AdsRequest, FIRST_REQUEST_TIMEOUT, FIRST_REQUEST_TIMEOUT_UNKNOWN, Shared};
use crate::client::Client;
use crate::rarely::Rarely;
use crate::response::Response;
use crate::session::{Effect, Effects, Flavour, Observation, Request, Session, bounded};
use crate::wire::ENCODE_BYTES_MAX;

/// Length of a node id, bytes.
const NODE_ID_BYTES_MAX: usize = 1024;
/// Length of a proxy version that becomes a label, bytes.
const VERSION_BYTES_MAX: usize = 64;

type Responses = mpsc::Sender<Result<Response, Status>>;

/// At the other end of a stream.
pub(super) struct Who {
    pub(super) peer: Peer,
    pub(super) caller: Option<Caller>,
    /// Cancelled when the connection is asked to go.
    pub(super) going: CancellationToken,
}

/// Ends when all streams must end, or those of this connection.
type Ending = Rarely<()>;

fn ending(shared: &Shared, going: CancellationToken) -> Ending {
    let all = shared.deps.shutdown.clone();
    Rarely::new(async move {
        tokio::select! {
            () = all.cancelled() => {}
            () = going.cancelled() => {}
        }
    })
}

/// Why a stream ends.
enum End {
    /// The client left, or cannot be reached any more.
    Gone,
    /// The client gets this status.
    Status(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Serves a stream until either side ends it.
pub(super) async fn run<R: AdsRequest>(
    shared: Arc<Shared>,
    who: Who,
    mut requests: Streaming<R>,
    responses: Responses,
) {
    let patience = match &who.caller {
        Some(_) => FIRST_REQUEST_TIMEOUT,
        None => FIRST_REQUEST_TIMEOUT_UNKNOWN,
    };
    let mut ending = ending(&shared, who.going.clone());
    let first = Box::pin(first_request(&shared, &mut ending, &mut requests, patience)).await;
    let end = match first {
        Ok(first) => match identify(&shared, &who, &first) {
            Ok(client) => {
                let stream = (client, first, requests, responses.clone());
                start(&shared, who, ending, stream).ended(&shared).await
            }
            Err(status) => End::Status(status),
        },
        Err(end) => end,
    };
    if let End::Status(status) = end {
        debug!(code = ?status.code(), message = status.message(), "stream refused or closed");
        shared.deps.metrics.count_refused(&status);
        let _ = responses.send(Err(status)).await;
    }
}

/// The first request that is not a health report.
async fn first_request<R: AdsRequest>(
    shared: &Shared,
    ending: &mut Ending,
    requests: &mut Streaming<R>,
    patience: Duration,
) -> Result<Request, End> {
    let deadline = tokio::time::sleep(patience);
    tokio::pin!(deadline);
    loop {
        let request = tokio::select! {
            biased;
            () = &mut *ending => return Err(shutting_down().into()),
            request = receive(shared, requests) => request?,
            () = &mut deadline => {
                // Not DEADLINE_EXCEEDED: ztunnel would come back in ten milliseconds.
                return Err(Status::unavailable("no request on this stream").into());
            }
        };
        if request.is_health() {
            warn!("health report before the first request");
        } else {
            return Ok(request);
        }
    }
}

async fn receive<R: AdsRequest>(
    shared: &Shared,
    requests: &mut Streaming<R>,
) -> Result<Request, End> {
    match requests.message().await {
        Ok(Some(request)) => {
            let bytes = i64::try_from(request.encoded_len()).unwrap_or(i64::MAX);
            let recv_max = &shared.deps.metrics.recv_max;
            if bytes > recv_max.get() {
                recv_max.set(bytes);
            }
            Ok(request.into())
        }
        Ok(None) => Err(End::Gone),
        Err(status) => match status.code() {
            Code::Cancelled | Code::Unknown | Code::Unavailable => Err(End::Gone),
            _ => {
                shared.deps.metrics.internal_errors.inc();
                Err(End::Status(status))
            }
        },
    }
}

/// Who the client is, if it may be that.
fn identify(
    shared: &Shared,
    Who { peer, caller, .. }: &Who,
    first: &Request,
) -> Result<Client, Status> {
    let node = first
        .node()
        .filter(|node| !node.id.is_empty())
        .ok_or_else(|| Status::invalid_argument("missing node information"))?;
    if node.id.len() > NODE_ID_BYTES_MAX {
        return Err(Status::invalid_argument("the node id is too long"));
    }
    let mut client = shared
        .deps
        .node_reader
        .read(node)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let Some(caller) = caller else {
        // Plaintext, and so on this host.
        return Ok(client);
    };
    let snapshot = shared.deps.snapshots.borrow().clone();
    let pods = snapshot.as_ref().map(|snapshot| &snapshot.pods);
    let own = snapshot
        .as_ref()
        .map(|snapshot| &snapshot.mesh.trust_domain);
    let checked = shared.deps.identity.check(caller, &client, pods, own);
    checked.map_err(|error| {
        let reason = error.reason();
        let refused = &shared.deps.metrics.identity_refused;
        refused.with_label_values(&[reason]).inc();
        warn!(
            peer = %peer.addr, identity = %caller.identity, ns = %client.ns, reason, %error,
            "refused"
        );
        Status::permission_denied("the node does not match its identity")
    })?;
    client.identity = Some(caller.identity.clone());
    Ok(client)
}

/// A stream that is served, and what is counted of it until it ends.
struct Served {
    task: JoinHandle<End>,
    number: u64,
    class: Option<ProxyClass>,
    connected: IntGauge,
}

/// Starts the task of a client. Not async: what only the start needs is not kept.
fn start<R: AdsRequest>(
    shared: &Arc<Shared>,
    Who { peer, caller, .. }: Who,
    ending: Ending,
    (client, first, requests, responses): (Client, Request, Streaming<R>, Responses),
) -> Served {
    let deps = &shared.deps;
    let flavour = match first {
        Request::Delta(_) => Flavour::Delta,
        Request::Sotw(_) => Flavour::Sotw,
    };
    let version = match bounded(&client.version, VERSION_BYTES_MAX) {
        "" => "unknown",
        version => version,
    };
    let connected = deps.metrics.connected(version);
    let number = deps.connections.next_number();
    let span = info_span!(
        "stream", conn = number, peer = %peer.addr, node = %client.pod, role = client.kind.as_str()
    );
    connected.inc();
    let class = client.class.clone();
    let nonce_prefix = format!("{}-{number:x}-", shared.nonce_salt);
    let mut session = Session::new(client, flavour, Arc::clone(&deps.cache), nonce_prefix);
    let reviewed = Arc::new(Reviewed::default());
    if deps.secrets.is_some() {
        session = session.with_secret_access(Arc::clone(&reviewed) as _);
    }
    let session = Arc::new(Mutex::new(session));
    deps.connections
        .open(number, peer, caller, Arc::clone(&session));
    let task = Task {
        shared: Arc::clone(shared),
        ending,
        number,
        class: class.clone(),
        session,
        reviewed,
        responses,
        snapshots: deps.snapshots.clone(),
        rejections: Vec::new(),
    };
    Served {
        // A task of its own, so that the bookkeeping is done however it ends.
        task: tokio::spawn(task.serve(first, requests).instrument(span)),
        number,
        class,
        connected,
    }
}

impl Served {
    /// Waits for its end and counts it no longer.
    async fn ended(self, shared: &Shared) -> End {
        let deps = &shared.deps;
        let ended = self.task.await;
        if let Some(class) = self.class {
            let interests = &shared.interests;
            interests.reject(&class, self.number, Vec::new()).await;
            interests.lower(class).await;
        }
        deps.connections.close(self.number);
        self.connected.dec();
        ended.unwrap_or_else(|error| {
            error!(%error, "the task of a stream failed");
            deps.metrics.internal_errors.inc();
            End::Status(Status::internal("internal error"))
        })
    }
}

/// What the last review said of the client's account: whether it may read private keys.
#[derive(Debug, Default)]
struct Reviewed(AtomicBool);

impl SecretAccess for Reviewed {
    fn may_list_secrets(&self, _: &SpiffeId) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Task {
    shared: Arc<Shared>,
    ending: Ending,
    number: u64,
    class: Option<ProxyClass>,
    /// Debug pages look at it too; nobody holds it while waiting.
    session: Arc<Mutex<Session>>,
    reviewed: Arc<Reviewed>,
    responses: Responses,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What was last told of what the client refuses.
    rejections: Vec<Rejection>,
}

impl Task {
    async fn serve<R: AdsRequest>(mut self, first: Request, mut requests: Streaming<R>) -> End {
        info!("connected");
        let mut request = Some(first);
        loop {
            let result = match request.take() {
                Some(request) => self.on_request(request).await,
                None => self.next(&mut requests, &mut request).await,
            };
            if let Err(end) = result {
                info!("disconnected");
                return end;
            }
        }
    }

    /// Waits for a request or a snapshot. Requests come first; they are answered
    /// from the newest snapshot, so that neither starves the other.
    async fn next<R: AdsRequest>(
        &mut self,
        requests: &mut Streaming<R>,
        request: &mut Option<Request>,
    ) -> Result<(), End> {
        let deadline = self.session.lock().deadline();
        let tick = async {
            match deadline {
                Some(ms) => {
                    let at = self.shared.started + Duration::from_millis(ms);
                    tokio::time::sleep_until(at.into()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut self.ending => Err(shutting_down().into()),
            received = receive(&self.shared, requests) => {
                *request = Some(received?);
                Ok(())
            }
            changed = self.snapshots.changed() => match changed {
                Ok(()) => self.on_snapshot().await,
                Err(_) => Err(shutting_down().into()),
            },
            () = tick => self.on_tick().await,
        }
    }

    /// Has it reviewed whether the client may read private keys, if it asks for any. A session
    /// does no I/O, so this comes before each of its turns; the answer is mostly remembered.
    async fn review(&mut self, request: Option<&Request>) -> Result<(), End> {
        let Some(reviewer) = &self.shared.deps.secrets else {
            return Ok(());
        };
        let account = {
            let session = self.session.lock();
            if !request.is_some_and(Request::asks_for_keys) && !session.asks_for_keys() {
                return Ok(());
            }
            session.client().identity.clone()
        };
        let Some(account) = account else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = &mut self.ending => Err(shutting_down().into()),
            may = reviewer.may_list(&account) => {
                self.reviewed.0.store(may, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    async fn on_tick(&mut self) -> Result<(), End> {
        self.review(None).await?;
        let started = Instant::now();
        let snapshot = self.snapshots.borrow().clone();
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        let effects = self.session.lock().on_tick(self.now_ms(), &snapshot);
        self.perform(effects, started).await
    }

    async fn on_request(&mut self, request: Request) -> Result<(), End> {
        self.review(Some(&request)).await?;
        let started = Instant::now();
        let snapshot = self.snapshots.borrow().clone();
        let Some(snapshot) = snapshot else {
            return Err(shutting_down().into());
        };
        let now_ms = self.now_ms();
        let effects = self.session.lock().on_request(now_ms, request, &snapshot);
        self.perform(effects, started).await
    }

    async fn on_snapshot(&mut self) -> Result<(), End> {
        self.review(None).await?;
        let started = Instant::now();
        let snapshot = self.snapshots.borrow_and_update().clone();
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        let effects = self.session.lock().on_snapshot(self.now_ms(), &snapshot);
        self.perform(effects, started).await
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn perform(&mut self, effects: Effects, started: Instant) -> Result<(), End> {
        let verdict = |effect: &Effect| {
            matches!(
                effect,
                Effect::Observe(Observation::Acked { .. } | Observation::Nacked { .. })
            )
        };
        if effects.iter().any(verdict) {
            self.tell_rejections().await;
        }
        for effect in effects {
            match effect {
                Effect::Send(response) => self.send(response, started).await?,
                Effect::Close(code, message) => return Err(Status::new(code, message).into()),
                Effect::Observe(observation) => self.observe(&observation),
                Effect::Interest(class) => {
                    if !self.shared.interests.raise(class).await {
                        let status = Status::resource_exhausted("too many classes of proxies");
                        return Err(status.into());
                    }
                }
            }
        }
        Ok(())
    }

    async fn tell_rejections(&mut self) {
        let list = self.session.lock().rejections();
        if list == self.rejections {
            return;
        }
        self.rejections.clone_from(&list);
        if let Some(class) = &self.class {
            let interests = &self.shared.interests;
            interests.reject(class, self.number, list).await;
        }
    }

    async fn send(&mut self, response: Response, started: Instant) -> Result<(), End> {
        let metrics = &self.shared.deps.metrics;
        let short = response.ty.map_or("unknown", |ty| ty.short());
        let bytes = response.encoded_bytes();
        if bytes > ENCODE_BYTES_MAX {
            error!(type_url = %response.type_url, bytes, "a response is too large to send");
            metrics.internal_errors.inc();
            metrics
                .pushes
                .with_label_values(&[&format!("{short}_senderr")])
                .inc();
            return Err(Status::resource_exhausted("the response is too large").into());
        }
        log_push(&response, bytes);
        let trigger = if response.requested {
            "proxyrequest"
        } else {
            "config"
        };
        let behind = (!response.requested || response.behind_ms > 0)
            .then(|| Duration::from_millis(response.behind_ms));
        let sizes = response.ty.map(|ty| ty.type_url());
        let resources_count = response.resources_count() as u64;
        let handing_over = Instant::now();
        tokio::select! {
            biased;
            sent = self.responses.send(Ok(response)) => if sent.is_err() {
                metrics.pushes.with_label_values(&[&format!("{short}_senderr")]).inc();
                return Err(End::Gone);
            },
            () = &mut self.ending => return Err(shutting_down().into()),
        }
        metrics
            .send_time
            .observe(handing_over.elapsed().as_secs_f64());
        metrics
            .push_time
            .with_label_values(&[short])
            .observe(started.elapsed().as_secs_f64());
        metrics.pushes.with_label_values(&[short]).inc();
        metrics
            .resources_sent
            .with_label_values(&[short])
            .inc_by(resources_count);
        metrics.push_triggers.with_label_values(&[trigger]).inc();
        if let Some(type_url) = sizes {
            #[allow(clippy::cast_precision_loss, reason = "a histogram of sizes")]
            metrics
                .config_size_bytes
                .with_label_values(&[type_url])
                .observe(bytes as f64);
        }
        if let Some(behind) = behind {
            metrics
                .convergence_time
                .observe((behind + started.elapsed()).as_secs_f64());
        }
        Ok(())
    }

    fn observe(&self, observation: &Observation) {
        let metrics = &self.shared.deps.metrics;
        match observation {
            Observation::Acked { ty, elapsed_ms } => {
                debug!(type_url = ty.type_url(), elapsed_ms, "accepted");
            }
            Observation::Nacked { ty, message } => {
                warn!(type_url = ty.type_url(), message, "rejected by the client");
                metrics.rejects.with_label_values(&[ty.short()]).inc();
            }
            Observation::StaleNonce { ty } => {
                debug!(type_url = ty.type_url(), "stale nonce");
                metrics.expired_nonce.with_label_values(&[ty.short()]).inc();
            }
        }
    }
}

/// What clients ask for at the usual level. What changes is said once for everybody, where it is
/// published: a line for each client was a tenth of what a push cost.
fn log_push(response: &Response, bytes: usize) {
    macro_rules! log {
        ($level:ident) => {
            $level!(
                type_url = %response.type_url,
                nonce = response.nonce,
                resources = response.resources_count(),
                removed = response.removed_count(),
                bytes,
                "push"
            )
        };
    }
    if response.requested {
        log!(info);
    } else {
        log!(debug);
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}
