//! The Gateway `shop/door`: a real Envoy beside its agent, and the certificates of those in front
//! of it and behind.

#![allow(dead_code, reason = "every test uses its part")]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use http::Method;
use rcgen::CertifiedKey;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::daemon::Daemon;
use testkit::envoy::{AgentRequest, Envoy};
use testkit::http_client::{self, HttpResponse, send_http1};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::common::SOON;

/// First byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// The gateway and its control plane.
pub(crate) struct Door {
    pub(crate) daemon: Daemon,
    pub(crate) envoy: Envoy,
    ip: IpAddr,
    config: PathBuf,
    _dir: TempDir,
}

impl Door {
    /// Starts it at an address, in a world of these files, and waits until it is ready.
    pub(crate) async fn start(ip: &str, files: &[(&str, String)]) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("ambientd-door-")?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        for (name, text) in files {
            std::fs::write(config.join(name), text)?;
        }
        let daemon = Daemon::start(&config, &dir.path().join("state")).await?;
        let request = AgentRequest {
            ns: "shop".into(),
            name: "door".into(),
            service_account: "door-istio".into(),
            ip: ip.into(),
            sotw: false,
            ttl_seconds: 3600,
        };
        let mut envoy = Box::pin(Envoy::start_gateway(&daemon, &request)).await?;
        envoy.wait_ready(SOON).await?;
        Ok(Self {
            daemon,
            envoy,
            ip: ip.parse()?,
            config,
            _dir: dir,
        })
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    pub(crate) async fn connect(&self, port: u16) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(self.at(port)).await?)
    }

    pub(crate) async fn get(
        &self,
        port: u16,
        host: &str,
        path: &str,
    ) -> anyhow::Result<HttpResponse> {
        let request = http_client::request(Method::GET, host, path)?;
        send_http1(self.connect(port).await?, request).await
    }

    /// Replaces a file at once, as who mounts directories does.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.config.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, self.config.join(name)).with_context(|| format!("replacing {name}"))
    }

    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.config.join(name))?)
    }

    /// Panics with the logs unless all went well and Envoy refused nothing.
    pub(crate) async fn conclude(&self, outcome: anyhow::Result<()>) {
        let outcome = match outcome {
            Ok(()) => self.envoy.assert_no_nacks().await,
            failed => failed,
        };
        outcome.unwrap_or_else(|error| {
            let logs = format!("{}\n{}", self.envoy.log_tail(), self.daemon.log_tail());
            panic!("{error:#}\n{logs}");
        });
    }
}

/// A certificate for one name, its own authority.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: PrivateKeyDer<'static>,
}

impl Certificate {
    pub(crate) fn of(host: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        Self {
            pem: cert.pem(),
            key: signing_key.serialize_pem(),
            der: cert.der().clone(),
            key_der: PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        }
    }

    /// The Secret `shop/NAME` with it.
    pub(crate) fn secret(&self, name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "shop", "name": name},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self.pem, "tls.key": self.key},
        })
    }

    /// For who accepts it alone.
    pub(crate) fn roots(&self) -> anyhow::Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        Ok(Arc::new(roots))
    }

    /// What a server shows, and its key.
    pub(crate) fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.der.clone()], self.key_der.clone_key())
    }
}

/// A server that ends TLS and hands what is inside to another one.
#[derive(Default)]
pub(crate) struct TlsServer {
    /// Connections that began with anything but TLS.
    plain: AtomicUsize,
    hang_up: Notify,
}

impl TlsServer {
    pub(crate) async fn start(
        at: (&str, u16),
        config: ServerConfig,
        to: SocketAddr,
    ) -> anyhow::Result<Arc<Self>> {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(at).await?;
        let server = Arc::new(Self::default());
        let served = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move { served.serve(tcp, acceptor, to).await });
            }
        });
        Ok(server)
    }

    async fn serve(
        &self,
        tcp: TcpStream,
        acceptor: TlsAcceptor,
        to: SocketAddr,
    ) -> std::io::Result<()> {
        let mut first = [0];
        if tcp.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            self.plain.fetch_add(1, Ordering::Relaxed);
        }
        let mut outer = acceptor.accept(tcp).await?;
        let mut inner = TcpStream::connect(to).await?;
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut outer, &mut inner) => {}
            () = self.hang_up.notified() => {}
        }
        Ok(())
    }

    /// How many connections began with anything but TLS.
    pub(crate) fn plain_count(&self) -> usize {
        self.plain.load(Ordering::Relaxed)
    }

    /// Ends every connection: those that are open are not verified again.
    pub(crate) fn hang_up(&self) {
        self.hang_up.notify_waiters();
    }
}
