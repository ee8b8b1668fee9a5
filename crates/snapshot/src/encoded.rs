//! One resource, encoded and framed once.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use model::Str;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use proto::type_url;
use xxhash_rust::xxh64::xxh64;

/// Tag of a length-delimited field with a number below 16.
const fn tag(number: u8) -> u8 {
    number << 3 | 2
}

// Source: spec/workload-discovery.md §1.2.
const RESPONSE_RESOURCES: u8 = tag(2);
const RESPONSE_REMOVED: u8 = tag(6);
const RESOURCE_VERSION: u8 = tag(1);
const RESOURCE_ANY: u8 = tag(2);
const RESOURCE_NAME: u8 = tag(3);
const RESOURCE_ALIASES: u8 = tag(4);
const ANY_TYPE_URL: u8 = tag(1);
const ANY_VALUE: u8 = tag(2);
// Source: spec/workload-discovery.md §1.4.
const ADDRESS_WORKLOAD: u8 = tag(1);

/// What an `Address` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// A service.
    Service,
    /// A workload.
    Workload,
}

/// What sessions need to know of an `Address` without decoding it. All of it follows
/// from the payload, so equal versions have equal facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFacts {
    /// Workload or service.
    pub kind: AddressKind,
    /// Kubernetes node of a workload, empty when it has none.
    pub node: Str,
    /// A workload that takes no new connections: not ready, or terminating.
    pub unhealthy: bool,
    /// Names of the services that a workload belongs to.
    pub services: Box<[Str]>,
}

impl AddressFacts {
    /// Those of a service.
    pub fn service() -> Self {
        Self {
            kind: AddressKind::Service,
            node: Str::new(),
            unhealthy: false,
            services: Box::default(),
        }
    }
}

/// A resource as the bytes that go on the wire.
///
/// One allocation holds field 2 of a `DeltaDiscoveryResponse`, tag and length
/// included. Inside it the `Any` is the last field of the `Resource` and happens
/// to have number 2 too, as `resources` of a `DiscoveryResponse` has; and the
/// payload is the last field of the `Any`. So all three are slices of one buffer.
///
/// Two resources are equal when name and version are. Printed without its content, which may
/// be a private key.
pub struct EncodedResource {
    name: Str,
    version: u64,
    framed: Bytes,
    any_at: u32,
    payload_at: u32,
    aliases: Box<[Str]>,
    /// In a box, for hardly any resource is asked for in this form.
    aliased: OnceLock<Box<Bytes>>,
    facts: Option<Arc<AddressFacts>>,
}

impl EncodedResource {
    /// Frames an encoded message; `aliases` are further names that on-demand
    /// clients may have asked for.
    pub fn new(name: Str, type_url: &'static str, payload: &[u8], aliases: Vec<Str>) -> Self {
        Self::versioned(name, type_url, payload, aliases, xxh64(payload, 0), None)
    }

    /// An `Address`. It must be sent again whenever something else changes, although its
    /// own payload does not: `seed` stands for that other content and joins the version.
    /// (A ztunnel that receives a changed service must receive its workloads again.
    /// Source: spec/workload-discovery.md §1.6, step (c).)
    pub fn address(
        name: Str,
        payload: &[u8],
        aliases: Vec<Str>,
        facts: AddressFacts,
        seed: u64,
    ) -> Self {
        let version = xxh64(payload, seed);
        let facts = Some(Arc::new(facts));
        Self::versioned(name, type_url::ADDRESS, payload, aliases, version, facts)
    }

    /// The same workload as an `istio.workload.Workload`, with the same version; `None`
    /// for anything else. The message is the one inside the `Address`, byte by byte.
    pub fn to_workload(&self) -> Option<Self> {
        let facts = self.facts.as_ref()?;
        if facts.kind != AddressKind::Workload {
            return None;
        }
        let payload = self.payload();
        let message = only_field(ADDRESS_WORKLOAD, &payload)?;
        let aliases = self.aliases.to_vec();
        let (name, facts) = (self.name.clone(), Some(Arc::clone(facts)));
        Some(Self::versioned(
            name,
            type_url::WORKLOAD,
            message,
            aliases,
            self.version,
            facts,
        ))
    }

    fn versioned(
        name: Str,
        type_url: &'static str,
        payload: &[u8],
        aliases: Vec<Str>,
        version: u64,
        facts: Option<Arc<AddressFacts>>,
    ) -> Self {
        let any_size = field_size(type_url.len()) + field_size(payload.len());
        let mut any = Vec::with_capacity(field_size(any_size));
        put_header(RESOURCE_ANY, any_size, &mut any);
        put(ANY_TYPE_URL, type_url.as_bytes(), &mut any);
        put(ANY_VALUE, payload, &mut any);

        let framed = frame(&name, version, &[], &any);
        Self {
            any_at: (framed.len() - any.len()) as u32,
            payload_at: (framed.len() - payload.len()) as u32,
            name,
            version,
            framed,
            aliases: aliases.into(),
            aliased: OnceLock::new(),
            facts,
        }
    }

