//! As much HTTP/2 as one gRPC stream needs.
//!
//! Not the `h2` crate, for what clients cost is missing to the server that they measure. Between
//! them the two show why: of a response and its acknowledgement a client this way takes 12 µs,
//! most of it the kernel's, and the server, which uses it, 35 (`wds-churn` with 1,000 clients).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::link::Link;
use super::message::{Looks, Response, Scanner};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// What hyper's clients announce, ztunnel among them.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;
/// What every connection begins with.
const WINDOW: i64 = 65_535;
const FRAME_BYTES_MAX: usize = 16 << 10;
const STREAM: u32 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Bytes that wait for the windows; the second part is shared by many clients.
struct Outgoing {
    own: Vec<u8>,
    shared: Option<Arc<[u8]>>,
    sent: usize,
}

impl Outgoing {
    fn len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, |it| it.len()) - self.sent
    }

    /// Copies the next bytes, at most so many.
    fn take(&mut self, max: usize, out: &mut Vec<u8>) {
        let own = self.own.get(self.sent..).unwrap_or_default();
        let own = &own[..own.len().min(max)];
        out.extend_from_slice(own);
        let from = (self.sent + own.len()).saturating_sub(self.own.len());
        let shared = self.shared.as_deref().unwrap_or_default();
        let shared = shared.get(from..).unwrap_or_default();
        let shared = &shared[..shared.len().min(max - own.len())];
        out.extend_from_slice(shared);
        self.sent += own.len() + shared.len();
    }
}

enum At {
    /// In the header of a frame, of which so many bytes are there.
    Header,
    /// In a frame's body.
    Body { ty: u8, flags: u8, left: usize },
}

/// The one stream of a connection.
pub(super) struct Stream {
    at: At,
    header: [u8; 9],
    have: usize,
    control: Vec<u8>,
    scanner: Scanner,
    /// Frames that are ready to be written.
    out: Vec<u8>,
    outgoing: VecDeque<Outgoing>,
    own_window: i64,
    whole_window: i64,
    peer_initial: i64,
    /// Received and not yet granted anew, of the stream and of the connection.
    taken: (u32, u32),
}

