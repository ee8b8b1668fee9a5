//! One fetch: resolve, judge, connect to what was judged, read a bounded answer.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::Str;
use model::jwks::{FETCH_TIMEOUT_MAX, Wanted};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::fetcher::{Fetch, Fetching};
use crate::{AddressRule, key_set};

/// Longest answer.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Redirects that are followed.
const REDIRECTS_COUNT_MAX: usize = 3;
/// Addresses of a name that are tried.
const ADDRESSES_COUNT_MAX: usize = 4;
/// Time for one of several addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a document when no rule states one.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Why a key set could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is one that must not be called; asking again will not help.
    #[error("{0}")]
    Blocked(String),
    /// Anything else, as a clause.
    #[error("{0}")]
    Failed(String),
}

impl FetchError {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }
}

/// What [`Resolve::resolve`] returns.
pub type Resolution<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Names to addresses.
pub trait Resolve: Send + Sync {
    /// The addresses of a host.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolution<'a>;
}

/// The resolver of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolution<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|addr| addr.ip()).collect())
        })
    }
}

/// Fetches key sets. Proxies of the environment are not used.
#[derive(Clone)]
pub struct Client {
    rule: Arc<AddressRule>,
    resolver: Arc<dyn Resolve>,
    tls: Arc<ClientConfig>,
}

impl Client {
    /// A client that trusts the roots of the system and those in `extra_roots` (PEM), if that
    /// file exists.
    ///
    /// # Errors
    /// When the cryptography of the process cannot make TLS connections.
    pub fn new(
        rule: AddressRule,
        resolver: Arc<dyn Resolve>,
        extra_roots: Option<&Path>,
    ) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::debug!(%error, "a root certificate of the system cannot be read");
        }
        let (added, _) = roots.add_parsable_certificates(system.certs);
        let extra = extra_roots.filter(|path| path.exists());
        if let Some(path) = extra {
            match CertificateDer::pem_file_iter(path) {
                Ok(certs) => {
                    let certs = certs.filter_map(Result::ok);
                    roots.add_parsable_certificates(certs);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "extra roots cannot be read");
                }
            }
        }
        if added == 0 && extra.is_none() {
            tracing::warn!("the system has no root certificates: key sets over https fail");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            rule: Arc::new(rule),
            resolver,
            tls: Arc::new(tls),
        })
    }

    /// The key set, by discovery when no address is known.
    async fn key_set(&self, wanted: &Wanted) -> Result<Str, FetchError> {
        let timeout = wanted
            .timeout
            .unwrap_or(TIMEOUT_DEFAULT)
            .min(FETCH_TIMEOUT_MAX);
        let get = |uri: String| async move {
            let in_time = tokio::time::timeout(timeout, self.get(&uri)).await;
            in_time.unwrap_or_else(|_| {
                let ms = timeout.as_millis();
                Err(FetchError::Failed(format!(
                    "no complete answer within {ms} ms"
                )))
            })
        };
        let uri = if let Some(uri) = &wanted.uri {
            uri.to_string()
        } else {
            let issuer = wanted.issuer.trim_end_matches('/');
            let document = get(format!("{issuer}/.well-known/openid-configuration")).await?;
            discovered(issuer, &document).map_err(FetchError::failed)?
        };
        let body = get(uri).await?;
        key_set::canonical(&body).map_err(FetchError::failed)
    }

    /// The body behind an address, redirects followed.
    async fn get(&self, uri: &str) -> Result<Bytes, FetchError> {
        let mut url = Url::parse(uri)
            .map_err(|error| FetchError::Failed(format!("the address cannot be read: {error}")))?;
        for _ in 0..=REDIRECTS_COUNT_MAX {
            match self.get_once(&url).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Redirect(location) => {
                    let next = url
                        .join(&location)
                        .map_err(|_| FetchError::failed("it redirects to no address"))?;
                    if url.scheme() == "https" && next.scheme() != "https" {
                        return Err(FetchError::failed("it redirects from https to plain text"));
                    }
                    url = next;
                }
            }
        }
        Err(FetchError::Failed(format!(
            "more than {REDIRECTS_COUNT_MAX} redirects"
        )))
    }

    async fn get_once(&self, url: &Url) -> Result<Answer, FetchError> {
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(FetchError::failed("neither http nor https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::failed("the address holds credentials"));
        }
        let host = url
            .host()
            .ok_or_else(|| FetchError::failed("the address has no host"))?;
        let port = url.port_or_known_default().unwrap_or_default();
        let stream = connect(&self.judged(&host).await?, port).await?;
        if !is_tls {
            return exchange(stream, url).await;
        }
        let name = match &host {
            Host::Domain(name) => ServerName::try_from((*name).to_owned())
                .map_err(|_| FetchError::failed("the host is no name for TLS"))?,
            Host::Ipv4(ip) => ServerName::from(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => ServerName::from(IpAddr::V6(*ip)),
        };
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(|error| FetchError::Failed(format!("no TLS connection: {error}")))?;
        exchange(stream, url).await
    }

    /// Addresses of a host, each of which may be called. One that may not spoils them all: who
    /// answers with it among others means it to be called some time.
    async fn judged(&self, host: &Host<&str>) -> Result<Vec<IpAddr>, FetchError> {
        let ips =
            match host {
                Host::Ipv4(ip) => vec![IpAddr::V4(*ip)],
                Host::Ipv6(ip) => vec![IpAddr::V6(*ip)],
                Host::Domain(name) => self.resolver.resolve(name).await.map_err(|error| {
                    FetchError::Failed(format!("{name} does not resolve: {error}"))
                })?,
            };
        for ip in &ips {
            self.rule.judge(*ip).map_err(|reason| {
                FetchError::Blocked(format!("{host} is at {ip}, which is not called: {reason}"))
            })?;
        }
        if ips.is_empty() {
            return Err(FetchError::Failed(format!("{host} has no address")));
        }
        Ok(ips)
    }
}

impl Fetch for Client {
    fn fetch<'a>(&'a self, wanted: &'a Wanted) -> Fetching<'a> {
        Box::pin(self.key_set(wanted))
    }
}

enum Answer {
    Body(Bytes),
    Redirect(String),
}

/// Connects to the first address that answers.
async fn connect(ips: &[IpAddr], port: u16) -> Result<TcpStream, FetchError> {
    let mut last = String::from("no address");
    for ip in ips.iter().take(ADDRESSES_COUNT_MAX) {
        let addr = SocketAddr::new(*ip, port);
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{addr}: {error}"),
            Err(_) => last = format!("{addr}: no answer"),
        }
    }
    Err(FetchError::Failed(format!("no connection to {last}")))
}

