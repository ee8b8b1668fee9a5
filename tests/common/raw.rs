//! Clients that do not keep to the rules.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use testkit::ads::XdsTarget;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const LIMIT: Duration = Duration::from_secs(5);

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Sends one message on a new delta stream; returns the status that ends the stream.
pub(crate) async fn send(target: &XdsTarget, message: &[u8]) -> anyhow::Result<Code> {
    let mut grpc = tonic::client::Grpc::new(target.channel().await?);
    grpc.ready().await?;
    let message = Bytes::copy_from_slice(message);
    // The request side stays open, as it does with real clients.
    let (requests, outbound) = tokio::sync::mpsc::channel(1);
    requests.send(message).await?;
    let request = tonic::Request::new(Outbound(outbound));
    let exchange = async {
        let path = http::uri::PathAndQuery::from_static(PATH);
        let mut responses = grpc.streaming(request, path, Raw).await?.into_inner();
        responses.message().await
    };
    match tokio::time::timeout(LIMIT, exchange).await? {
        Err(status) => Ok(status.code()),
        Ok(answer) => anyhow::bail!("no status but {answer:?}"),
    }
}

struct Outbound(tokio::sync::mpsc::Receiver<Bytes>);

impl tonic::codegen::tokio_stream::Stream for Outbound {
    type Item = Bytes;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Bytes>> {
        self.0.poll_recv(context)
    }
}

/// Sends bytes and returns everything that comes back until the server closes.
///
/// # Errors
/// When the server does not close, or breaks the connection.
pub(crate) fn converse(addr: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(addr)?;
    tcp.set_read_timeout(Some(LIMIT))?;
    tcp.write_all(bytes)?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer)?;
    Ok(answer)
}