    /// A resource of which only the version is known: what a reconnecting client
    /// says it holds. It must never be sent; its frames are empty.
    pub(crate) fn held(name: Str, version: u64) -> Self {
        Self {
            name,
            version,
            framed: Bytes::new(),
            any_at: 0,
            payload_at: 0,
            aliases: Box::default(),
            aliased: OnceLock::new(),
            facts: None,
        }
    }

    /// What stands for this resource where a client holds it but needs it again. It
    /// equals no resource, must never be sent, and keeps facts and aliases.
    #[must_use]
    pub fn to_outdated(&self) -> Self {
        Self {
            aliases: self.aliases.clone(),
            facts: self.facts.clone(),
            ..Self::held(self.name.clone(), 0)
        }
    }

    /// What it is, for addresses.
    pub fn facts(&self) -> Option<&AddressFacts> {
        self.facts.as_deref()
    }

    /// Whether it is an address of this kind.
    pub fn is_address(&self, kind: AddressKind) -> bool {
        self.facts().is_some_and(|facts| facts.kind == kind)
    }

    /// The resource name.
    pub fn name(&self) -> &Str {
        &self.name
    }

    /// The xxh64 of the payload, seeded with what it depends on.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version as clients see it: lower-case hex without padding.
    pub fn version_str(&self) -> Str {
        version_str(self.version)
    }

    /// Further names of the resource.
    pub fn aliases(&self) -> &[Str] {
        &self.aliases
    }

    /// The encoded message itself.
    pub fn payload(&self) -> Bytes {
        self.framed.slice(self.payload_at as usize..)
    }

    /// Field 2 of a `DeltaDiscoveryResponse`, tag and length included.
    pub fn framed_delta(&self) -> Bytes {
        self.framed.clone()
    }

    /// Field 2 of a `DiscoveryResponse`, tag and length included.
    pub fn framed_sotw(&self) -> Bytes {
        self.framed.slice(self.any_at as usize..)
    }

    /// As [`Self::framed_delta`], with the aliases; framed when first asked for,
    /// since only on-demand clients look at them.
    pub fn framed_delta_aliased(&self) -> Bytes {
        if self.aliases.is_empty() {
            return self.framed_delta();
        }
        let any = || self.framed_sotw();
        let framed = || Box::new(frame(&self.name, self.version, &self.aliases, &any()));
        Bytes::clone(self.aliased.get_or_init(framed))
    }

    /// Size of [`Self::framed_delta`].
    pub fn framed_bytes(&self) -> usize {
        self.framed.len()
    }
}

impl fmt::Debug for EncodedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedResource")
            .field("name", &self.name)
            .field("version", &self.version_str())
            .field("bytes", &self.framed.len())
            .finish_non_exhaustive()
    }
}

impl PartialEq for EncodedResource {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.name == other.name
    }
}

impl Eq for EncodedResource {}

/// Lower-case hex without padding.
pub(crate) fn version_str(version: u64) -> Str {
    Str::from(format!("{version:x}"))
}

/// Appends one entry of `removed_resources` of a `DeltaDiscoveryResponse`.
pub(crate) fn put_removed(name: &str, out: &mut Vec<u8>) {
    put(RESPONSE_REMOVED, name.as_bytes(), out);
}

/// A `Resource` with tag and length; `any` comes last and has its own header.
fn frame(name: &str, version: u64, aliases: &[Str], any: &[u8]) -> Bytes {
    let version = version_str(version);
    let aliases_size: usize = aliases.iter().map(|alias| field_size(alias.len())).sum();
    let size = field_size(version.len()) + field_size(name.len()) + aliases_size + any.len();
    let mut out = Vec::with_capacity(field_size(size));
    put_header(RESPONSE_RESOURCES, size, &mut out);
    put(RESOURCE_VERSION, version.as_bytes(), &mut out);
    put(RESOURCE_NAME, name.as_bytes(), &mut out);
    for alias in aliases {
        put(RESOURCE_ALIASES, alias.as_bytes(), &mut out);
    }
    out.extend_from_slice(any);
    Bytes::from(out)
}

/// The body of a message's only field, if it has this tag.
fn only_field(tag: u8, message: &[u8]) -> Option<&[u8]> {
    let (first, mut rest) = message.split_first()?;
    let size = decode_varint(&mut rest).ok()?;
    (*first == tag && usize::try_from(size) == Ok(rest.len())).then_some(rest)
}

/// Size of a delimited field with its one-byte tag and its length.
pub(crate) fn field_size(body: usize) -> usize {
    1 + encoded_len_varint(body as u64) + body
}

fn put_header(tag: u8, body: usize, out: &mut Vec<u8>) {
    out.push(tag);
    encode_varint(body as u64, out);
}