/// One request on a connection of its own.
async fn exchange<S>(stream: S, url: &Url) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| FetchError::Failed(format!("no answer over HTTP: {error}"));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let authority = url.authority();
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("ambientd/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::failed("the address makes no request"))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            return location
                .map(|location| Answer::Redirect(location.to_owned()))
                .ok_or_else(|| FetchError::failed("it redirects to nowhere"));
        }
        status => {
            return Err(FetchError::Failed(format!(
                "it answers with status {status}"
            )));
        }
    }
    let mut body = response.into_body();
    let mut out = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(failed)?.into_data() else {
            continue;
        };
        if out.len() + data.remaining() > BODY_BYTES_MAX {
            return Err(FetchError::Failed(format!(
                "the answer is longer than {BODY_BYTES_MAX} bytes"
            )));
        }
        out.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok(Answer::Body(out.into()))
}

/// Where an issuer says that its keys are. What was asked over TLS must not lead to plain text.
fn discovered(issuer: &str, document: &[u8]) -> Result<String, &'static str> {
    let uri = key_set::jwks_uri(document)?;
    if is_https(issuer) && !is_https(&uri) {
        return Err("the discovery document leads from https to plain text");
    }
    Ok(uri)
}

fn is_https(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| url.scheme() == "https")
}

#[cfg(test)]
mod tests;
