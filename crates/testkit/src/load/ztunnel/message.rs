//! The outermost fields of gRPC messages that are discovery responses, as their bytes go by.

use prost::encoding::decode_varint;

// Fields of a DeltaDiscoveryResponse, and of its resources.
const RESOURCES: u64 = 2;
const TYPE_URL: u64 = 4;
const NONCE: u64 = 5;
const REMOVED: u64 = 6;
const RESOURCE_VERSION: u64 = 1;
const RESOURCE_NAME: u64 = 3;
/// Longest head of a field: its tag and its length.
const HEAD_BYTES_MAX: usize = 12;

/// How much of resources is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Nothing: they are counted.
    Away,
    /// Their names.
    AtNames,
    /// Their names and versions.
    AtNamesAndVersions,
}

/// A response that was received whole.
pub(super) struct Response<'a> {
    pub(super) type_url: &'a [u8],
    pub(super) nonce: &'a [u8],
    pub(super) resources: u64,
    pub(super) removed: u64,
    /// Names and versions, as far as they were looked at.
    pub(super) changed: &'a [(Vec<u8>, Vec<u8>)],
    pub(super) gone: &'a [Vec<u8>],
}

/// Reads messages that come in pieces.
#[derive(Default)]
pub(super) struct Scanner {
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come; `None` between messages.
    left: Option<usize>,
    /// Bytes of a field that nobody looks at.
    skip: usize,
    /// The beginning of a field whose end is not there yet.
    partial: Vec<u8>,
    type_url: Vec<u8>,
    nonce: Vec<u8>,
    resources: u64,
    removed: u64,
    changed: Vec<(Vec<u8>, Vec<u8>)>,
    gone: Vec<Vec<u8>>,
}

/// A field's number, the length of its head, and of its body; `None` when the head is not whole.
fn head(bytes: &[u8]) -> Option<(u64, usize, usize)> {
    let mut rest = bytes;
    let tag = decode_varint(&mut rest).ok()?;
    let len = decode_varint(&mut rest).ok()?;
    assert!(tag & 7 == 2, "a field of another type than it should have");
    Some((
        tag >> 3,
        bytes.len() - rest.len(),
        usize::try_from(len).ok()?,
    ))
}

impl Scanner {
    /// Takes the next bytes; says which messages they end.
    pub(super) fn scan(
        &mut self,
        mut bytes: &[u8],
        looks: Looks,
        mut on_message: impl FnMut(Response<'_>),
    ) {
        while !bytes.is_empty() {
            let Some(left) = self.left else {
                let taken = bytes.len().min(5 - self.prefix.len());
                self.prefix.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if let [compressed, a, b, c, d] = self.prefix[..] {
                    assert!(compressed == 0, "nobody asked for compression");
                    self.prefix.clear();
                    self.left = Some(u32::from_be_bytes([a, b, c, d]) as usize);
                    self.end_if_whole(&mut on_message);
                }
                continue;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(left));
            bytes = rest;
            self.fields(part, looks);
            self.left = Some(left - part.len());
            self.end_if_whole(&mut on_message);
        }
    }

    fn end_if_whole(&mut self, on_message: &mut impl FnMut(Response<'_>)) {
        if self.left != Some(0) {
            return;
        }
        on_message(Response {
            type_url: &self.type_url,
            nonce: &self.nonce,
            resources: self.resources,
            removed: self.removed,
            changed: &self.changed,
            gone: &self.gone,
        });
        *self = Self::default();
    }

    fn fields(&mut self, mut part: &[u8], looks: Looks) {
        while !part.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(part.len());
                self.skip -= skipped;
                part = &part[skipped..];
                continue;
            }
            if !self.partial.is_empty() {
                part = self.complete(part, looks);
                continue;
            }
            let Some((field, at, len)) = head(part) else {
                self.partial = part.to_vec();
                return;
            };
            if let Some(body) = part.get(at..at + len) {
                self.field(field, body, looks);
                part = &part[at + len..];
            } else if field == RESOURCES && looks == Looks::Away {
                self.resources += 1;
                self.skip = at + len - part.len();
                return;
            } else {
                self.partial = part.to_vec();
                return;
            }
        }
    }

