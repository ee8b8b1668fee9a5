//! A discovery response: a small header, shared frames, removed names.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use model::Str;
use prost::encoding::{encode_varint, encoded_len_varint};
use snapshot::{EncodedDelta, ResourceType};

// Field numbers, the same in both flavours. Source: spec/workload-discovery.md §1.2.
const VERSION: u8 = 1;
const TYPE_URL: u8 = 4;
const NONCE: u8 = 5;
const REMOVED: u8 = 6;

/// Which part of a shared delta is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// New and changed resources.
    Upserts,
    /// Names that are gone.
    Removals,
    /// Both.
    All,
}

#[derive(Clone)]
pub(crate) enum Payload {
    /// Frames that other streams send too.
    Shared(Arc<EncodedDelta>, Part),
    /// Frames chosen for this stream; the frames themselves are still shared.
    Own {
        chunks: Vec<Bytes>,
        removed: Vec<Str>,
    },
}

/// Without contents, which may be private keys.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(delta, part) => {
                let count = delta.changed.len();
                write!(f, "Shared({count} resources, {part:?})")
            }
            Self::Own { chunks, removed } => {
                write!(f, "Own({} resources, removed {removed:?})", chunks.len())
            }
        }
    }
}

/// One response, ready for the wire.
#[derive(Clone, Debug)]
pub struct Response {
    /// Kind of the resources; `None` for a type that we do not serve.
    pub ty: Option<ResourceType>,
    /// Type URL.
    pub type_url: Str,
    /// Nonce, unique in the life of the process.
    pub nonce: String,
    /// `system_version_info` or `version_info`: the content hash of what the client
    /// holds of this type afterwards, equal across restarts and replicas.
    pub version: String,
    /// How long the client was behind while an earlier response was not yet
    /// acknowledged, milliseconds.
    pub behind_ms: u64,
    /// Whether a request, not a change, caused it.
    pub requested: bool,
    pub(crate) payload: Payload,
}

impl Response {
    fn removed(&self) -> &[Str] {
        match &self.payload {
            Payload::Shared(_, Part::Upserts) => &[],
            Payload::Shared(delta, _) => &delta.removed,
            Payload::Own { removed, .. } => removed,
        }
    }

    /// Number of resources in it.
    pub fn resources_count(&self) -> usize {
        match &self.payload {
            Payload::Shared(_, Part::Removals) => 0,
            Payload::Shared(delta, _) => delta.changed.len(),
            Payload::Own { chunks, .. } => chunks.len(),
        }
    }

    /// Number of removed names in it.
    pub fn removed_count(&self) -> usize {
        self.removed().len()
    }

    /// Size of the encoded message, bytes.
    pub fn encoded_bytes(&self) -> usize {
        let body = match &self.payload {
            Payload::Shared(delta, Part::All) => delta.bytes,
            Payload::Shared(delta, Part::Upserts) => delta.bytes - delta.removed_framed.len(),
            Payload::Shared(delta, Part::Removals) => delta.removed_framed.len(),
            Payload::Own { chunks, removed } => {
                let chunks: usize = chunks.iter().map(Bytes::len).sum();
                let removed = removed.iter().map(|name| field_bytes(name.len()));
                chunks + removed.sum::<usize>()
            }
        };
        self.header_bytes() + body
    }

    /// Size of what [`Self::encode_header`] writes.
    pub(crate) fn header_bytes(&self) -> usize {
        let header = [self.version.len(), self.type_url.len(), self.nonce.len()];
        header.into_iter().map(field_bytes).sum()
    }

    /// Appends the fields that are this stream's own. The message is these and [`Self::body`].
    pub(crate) fn encode_header(&self, out: &mut impl BufMut) {
        put(VERSION, self.version.as_bytes(), out);
        put(TYPE_URL, self.type_url.as_bytes(), out);
        put(NONCE, self.nonce.as_bytes(), out);
    }

    /// Appends the encoded message, for who has no stream to write it to.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_header(out);
        out.extend(self.body().concat());
    }

    /// The encoded resources and removed names, in parts that add up to it.
    pub(crate) fn body(&self) -> Vec<Bytes> {
        match &self.payload {
            Payload::Shared(delta, Part::All) => {
                vec![delta.framed(), delta.removed_framed.clone()]
            }
            Payload::Shared(delta, Part::Upserts) => vec![delta.framed()],
            Payload::Shared(delta, Part::Removals) => vec![delta.removed_framed.clone()],
            Payload::Own { chunks, removed } => {
                let mut names = Vec::new();
                for name in removed {
                    put(REMOVED, name.as_bytes(), &mut names);
                }
                let mut parts = chunks.clone();
                parts.push(names.into());
                parts
            }
        }
    }
}

/// Size of a string field; proto3 omits empty ones.
fn field_bytes(body: usize) -> usize {
    if body == 0 {
        0
    } else {
        1 + encoded_len_varint(body as u64) + body
    }
}

fn put(field: u8, body: &[u8], out: &mut impl BufMut) {
    // An element of a repeated field is written even when empty; names never are.
    if body.is_empty() {
        return;
    }
    out.put_u8(field << 3 | 2);
    encode_varint(body.len() as u64, out);
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;
    use proto::discovery::{DeltaDiscoveryResponse, Resource};
    use snapshot::ResourceType::Address;

    use super::*;
    use crate::session::tests::map;

    #[test]
    fn wire_bytes_decode_to_the_message_that_was_meant() {
        let from = map(Address, "gone=1 kept=1 old=1");
        let to = map(Address, "kept=1 new=1 old=2");
        let delta = Arc::new(EncodedDelta::between(&from, &to));
        let resource = |name: &str, content: &str| Resource {
            name: name.to_owned(),
            version: to.get(name).unwrap().version_str().to_string(),
            resource: Some(proto::Any {
                type_url: Address.type_url().to_owned(),
                value: content.as_bytes().to_vec(),
            }),
            ..Resource::default()
        };
        let changed = vec![resource("new", "1"), resource("old", "2")];
        let gone = vec!["gone".to_owned()];
        let own = Payload::Own {
            chunks: delta.changed.iter().map(|one| one.framed_delta()).collect(),
            removed: vec!["gone".into()],
        };
        let shared = |part| Payload::Shared(Arc::clone(&delta), part);
        for (payload, resources, removed_resources) in [
            (shared(Part::All), changed.clone(), gone.clone()),
            (shared(Part::Upserts), changed.clone(), vec![]),
            (shared(Part::Removals), vec![], gone.clone()),
            (own, changed, gone),
        ] {
            let response = Response {
                ty: Some(Address),
                type_url: Address.type_url().into(),
                nonce: "n-1".to_owned(),
                version: "7".to_owned(),
                behind_ms: 0,
                requested: false,
                payload,
            };
            let mut bytes = Vec::new();
            response.encode(&mut bytes);
            assert_eq!(bytes.len(), response.encoded_bytes());
            assert_eq!(response.resources_count(), resources.len());
            assert_eq!(response.removed_count(), removed_resources.len());
            let expected = DeltaDiscoveryResponse {
                system_version_info: "7".to_owned(),
                resources,
                type_url: Address.type_url().to_owned(),
                nonce: "n-1".to_owned(),
                removed_resources,
                control_plane: None,
            };
            assert_eq!(
                DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap(),
                expected
            );
        }
    }
}
