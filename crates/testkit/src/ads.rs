//! A plain ADS client for tests, delta and state-of-the-world: says what it is told to
//! say and hands out what it receives. Nothing is acknowledged by itself.

mod channel;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use proto::core::Node;
use proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Status,
};
use proto::{Struct, Value, value};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

pub use channel::{XdsTarget, tls_without_certificate};

/// As ztunnel: responses up to 200 MiB. Source: spec/workload-discovery.md §1.1.
const MESSAGE_BYTES_MAX: usize = 200 * 1024 * 1024;
/// Requests that may wait to be sent.
const REQUESTS_MAX: usize = 64;
/// gRPC code of a NACK: INVALID_ARGUMENT.
const NACK_CODE: i32 = 3;

/// A node with string metadata.
pub fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
    let fields = metadata
        .iter()
        .map(|(key, text)| {
            let kind = Some(value::Kind::StringValue((*text).to_owned()));
            ((*key).to_owned(), Value { kind })
        })
        .collect();
    Node {
        id: id.to_owned(),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}

/// The node of a ztunnel. Source: spec/workload-discovery.md §1.1.
pub fn ztunnel_node(node_name: &str) -> Node {
    let pod = format!("ztunnel-{node_name}");
    node(
        &format!("ztunnel~127.0.0.1~{pod}.istio-system~istio-system.svc.cluster.local"),
        &[
            ("NAME", &pod),
            ("NAMESPACE", "istio-system"),
            ("SERVICE_ACCOUNT", "ztunnel"),
            ("INSTANCE_IPS", "127.0.0.1"),
            ("NODE_NAME", node_name),
        ],
    )
}

/// The node of a waypoint. Source: spec/envoy-config.md §8.2.
pub fn waypoint_node(ns: &str, name: &str, ip: &str) -> Node {
    let mut made = node(
        &format!("waypoint~{ip}~{name}.{ns}~{ns}.svc.cluster.local"),
        &[
            ("NAMESPACE", ns),
            ("SERVICE_ACCOUNT", name),
            ("INSTANCE_IPS", ip),
            ("CLUSTER_ID", "Kubernetes"),
        ],
    );
    let label = Value {
        kind: Some(value::Kind::StringValue(name.to_owned())),
    };
    let labels = Struct {
        fields: [("gateway.networking.k8s.io/gateway-name".to_owned(), label)].into(),
    };
    if let Some(metadata) = &mut made.metadata {
        let labels = Value {
            kind: Some(value::Kind::StructValue(labels)),
        };
        metadata.fields.insert("LABELS".to_owned(), labels);
    }
    made.cluster = format!("{name}.{ns}");
    made
}

/// A delta ADS stream.
pub struct DeltaClient {
    node: Option<Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    /// Opens a stream; the node goes with the first request.
    pub async fn connect(target: &XdsTarget, node: Node) -> anyhow::Result<Self> {
        let (requests, outbound) = mpsc::channel(REQUESTS_MAX);
        let mut client = AggregatedDiscoveryServiceClient::new(target.channel().await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let responses = client
            .delta_aggregated_resources(target.request(ReceiverStream::new(outbound))?)
            .await
            .context("opening the delta stream")?
            .into_inner();
        Ok(Self {
            node: Some(node),
            requests,
            responses,
        })
    }

    /// Sends a request as it is, with the node if it is the first.
    pub async fn send(&mut self, mut request: DeltaDiscoveryRequest) -> anyhow::Result<()> {
        if request.node.is_none() {
            request.node = self.node.take();
        }
        self.requests
            .send(request)
            .await
            .ok()
            .context("the delta stream has ended")
    }

    /// Subscribes to names; to everything when there are none and it is the first
    /// request of the type.
    pub async fn subscribe(&mut self, type_url: &str, names: &[&str]) -> anyhow::Result<()> {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await
    }

    /// The first request of a type after a reconnect: to everything, with the versions
    /// already held.
    pub async fn resume(
        &mut self,
        type_url: &str,
        held: BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            initial_resource_versions: held,
            ..DeltaDiscoveryRequest::default()
        })
        .await
    }

    /// Drops names from a subscription.
    pub async fn unsubscribe(&mut self, type_url: &str, names: &[&str]) -> anyhow::Result<()> {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_unsubscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await
    }

    /// Accepts a response.
    pub async fn ack(&mut self, response: &DeltaDiscoveryResponse) -> anyhow::Result<()> {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await
    }

    /// Refuses a response.
    pub async fn nack(
        &mut self,
        response: &DeltaDiscoveryResponse,
        reason: &str,
    ) -> anyhow::Result<()> {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: Some(refusal(reason)),
            ..DeltaDiscoveryRequest::default()
        })
        .await
    }

    /// The next response.
    ///
    /// # Errors
    /// When none comes in time, or the stream ends.
    pub async fn next_response(
        &mut self,
        limit: Duration,
    ) -> anyhow::Result<DeltaDiscoveryResponse> {
        tokio::time::timeout(limit, self.next())
            .await
            .with_context(|| format!("no response within {limit:?}"))?
    }

    /// The next response, however long it takes.
    pub async fn next(&mut self) -> anyhow::Result<DeltaDiscoveryResponse> {
        self.responses
            .message()
            .await?
            .context("the server closed the delta stream")
    }

    /// That nothing comes for a while.
    ///
    /// # Errors
    /// When something comes: says what.
    pub async fn expect_silence(&mut self, quiet: Duration) -> anyhow::Result<()> {
        match tokio::time::timeout(quiet, self.next()).await {
            Err(_) => Ok(()),
            Ok(Ok(r)) => anyhow::bail!(
                "an unexpected response of {}: {:?}, removed {:?}",
                r.type_url,
                r.resources.iter().map(|r| &r.name).collect::<Vec<_>>(),
                r.removed_resources
            ),
            Ok(Err(error)) => Err(error),
        }
    }
}