    /// Adds to the field that was begun; returns what is not of it.
    fn complete<'a>(&mut self, part: &'a [u8], looks: Looks) -> &'a [u8] {
        let need = if let Some((_, at, len)) = head(&self.partial) {
            at + len - self.partial.len()
        } else {
            assert!(self.partial.len() < HEAD_BYTES_MAX, "not a message");
            1
        };
        let (mine, rest) = part.split_at(need.min(part.len()));
        self.partial.extend_from_slice(mine);
        if let Some((field, at, len)) = head(&self.partial)
            && self.partial.len() == at + len
        {
            let whole = std::mem::take(&mut self.partial);
            self.field(field, &whole[at..], looks);
        }
        rest
    }

    fn field(&mut self, field: u64, body: &[u8], looks: Looks) {
        match field {
            TYPE_URL => self.type_url = body.to_vec(),
            NONCE => self.nonce = body.to_vec(),
            REMOVED => {
                self.removed += 1;
                if looks == Looks::AtNamesAndVersions {
                    self.gone.push(body.to_vec());
                }
            }
            RESOURCES => {
                self.resources += 1;
                if looks != Looks::Away {
                    self.changed.push(resource(body, looks));
                }
            }
            _ => {}
        }
    }
}

/// Name and version of a resource.
fn resource(mut body: &[u8], looks: Looks) -> (Vec<u8>, Vec<u8>) {
    let (mut name, mut version) = (None, None);
    while let Some((field, at, len)) = head(body).filter(|_| !body.is_empty()) {
        let value = body.get(at..at + len).unwrap_or_default();
        match field {
            RESOURCE_NAME => name = Some(value.to_vec()),
            RESOURCE_VERSION if looks == Looks::AtNamesAndVersions => {
                version = Some(value.to_vec());
            }
            _ => {}
        }
        if name.is_some() && (version.is_some() || looks == Looks::AtNames) {
            break;
        }
        body = body.get(at + len..).unwrap_or_default();
    }
    (name.unwrap_or_default(), version.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::discovery::{DeltaDiscoveryResponse, Resource};

    use super::*;

    #[test]
    fn responses_are_read_in_whatever_pieces_they_come() {
        let resource = |n: usize| Resource {
            name: format!("name-{n}"),
            version: format!("{n:x}"),
            resource: Some(proto::Any {
                type_url: "t".to_owned(),
                value: vec![7; n * 50],
            }),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            system_version_info: "v".to_owned(),
            resources: (0..20).map(resource).collect(),
            type_url: "type".to_owned(),
            nonce: "nonce".to_owned(),
            removed_resources: vec!["gone".to_owned()],
            control_plane: None,
        };
        let mut bytes = Vec::new();
        for _ in 0..3 {
            let message = response.encode_to_vec();
            bytes.push(0);
            bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&message);
        }
        for looks in [Looks::Away, Looks::AtNames, Looks::AtNamesAndVersions] {
            for piece in [1, 2, 3, 7, 100, 1000, 100_000] {
                let mut scanner = Scanner::default();
                let mut count = 0;
                for part in bytes.chunks(piece) {
                    scanner.scan(part, looks, |response| {
                        count += 1;
                        assert_eq!(response.type_url, b"type");
                        assert_eq!(response.nonce, b"nonce");
                        assert_eq!((response.resources, response.removed), (20, 1));
                        if looks != Looks::Away {
                            assert_eq!(response.changed[19].0, b"name-19");
                        }
                        if looks == Looks::AtNamesAndVersions {
                            assert_eq!(response.changed[19].1, b"13");
                            assert_eq!(response.gone, [b"gone".to_vec()]);
                        }
                    });
                }
                assert_eq!(count, 3, "{looks:?} in pieces of {piece}");
            }
        }
    }
}