fn frame(len: usize, ty: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    let len = u32::try_from(len).expect("a short frame").to_be_bytes();
    out.extend_from_slice(&len[1..]);
    out.extend_from_slice(&[ty, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn header(name: &str, value: &str, out: &mut Vec<u8>) {
    // Literal without indexing, new name; lengths above 126 go on in a second byte.
    out.push(0);
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(len) if len < 127 => out.push(len),
            _ => {
                out.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    out.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

impl Stream {
    /// With the preface, settings and headers ready to be sent.
    pub(super) fn open(authority: &str, token: Option<&str>) -> Self {
        let mut out = PREFACE.to_vec();
        frame(12, SETTINGS, 0, 0, &mut out);
        out.extend_from_slice(&[0, 2, 0, 0, 0, 0]);
        out.extend_from_slice(&[0, INITIAL_WINDOW_SIZE as u8]);
        out.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
        frame(4, WINDOW_UPDATE, 0, 0, &mut out);
        let more = CONNECTION_WINDOW - WINDOW as u32;
        out.extend_from_slice(&more.to_be_bytes());
        let mut headers = Vec::new();
        header(":method", "POST", &mut headers);
        header(":scheme", "https", &mut headers);
        header(":path", METHOD, &mut headers);
        header(":authority", authority, &mut headers);
        header("te", "trailers", &mut headers);
        header("content-type", "application/grpc", &mut headers);
        if let Some(token) = token {
            header("authorization", &format!("Bearer {token}"), &mut headers);
        }
        frame(headers.len(), HEADERS, END_HEADERS, STREAM, &mut out);
        out.extend_from_slice(&headers);
        Self {
            at: At::Header,
            header: [0; 9],
            have: 0,
            control: Vec::new(),
            scanner: Scanner::default(),
            out,
            outgoing: VecDeque::new(),
            own_window: WINDOW,
            whole_window: WINDOW,
            peer_initial: WINDOW,
            taken: (0, 0),
        }
    }

    /// Queues a message of two parts.
    pub(super) fn send(&mut self, own: &[u8], shared: Option<&Arc<[u8]>>) {
        let len = own.len() + shared.map_or(0, |it| it.len());
        let mut framed = Vec::with_capacity(5 + own.len());
        framed.push(0);
        framed.extend_from_slice(&u32::try_from(len).expect("a message").to_be_bytes());
        framed.extend_from_slice(own);
        self.outgoing.push_back(Outgoing {
            own: framed,
            shared: shared.cloned(),
            sent: 0,
        });
    }

    /// Sends what may be sent.
    pub(super) fn flush(&mut self, link: &mut Link) -> io::Result<()> {
        while link.flush()? {
            self.fill();
            if self.out.is_empty() {
                return Ok(());
            }
            link.write(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Frames one piece of what waits.
    fn fill(&mut self) {
        let room = self.own_window.min(self.whole_window).max(0);
        let Some(next) = self.outgoing.front_mut().filter(|_| room > 0) else {
            return;
        };
        let bytes = next
            .len()
            .min(FRAME_BYTES_MAX)
            .min(usize::try_from(room).unwrap_or(0));
        frame(bytes, DATA, 0, STREAM, &mut self.out);
        next.take(bytes, &mut self.out);
        if next.len() == 0 {
            self.outgoing.pop_front();
        }
        let sent = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.own_window -= sent;
        self.whole_window -= sent;
    }

    /// Takes what has come; acknowledges responses.
    pub(super) fn receive(
        &mut self,
        mut plain: &[u8],
        looks: Looks,
        on_response: &mut impl FnMut(Response<'_>),
    ) -> io::Result<()> {
        while !plain.is_empty() {
            match self.at {
                At::Header => {
                    let bytes = plain.len().min(9 - self.have);
                    self.header[self.have..self.have + bytes].copy_from_slice(&plain[..bytes]);
                    self.have += bytes;
                    plain = &plain[bytes..];
                    if self.have == 9 {
                        self.have = 0;
                        let [a, b, c, ty, flags, ..] = self.header;
                        let left = u32::from_be_bytes([0, a, b, c]) as usize;
                        self.at = At::Body { ty, flags, left };
                        if left == 0 {
                            self.end_frame(ty, flags)?;
                        }
                    }
                }
                At::Body { ty, flags, left } => {
                    let bytes = plain.len().min(left);
                    let (part, rest) = plain.split_at(bytes);
                    plain = rest;
                    if ty == DATA {
                        self.data(part, looks, on_response);
                    } else {
                        self.control.extend_from_slice(part);
                    }
                    let left = left - bytes;
                    self.at = At::Body { ty, flags, left };
                    if left == 0 {
                        self.end_frame(ty, flags)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, part: &[u8], looks: Looks, on_response: &mut impl FnMut(Response<'_>)) {
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.scan(part, looks, |response| {
            let mut ack = Vec::with_capacity(128);
            for (field, value) in [(2_u8, response.type_url), (6, response.nonce)] {
                ack.push(field << 3 | 2);
                prost::encoding::encode_varint(value.len() as u64, &mut ack);
                ack.extend_from_slice(value);
            }
            self.send(&ack, None);
            on_response(response);
        });
        self.scanner = scanner;
        let bytes = part.len() as u32;
        self.taken = (self.taken.0 + bytes, self.taken.1 + bytes);
        if self.taken.0 > STREAM_WINDOW / 2 {
            frame(4, WINDOW_UPDATE, 0, STREAM, &mut self.out);
            self.out.extend_from_slice(&self.taken.0.to_be_bytes());
            self.taken.0 = 0;
        }
        if self.taken.1 > CONNECTION_WINDOW / 2 {
            frame(4, WINDOW_UPDATE, 0, 0, &mut self.out);
            self.out.extend_from_slice(&self.taken.1.to_be_bytes());
            self.taken.1 = 0;
        }
    }

    fn end_frame(&mut self, ty: u8, flags: u8) -> io::Result<()> {
        self.at = At::Header;
        let control = std::mem::take(&mut self.control);
        let number = |at: usize| {
            let bytes = control.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        match ty {
            DATA if flags & PADDED != 0 => return Err(io::Error::other("a padded frame")),
            DATA | HEADERS if flags & END_STREAM != 0 => {
                let text = String::from_utf8_lossy(&control).into_owned();
                return Err(io::Error::other(format!("the stream has ended: {text:?}")));
            }
            RST_STREAM => return Err(io::Error::other("the stream was reset")),
            GOAWAY => return Err(io::Error::other("asked to go")),
            SETTINGS if flags & ACK == 0 => {
                for setting in control.chunks_exact(6) {
                    if setting[..2] == [0, INITIAL_WINDOW_SIZE as u8] {
                        let value = u32::from_be_bytes(setting[2..].try_into().expect("four"));
                        self.own_window += i64::from(value) - self.peer_initial;
                        self.peer_initial = i64::from(value);
                    }
                }
                frame(0, SETTINGS, ACK, 0, &mut self.out);
            }
            PING if flags & ACK == 0 => {
                frame(control.len(), PING, ACK, 0, &mut self.out);
                self.out.extend_from_slice(&control);
            }
            WINDOW_UPDATE => {
                let more = i64::from(number(0).unwrap_or_default());
                let [.., s1, s2, s3, s4] = self.header;
                match u32::from_be_bytes([s1, s2, s3, s4]) {
                    0 => self.whole_window += more,
                    _ => self.own_window += more,
                }
            }
            _ => {}
        }
        Ok(())
    }
}