/// A state-of-the-world ADS stream.
pub struct SotwClient {
    node: Option<Node>,
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    names: BTreeMap<String, Vec<String>>,
    versions: BTreeMap<String, String>,
}

impl SotwClient {
    /// Opens a stream; the node goes with the first request.
    pub async fn connect(target: &XdsTarget, node: Node) -> anyhow::Result<Self> {
        let (requests, outbound) = mpsc::channel(REQUESTS_MAX);
        let mut client = AggregatedDiscoveryServiceClient::new(target.channel().await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let responses = client
            .stream_aggregated_resources(target.request(ReceiverStream::new(outbound))?)
            .await
            .context("opening the stream")?
            .into_inner();
        let (names, versions) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            node: Some(node),
            requests,
            responses,
            names,
            versions,
        })
    }

    /// Sends a request as it is, with the node if it is the first.
    pub async fn send(&mut self, mut request: DiscoveryRequest) -> anyhow::Result<()> {
        if request.node.is_none() {
            request.node = self.node.take();
        }
        self.requests
            .send(request)
            .await
            .ok()
            .context("the stream has ended")
    }

    /// Subscribes to exactly these names; to everything when there are none.
    pub async fn subscribe(&mut self, type_url: &str, names: &[&str]) -> anyhow::Result<()> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        self.names.insert(type_url.to_owned(), names.clone());
        self.send(DiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names: names,
            version_info: self.versions.get(type_url).cloned().unwrap_or_default(),
            ..DiscoveryRequest::default()
        })
        .await
    }

    /// Accepts a response.
    pub async fn ack(&mut self, response: &DiscoveryResponse) -> anyhow::Result<()> {
        self.versions
            .insert(response.type_url.clone(), response.version_info.clone());
        self.answer(response, None).await
    }

    /// Refuses a response: the version stays the one accepted last.
    pub async fn nack(&mut self, response: &DiscoveryResponse, reason: &str) -> anyhow::Result<()> {
        self.answer(response, Some(refusal(reason))).await
    }

    async fn answer(
        &mut self,
        response: &DiscoveryResponse,
        error_detail: Option<Status>,
    ) -> anyhow::Result<()> {
        let type_url = &response.type_url;
        self.send(DiscoveryRequest {
            type_url: type_url.clone(),
            resource_names: self.names.get(type_url).cloned().unwrap_or_default(),
            version_info: self.versions.get(type_url).cloned().unwrap_or_default(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        })
        .await
    }

    /// The next response.
    ///
    /// # Errors
    /// When none comes in time, or the stream ends.
    pub async fn next_response(&mut self, limit: Duration) -> anyhow::Result<DiscoveryResponse> {
        tokio::time::timeout(limit, self.responses.message())
            .await
            .with_context(|| format!("no response within {limit:?}"))??
            .context("the server closed the stream")
    }
}

fn refusal(reason: &str) -> Status {
    Status {
        code: NACK_CODE,
        message: reason.to_owned(),
        ..Status::default()
    }
}
