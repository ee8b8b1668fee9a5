//! `istio.v1.auth.IstioCertificateService`: who may have which certificate.
//!
//! Source: spec/control-plane.md §4.2, §4.3.

use std::sync::Arc;
use std::time::SystemTime;

use authn::{Authenticator, Caller, Peer};
use http::HeaderMap;
use model::SpiffeId;
use proto::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use proto::value::Kind;
use tonic::{Code, Request, Response, Status};
use tracing::{debug, error, info};

use crate::{Authority, Csr, SignError};

mod limits;
mod metrics;
mod node;

pub use limits::Limits;
pub use metrics::{CaMetrics, ExpiryMetrics};
pub use node::{NodeAuthorizer, NodeDenied, PodFacts, TrustedAccounts};

use limits::{Admission, Busy};

/// The largest request message, bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Source: spec/control-plane.md §4.2. The client learns no more.
const UNAUTHENTICATED: &str = "request authenticate failure";
const NOT_IMPERSONATED: &str = "request impersonation authentication failure";
/// Milliseconds until a client that was shed may try again (gRPC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// What the service is made of.
pub struct ServiceConfig {
    /// What signs.
    pub authority: Arc<Authority>,
    /// Who calls.
    pub authenticator: Arc<Authenticator>,
    /// Which accounts may ask for the identities of their nodes
    /// (`CA_TRUSTED_NODE_ACCOUNTS`).
    pub trusted: TrustedAccounts,
    /// Which pods there are.
    pub nodes: Arc<dyn NodeAuthorizer>,
    /// How much at once.
    pub limits: Limits,
    /// Counters.
    pub metrics: CaMetrics,
    /// The time.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

/// Hands out certificates. Cheap to clone.
#[derive(Clone)]
pub struct CertificateService {
    inner: Arc<Inner>,
}

struct Inner {
    config: ServiceConfig,
    admission: Admission,
}

// === impl CertificateService ===

impl CertificateService {
    /// A service.
    pub fn new(config: ServiceConfig) -> Self {
        let admission = Admission::new(&config.limits);
        Self {
            inner: Arc::new(Inner { config, admission }),
        }
    }

    /// The tonic service, with its message limits.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Answers one request.
    ///
    /// # Errors
    /// The status for the client. Whatever concerns authentication is opaque to it.
    pub async fn create(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        request: IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let config = &self.inner.config;
        config.metrics.csr_count.inc();
        // No secrets over plaintext, whoever asks.
        if !peer.secure {
            config.metrics.authentication_failure_count.inc();
            debug!(peer = %peer.addr, "a certificate was asked for over plaintext");
            return Err(Status::unauthenticated(UNAUTHENTICATED));
        }
        let caller = config
            .authenticator
            .authenticate(peer, headers)
            .await
            .map_err(|error| {
                config.metrics.authentication_failure_count.inc();
                config.metrics.refuse(error.reason());
                debug!(peer = %peer.addr, %error, "not authenticated");
                Status::unauthenticated(UNAUTHENTICATED)
            })?;
        let identity = self.identity_for(peer, &caller, &request)?;
        let permit = self
            .inner
            .admission
            .admit(peer, &caller)
            .await
            .map_err(|busy| self.shed(&caller, busy))?;
        let authority = Arc::clone(&config.authority);
        let now = (config.clock)();
        let is_quick = authority.signer().is_ok_and(|signer| signer.is_quick());
        let sign = move || {
            let _permit = permit;
            let csr = Csr::from_pem(&request.csr)?;
            authority.sign(&csr, &identity, request.validity_duration, now)
        };
        // RSA takes milliseconds: never on the threads that drive connections. For P-256 the way
        // to another thread and back cost a tenth of the whole request.
        let signed = if is_quick {
            sign()
        } else {
            tokio::task::spawn_blocking(sign)
                .await
                .unwrap_or_else(|error| {
                    tracing::error!(%error, "the task that signs failed");
                    Err(SignError::Certificate("internal error".to_owned()))
                })
        };
        match signed {
            Ok(cert_chain) => {
                config.metrics.success_cert_issuance_count.inc();
                Ok(IstioCertificateResponse { cert_chain })
            }
            Err(error) => Err(self.refuse(&caller, &error)),
        }
    }

    /// The identity to certify: the caller's, or one that it may ask for.
    fn identity_for(
        &self,
        peer: &Peer,
        caller: &Caller,
        request: &IstioCertificateRequest,
    ) -> Result<SpiffeId, Status> {
        let config = &self.inner.config;
        let trust_domain = config.authority.trust_domain();
        let Some(wanted) = impersonated(request) else {
            if caller.identity.trust_domain != trust_domain {
                return Err(self.refuse_alias(peer, caller));
            }
            return Ok(caller.identity.clone());
        };
        node::authorize(
            caller,
            wanted,
            &trust_domain,
            &config.trusted,
            &*config.nodes,
        )
        .map_err(|denied| {
            config.metrics.authentication_failure_count.inc();
            config.metrics.refuse(denied.reason());
            info!(
                peer = %peer.addr, caller = %caller.identity, error = %denied,
                "impersonation denied"
            );
            Status::unauthenticated(NOT_IMPERSONATED)
        })
    }

    /// A certificate of an alias lets its bearer in, but an alias is never certified again.
    fn refuse_alias(&self, peer: &Peer, caller: &Caller) -> Status {
        let metrics = &self.inner.config.metrics;
        metrics.authentication_failure_count.inc();
        metrics.refuse("trust_domain");
        info!(
            peer = %peer.addr, caller = %caller.identity,
            "no certificate for an alias of the trust domain"
        );
        Status::unauthenticated(UNAUTHENTICATED)
    }

    fn refuse(&self, caller: &Caller, error: &SignError) -> Status {
        let metrics = &self.inner.config.metrics;
        let code = match error {
            SignError::Csr(_) => {
                metrics.csr_parsing_err_count.inc();
                Code::InvalidArgument
            }
            SignError::Ttl { .. } => Code::InvalidArgument,
            SignError::NotReady | SignError::Certificate(_) => {
                error!(caller = %caller.identity, %error, "no certificate was signed");
                Code::Internal
            }
        };
        metrics.count_sign_error(error.label());
        debug!(caller = %caller.identity, %error, "request refused");
        Status::new(code, format!("CSR signing error ({error})"))
    }

    fn shed(&self, caller: &Caller, busy: Busy) -> Status {
        self.inner.config.metrics.refuse(busy.reason);
        debug!(caller = %caller.identity, reason = busy.reason, "request shed");
        let mut status = Status::unavailable("too many certificate requests, try again later");
        status
            .metadata_mut()
            .insert(PUSHBACK, busy.retry_after_ms.into());
        status
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        // Every listener of ours says who is at the other end.
        let Some(peer) = extensions.get::<Peer>() else {
            self.inner.config.metrics.csr_count.inc();
            error!("a request came without its peer");
            return Err(Status::unauthenticated(UNAUTHENTICATED));
        };
        self.create(peer, &metadata.into_headers(), message)
            .await
            .map(Response::new)
    }
}

/// The identity asked for in place of the caller's own, if it is a non-empty string.
fn impersonated(request: &IstioCertificateRequest) -> Option<&str> {
    let value = request
        .metadata
        .as_ref()?
        .fields
        .get(IMPERSONATED_IDENTITY)?;
    match &value.kind {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}
