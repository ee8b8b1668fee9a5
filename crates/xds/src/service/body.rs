//! The body of a stream of responses: gRPC messages in pieces, as the connection takes them.
//!
//! A first answer of 20 MB for each of a thousand clients is never in memory but once: the
//! pieces of a shared difference are slices of one buffer, and those of other responses are
//! made when there is room for them in the stream's window.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::response::Response;

/// With the nine bytes that HTTP/2 puts before it a piece fills a TLS record of 16 KiB: a
/// longer one would go on in a record of its own, of nine bytes.
const PIECE_BYTES: usize = (16 << 10) - 9;
/// The head of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Responses from a channel, which ends with a status or for good.
pub(super) struct ResponseBody {
    responses: mpsc::Receiver<Result<Response, Status>>,
    pieces: Pieces,
    is_ended: bool,
}

impl ResponseBody {
    pub(super) fn new(responses: mpsc::Receiver<Result<Response, Status>>) -> Self {
        Self {
            responses,
            pieces: Pieces::default(),
            is_ended: false,
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.is_ended {
                return Poll::Ready(None);
            }
            let status = match ready!(self.responses.poll_recv(cx)) {
                Some(Ok(response)) => {
                    self.pieces = Pieces::of(&response);
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::new(Code::Ok, ""),
            };
            self.is_ended = true;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match status.add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(status) => Err(status),
            }));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}

/// What is left of a message.
#[derive(Default)]
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    fn of(response: &Response) -> Self {
        let bytes = response.encoded_bytes();
        let mut head = BytesMut::with_capacity(PREFIX_BYTES + response.header_bytes());
        head.put_u8(0);
        // The sender has seen to it that it is far below.
        head.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
        response.encode_header(&mut head);
        let mut parts = VecDeque::from([head.freeze()]);
        parts.extend(response.body());
        Self(parts)
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut first = self.0.pop_front()?;
        if first.len() >= PIECE_BYTES {
            let piece = first.split_to(PIECE_BYTES);
            if !first.is_empty() {
                self.0.push_front(first);
            }
            return Some(piece);
        }
        if self.0.is_empty() {
            return Some(first);
        }
        let all = self.0.iter().try_fold(first.len(), |sum, part| {
            let sum = sum + part.len();
            (sum < PIECE_BYTES).then_some(sum)
        });
        let mut piece = BytesMut::with_capacity(all.unwrap_or(PIECE_BYTES));
        piece.extend_from_slice(&first);
        while let Some(part) = self.0.front_mut()
            && piece.len() < PIECE_BYTES
        {
            let taken = part.split_to(part.len().min(PIECE_BYTES - piece.len()));
            piece.extend_from_slice(&taken);
            if part.is_empty() {
                self.0.pop_front();
            }
        }
        Some(piece.freeze())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pieces_are_all_bytes_in_order_and_large_ones_are_not_copied() {
        let large = Bytes::from((0..PIECE_BYTES * 3).map(|n| n as u8).collect::<Vec<_>>());
        let small = |n: u8| Bytes::from(vec![n; 700]);
        let cases: [Vec<Bytes>; 5] = [
            vec![small(1)],
            vec![small(1), large.clone()],
            vec![small(1), large.clone(), small(2)],
            (0..100).map(small).collect(),
            vec![large.slice(..PIECE_BYTES), small(3)],
        ];
        for parts in cases {
            let expected = parts.concat();
            let count = expected.len().div_ceil(PIECE_BYTES);
            let pieces: Vec<Bytes> = Pieces(parts.into()).collect();
            assert_eq!(pieces.concat(), expected);
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
            assert!(pieces.len() <= count + 1, "{} of {count}", pieces.len());
        }
        let range = large.as_ptr_range();
        let parts = VecDeque::from([small(1), large.clone()]);
        let shared = Pieces(parts).filter(|piece| range.contains(&piece.as_ptr()));
        assert_eq!(shared.count(), 3);
    }
}
