//! The gRPC codec: responses are copied from shared frames into the stream's
//! buffer, once; requests are decoded by prost.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::response::Response;

/// The largest request, bytes: about half a million names and versions.
/// Source: spec/control-plane.md §10 case 32.
pub const DECODE_BYTES_MAX: usize = 64 << 20;
/// The largest response, bytes: what ztunnel accepts.
pub const ENCODE_BYTES_MAX: usize = 200 << 20;

/// The codec of a discovery stream whose requests are `R`.
#[derive(Debug)]
pub struct AdsCodec<R>(PhantomData<fn() -> R>);

impl<R> Default for AdsCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for AdsCodec<R> {
    type Encode = Response;
    type Decode = R;
    type Encoder = AdsEncoder;
    type Decoder = AdsDecoder<R>;

    fn encoder(&mut self) -> AdsEncoder {
        AdsEncoder
    }

    fn decoder(&mut self) -> AdsDecoder<R> {
        AdsDecoder(PhantomData)
    }
}

/// Writes responses.
#[derive(Debug)]
pub struct AdsEncoder;

impl Encoder for AdsEncoder {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.encoded_bytes());
        item.encode(dst);
        Ok(())
    }
}

/// Reads requests.
#[derive(Debug)]
pub struct AdsDecoder<R>(PhantomData<fn() -> R>);

impl<R: Message + Default> Decoder for AdsDecoder<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        R::decode(src)
            .map(Some)
            .map_err(|_| Status::invalid_argument("the request is not a discovery request"))
    }
}
