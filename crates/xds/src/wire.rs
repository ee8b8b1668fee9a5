//! Bounds of gRPC messages, and the decoder of requests. How responses are written is
//! `service/body.rs`.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};

/// The largest request, bytes: about half a million names and versions.
/// Source: spec/control-plane.md §10 case 32.
pub const DECODE_BYTES_MAX: usize = 64 << 20;
/// The largest response, bytes: what ztunnel accepts.
pub const ENCODE_BYTES_MAX: usize = 200 << 20;

/// What is reserved at once for a request, bytes.
const BUFFER_BYTES: usize = 1 << 10;

/// Reads requests.
#[derive(Debug)]
pub struct AdsDecoder<R>(PhantomData<fn() -> R>);

impl<R> Default for AdsDecoder<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default> Decoder for AdsDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(src)
            .map(Some)
            .map_err(|_| Status::invalid_argument("the request is not a discovery request"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        // An acknowledgement has a hundred bytes or two, and the buffer stays for the stream's life.
        BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES)
    }
}
