//! What stands around a mesh: an external authorizer, a token issuer, servers with TLS.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Ends its task when dropped.
pub(crate) struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers from the head of a request: status and body.
type Answer = Arc<dyn Fn(&str) -> (&'static str, String) + Send + Sync>;

async fn one(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
        // No method begins like this; a client that begins TLS does.
        if !head[0].is_ascii_alphabetic() {
            let _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
                .await;
            let _ = stream.shutdown().await;
            return;
        }
    }
    let (status, body) = answer(&String::from_utf8_lossy(&head));
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\nx-from-app: yes\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("listening on {addr}"))
}

async fn plain(addr: SocketAddr, answer: Answer) -> anyhow::Result<(Server, SocketAddr)> {
    let listener = listen(addr).await?;
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(one(stream, Arc::clone(&answer)));
        }
    });
    Ok((Server(task), addr))
}

/// Allows what says `x-ext-authz: allow`.
pub(crate) async fn authorizer(
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
) -> anyhow::Result<Server> {
    let answer: Answer = Arc::new(move |head| {
        asked.fetch_add(1, Ordering::Relaxed);
        let allowed = head
            .to_ascii_lowercase()
            .contains("\r\nx-ext-authz: allow\r\n");
        (
            if allowed { "200 OK" } else { "403 Forbidden" },
            String::new(),
        )
    });
    Ok(plain(addr, answer).await?.0)
}

/// Publishes a key set; where.
pub(crate) async fn issuer(keys: String) -> anyhow::Result<(Server, SocketAddr)> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    plain(any, Arc::new(move |_| ("200 OK", keys.clone()))).await
}

/// One certificate for all servers outside of the mesh's own TLS.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Certificate {
    pub(crate) fn new(names: &[String]) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(names)?;
        let der = made.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let key = key.map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)?;
        let mut roots = RootCertStore::empty();
        roots.add(der)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            pem: made.cert.pem(),
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// TLS of somebody who trusts this certificate alone.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Serves TLS and says who it is; notes by which names it is called.
    pub(crate) async fn serve(
        &self,
        addr: SocketAddr,
        who: &str,
        called: Arc<Mutex<Vec<String>>>,
    ) -> anyhow::Result<Server> {
        let listener = listen(addr).await?;
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let body = serde_json::json!({ "version": who }).to_string();
        let answer: Answer = Arc::new(move |_| ("200 OK", body.clone()));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                let called = Arc::clone(&called);
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let name = tls.get_ref().1.server_name().unwrap_or_default().to_owned();
                    called.lock().unwrap().push(name);
                    one(tls, answer).await;
                });
            }
        });
        Ok(Server(task))
    }
}
