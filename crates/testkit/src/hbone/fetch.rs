//! Certificates as workloads get them: a request signed by the control plane.

use anyhow::{Context as _, ensure};
use model::SpiffeId;
use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use super::Identity;
use crate::ads::XdsTarget;

/// Who asks for a certificate, and for whom.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// Bearer token.
    pub token: String,
    /// For whom a node's proxy asks; nobody but itself when `None`.
    pub on_behalf_of: Option<SpiffeId>,
    /// Life asked for, seconds.
    pub ttl_seconds: u32,
}

impl Identity {
    /// Has a certificate signed over a connection of its own. The roots are those of the
    /// answer.
    ///
    /// # Errors
    /// A [`tonic::Status`] when the control plane refuses; else what failed.
    pub async fn fetch(target: &XdsTarget, request: &CertificateRequest) -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        let metadata = request.on_behalf_of.as_ref().map(|id| proto::Struct {
            fields: [(
                "ImpersonatedIdentity".to_owned(),
                proto::Value {
                    kind: Some(proto::value::Kind::StringValue(id.to_string())),
                },
            )]
            .into(),
        });
        let mut message = tonic::Request::new(IstioCertificateRequest {
            csr: csr.pem()?,
            validity_duration: i64::from(request.ttl_seconds),
            metadata,
        });
        let bearer = format!("Bearer {}", request.token).parse()?;
        message.metadata_mut().insert("authorization", bearer);
        let mut client = IstioCertificateServiceClient::new(target.channel().await?);
        let answer = client.create_certificate(message).await?.into_inner();
        let (roots, chain) = answer.cert_chain.split_last().context("an empty answer")?;
        ensure!(!chain.is_empty(), "an answer without roots");
        Self::from_pem(&chain.concat(), &key.serialize_pem(), roots)
    }
}
