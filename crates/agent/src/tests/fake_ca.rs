//! A certificate authority that signs for everybody and notes who asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use proto::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};
use x509_parser::time::ASN1Time;

/// A root and its key.
#[derive(Clone)]
pub(super) struct Root {
    pub(super) pem: String,
    params: CertificateParams,
    key_pem: String,
}

impl Root {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            key_pem: key.serialize_pem(),
            params,
        }
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        Issuer::new(
            self.params.clone(),
            KeyPair::from_pem(&self.key_pem).unwrap(),
        )
    }

    /// Signs a request as it is, except for what `change` does.
    pub(super) fn sign(
        &self,
        csr_pem: &str,
        ttl: Duration,
        change: impl FnOnce(&mut CertificateParams),
    ) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let now = SystemTime::now();
        set_validity(&mut csr.params, now - Duration::from_secs(60), now + ttl);
        csr.params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut csr.params);
        csr.signed_by(&self.issuer()).unwrap().pem()
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["istiod.istio-system.svc".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(crate::issuer::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

fn set_validity(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    let at = |time: SystemTime| {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let time = ASN1Time::from_timestamp(i64::try_from(seconds).unwrap()).unwrap();
        time.to_datetime()
    };
    params.not_before = at(from);
    params.not_after = at(to);
}

struct Inner {
    signer: Root,
    /// All roots, as in the last element of answers.
    roots_pem: String,
    tls: Arc<ServerConfig>,
    tokens: Vec<String>,
}

/// The running authority; ends when dropped.
pub(super) struct FakeCa {
    pub(super) addr: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: JoinHandle<()>,
}

impl FakeCa {
    pub(super) async fn start(root: Root, ttl: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let inner = Arc::new(Mutex::new(Inner {
            roots_pem: root.pem.clone(),
            tls: root.server_config(),
            signer: root,
            tokens: Vec::new(),
        }));
        let shared = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let tls = TlsAcceptor::from(Arc::clone(&shared.lock().unwrap().tls));
                let inner = Arc::clone(&shared);
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else {
                        return;
                    };
                    let service = IstioCertificateServiceServer::new(Signer { inner, ttl });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                        .await;
                });
            }
        });
        Self { addr, inner, task }
    }

    pub(super) fn root(&self) -> Root {
        self.inner.lock().unwrap().signer.clone()
    }

    /// The metadata `authorization` of all requests.
    pub(super) fn tokens(&self) -> Vec<String> {
        self.inner.lock().unwrap().tokens.clone()
    }

    /// Signs with another root from now on, and names both.
    pub(super) fn switch(&self, to: Root, old: &Root) {
        let mut inner = self.inner.lock().unwrap();
        inner.roots_pem = format!("{}{}", to.pem, old.pem);
        inner.tls = to.server_config();
        inner.signer = to;
    }
}

impl Drop for FakeCa {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Signer {
    inner: Arc<Mutex<Inner>>,
    ttl: Duration,
}

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let mut inner = self.inner.lock().unwrap();
        let token = request.metadata().get("authorization").unwrap();
        inner.tokens.push(token.to_str().unwrap().to_owned());
        assert_eq!(request.metadata().get("clusterid").unwrap(), "Kubernetes");
        let asked = u64::try_from(request.get_ref().validity_duration);
        assert_eq!(asked.unwrap(), self.ttl.as_secs());
        let leaf = inner.signer.sign(&request.get_ref().csr, self.ttl, |_| {});
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: vec![leaf, inner.roots_pem.clone()],
        }))
    }
}