pub(crate) fn put(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    put_header(tag, body.len(), out);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;
    use proto::{
        Any,
        discovery::{DeltaDiscoveryResponse, DiscoveryResponse, Resource},
        workload::{Address, Service, Workload, address},
    };

    use super::*;

    fn resource(payload: &[u8], aliases: &[&str]) -> EncodedResource {
        let aliases = aliases.iter().map(|alias| Str::from(*alias)).collect();
        EncodedResource::new(Str::from("ns/host"), type_url::ADDRESS, payload, aliases)
    }

    fn expected(payload: &[u8], aliases: &[&str]) -> Resource {
        Resource {
            version: format!("{:x}", xxh64(payload, 0)),
            resource: Some(Any {
                type_url: type_url::ADDRESS.to_owned(),
                value: payload.to_vec(),
            }),
            name: "ns/host".to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..Resource::default()
        }
    }

    #[test]
    fn frames_decode_as_responses_and_share_one_buffer() {
        // Lengths around those where a varint grows.
        for size in [0, 1, 60, 127, 128, 300, 16_383, 16_384, 70_000] {
            let payload = vec![7; size];
            let resource = resource(&payload, &["/10.0.0.1"]);

            let delta = DeltaDiscoveryResponse::decode(resource.framed_delta()).unwrap();
            assert_eq!(delta.resources, [expected(&payload, &[])]);
            let sotw = DiscoveryResponse::decode(resource.framed_sotw()).unwrap();
            assert_eq!(
                Some(&sotw.resources),
                expected(&payload, &[])
                    .resource
                    .map(|any| vec![any])
                    .as_ref()
            );
            assert_eq!(resource.payload(), payload);

            let whole = resource.framed_delta().as_ptr_range();
            assert!(whole.contains(&resource.framed_sotw().as_ptr()));
            assert_eq!(resource.framed_sotw().as_ptr_range().end, whole.end);
        }
    }

    #[test]
    fn aliases_appear_only_in_the_aliased_frame() {
        let aliases = ["/10.0.0.1", "/fd00::1"];
        let resource = resource(b"payload", &aliases);
        let delta = DeltaDiscoveryResponse::decode(resource.framed_delta_aliased()).unwrap();
        assert_eq!(delta.resources, [expected(b"payload", &aliases)]);
        assert_eq!(
            resource.framed_delta_aliased().as_ptr(),
            resource.framed_delta_aliased().as_ptr()
        );
    }

    #[test]
    fn the_version_follows_the_payload_alone() {
        assert_eq!(resource(b"a", &[]), resource(b"a", &["/10.0.0.1"]));
        assert_ne!(resource(b"a", &[]).version(), resource(b"b", &[]).version());
        // xxh64 of nothing, from the algorithm's own specification.
        assert_eq!(resource(b"", &[]).version_str(), "ef46db3751d8e999");
        assert_eq!(version_str(0x00ab), "ab");
    }

    fn workload_facts() -> AddressFacts {
        AddressFacts {
            kind: AddressKind::Workload,
            node: Str::from("node"),
            unhealthy: false,
            services: Box::default(),
        }
    }

    #[test]
    fn a_workload_is_the_inside_of_its_address_with_the_same_version() {
        let workload = Workload {
            uid: "uid".to_owned(),
            name: "w".repeat(200),
            ..Workload::default()
        };
        let address = |r#type| {
            Address {
                r#type: Some(r#type),
            }
            .encode_to_vec()
        };
        let bytes = address(address::Type::Workload(workload.clone()));
        let aliases = vec![Str::from("/10.0.0.1")];
        let whole =
            EncodedResource::address(Str::from("uid"), &bytes, aliases, workload_facts(), 7);
        let bare = whole.to_workload().unwrap();
        assert_eq!(Workload::decode(bare.payload()).unwrap(), workload);
        assert_eq!(bare, whole, "name and version");
        assert_eq!(bare.aliases(), whole.aliases());
        assert_eq!(bare.facts(), whole.facts());
        let frame = DeltaDiscoveryResponse::decode(bare.framed_delta()).unwrap();
        let any = frame.resources.into_iter().next().unwrap().resource;
        assert_eq!(any.unwrap().type_url, type_url::WORKLOAD);

        let service = address(address::Type::Service(Service::default()));
        let service = EncodedResource::address(
            Str::from("ns/host"),
            &service,
            Vec::new(),
            AddressFacts::service(),
            0,
        );
        assert_eq!(service.to_workload(), None);
        for broken in [&b""[..], b"\x0a\x05ab", b"\x0a\x01ab", b"\x0a\xff"] {
            let facts = workload_facts();
            let broken = EncodedResource::address(Str::from("uid"), broken, vec![], facts, 0);
            assert_eq!(broken.to_workload(), None);
        }
    }

    #[test]
    fn what_is_outdated_stays_so_however_often_it_is_said() {
        let resource =
            EncodedResource::address(Str::from("uid"), b"x", vec![], workload_facts(), 0);
        let outdated = resource.to_outdated();
        assert_ne!(outdated, resource);
        assert_eq!(outdated.to_outdated(), outdated);
        assert_eq!(outdated.facts(), resource.facts());
    }

    #[test]
    fn removed_names_decode() {
        let mut out = Vec::new();
        put_removed("ns/a", &mut out);
        put_removed("ns/b", &mut out);
        let delta = DeltaDiscoveryResponse::decode(out.as_slice()).unwrap();
        assert_eq!(delta.removed_resources, ["ns/a", "ns/b"]);
    }
}
