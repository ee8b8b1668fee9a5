//! The bytes of a connection, watched for floods of frames that cost us answers.
//!
//! HTTP/2 answers every PING and SETTINGS frame. Clients ping every half minute, and
//! measure the line with pings while they receive data; whoever pings without end
//! while it receives nothing is sent away. Source: spec/control-plane.md §10 row 49.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Frames that demand an answer and may come at once.
const BURST: u32 = 100;
/// Time in which one more is granted.
const REFILL: Duration = Duration::from_secs(5);
/// A write longer than answers to pings: data, after which the client may ping again.
const DATA_BYTES_MIN: usize = 256;
/// `PRI * HTTP/2.0 …`.
const PREFACE_BYTES: usize = 24;
const FRAME_PRIORITY: u8 = 2;
const FRAME_SETTINGS: u8 = 4;
const FRAME_PING: u8 = 6;

/// Finds the types of frames in what is read, in whatever pieces it comes.
struct Frames {
    skip: usize,
    header: [u8; 9],
    have: usize,
}

impl Frames {
    const fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; 9],
            have: 0,
        }
    }

    /// Number of costly frames that begin in these bytes.
    fn costly(&mut self, mut bytes: &[u8]) -> u32 {
        let mut found = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            bytes = rest;
            if self.have == self.header.len() {
                let [a, b, c, ty, ..] = self.header;
                self.have = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                if matches!(ty, FRAME_PRIORITY | FRAME_SETTINGS | FRAME_PING) {
                    found += 1;
                }
            }
        }
        found
    }
}

/// A connection whose floods are noticed.
pub(super) struct Guarded<S> {
    io: S,
    frames: Frames,
    left: u32,
    since: Instant,
    flooded: CancellationToken,
}

impl<S> Guarded<S> {
    /// Cancels `flooded` when there are too many costly frames.
    pub(super) fn new(io: S, flooded: CancellationToken) -> Self {
        Self {
            io,
            frames: Frames::new(),
            left: BURST,
            since: Instant::now(),
            flooded,
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        let found = self.frames.costly(bytes);
        if found == 0 {
            return;
        }
        let granted = self.since.elapsed().as_secs() / REFILL.as_secs();
        if granted > 0 {
            let granted = u32::try_from(granted).unwrap_or(BURST);
            self.left = self.left.saturating_add(granted).min(BURST);
            self.since = Instant::now();
        }
        if found > self.left {
            self.flooded.cancel();
        }
        self.left = self.left.saturating_sub(found);
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(bytes)) if *bytes >= DATA_BYTES_MIN) {
            self.left = BURST;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let read = buf.filled().get(before..).unwrap_or_default();
            self.count(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costly_frames_are_found_in_whatever_pieces_they_come() {
        let frame = |ty: u8, bytes: usize| {
            let mut frame = vec![0, 0, bytes as u8, ty, 0, 0, 0, 0, 0];
            // Bodies that look like headers of PING frames.
            frame.extend(std::iter::repeat_n(6_u8, bytes));
            frame
        };
        let mut all = vec![6_u8; PREFACE_BYTES];
        for (ty, bytes) in [(4, 12), (0, 100), (6, 8), (8, 4), (1, 0), (2, 5), (6, 8)] {
            all.extend(frame(ty, bytes));
        }
        for piece in [1, 2, 7, 9, 1000] {
            let mut frames = Frames::new();
            let found: u32 = all.chunks(piece).map(|bytes| frames.costly(bytes)).sum();
            assert_eq!(found, 4, "in pieces of {piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_without_end_are_a_flood_and_slow_ones_are_not() {
        let ping = {
            let mut bytes = vec![0, 0, 8, FRAME_PING, 0, 0, 0, 0, 0];
            bytes.extend([0; 8]);
            bytes
        };
        let flooded = CancellationToken::new();
        let mut io = Guarded::new(tokio::io::empty(), flooded.clone());
        io.count(&[0; PREFACE_BYTES]);
        for _ in 0..1000 {
            io.count(&ping);
            tokio::time::advance(REFILL).await;
        }
        for _ in 0..100 {
            io.count(&ping);
            io.count(&ping);
            io.wrote(&Poll::Ready(Ok(DATA_BYTES_MIN)));
        }
        for _ in 0..BURST {
            assert!(!flooded.is_cancelled());
            io.count(&ping);
        }
        io.count(&ping);
        assert!(flooded.is_cancelled());
    }
}
