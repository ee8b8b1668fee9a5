//! Canonical bytes: equal messages have equal encodings.
//!
//! Bindings that keep protobuf maps in hash maps write their entries in a new
//! order each time. This pass rewrites the bytes, led by the descriptors: entries
//! of a map are sorted by key and stand where the first one stood, at every level
//! and inside every `Any` of a known type. All else keeps its order. Without it an
//! unchanged listener would look changed and its connections would be drained.
//!
//! Only what may hold a map is looked into, and only what is not in order is copied.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_reflect::{FieldDescriptor, Kind};

use crate::{Error, type_url};

mod plan;

use plan::{Plan, Plans, Step};

/// Levels of nesting, counting through every `Any`.
const DEPTH_MAX: usize = 100;

/// Rewrites an encoded message; the argument is a full name or a type URL.
///
/// The result decodes to the same message. Repeated map keys collapse to the last
/// one, as decoders do.
///
/// # Errors
/// [`Error::UnknownType`] for the outermost type, otherwise [`Error::Malformed`],
/// [`Error::Decode`] or [`Error::TooDeep`] when the bytes are not that message; parts of it
/// that hold no map are not looked at.
pub fn canonicalize(type_url_or_message_name: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let name = type_url::message_name(type_url_or_message_name);
    let plans = plan::plans();
    let at = plans
        .find(name)
        .ok_or_else(|| Error::UnknownType(name.to_owned()))?;
    rewrite(plans, at, bytes, 0).map(Cow::into_owned)
}

/// One field as it stands on the wire.
struct Raw<'a> {
    number: u32,
    wire: WireType,
    /// What follows the tag; for delimited fields without the length.
    body: &'a [u8],
}

impl<'a> Raw<'a> {
    /// Takes the first field off the input.
    fn take(input: &mut &'a [u8]) -> Result<Self, Error> {
        let (number, wire) = decode_key(input)?;
        let size = match wire {
            WireType::Varint => varint_len(input)?,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => usize::try_from(decode_varint(input)?)
                .map_err(|_| Error::Malformed("length beyond memory"))?,
            WireType::StartGroup | WireType::EndGroup => {
                return Err(Error::Malformed("groups are not used here"));
            }
        };
        let (body, rest) = input
            .split_at_checked(size)
            .ok_or(Error::Malformed("a field ends beyond its message"))?;
        *input = rest;
        Ok(Self { number, wire, body })
    }

    fn put(&self, out: &mut Vec<u8>) {
        put(self.number, self.wire, self.body, out);
    }
}

fn varint_len(input: &[u8]) -> Result<usize, Error> {
    let mut rest = input;
    decode_varint(&mut rest)?;
    Ok(input.len() - rest.len())
}

fn put(number: u32, wire: WireType, body: &[u8], out: &mut Vec<u8>) {
    encode_key(number, wire, out);
    if wire == WireType::LengthDelimited {
        encode_varint(body.len() as u64, out);
    }
    out.extend_from_slice(body);
}

/// The canonical form of a message, which most often is the one it has.
fn rewrite<'a>(
    plans: &Plans,
    at: usize,
    bytes: &'a [u8],
    depth: usize,
) -> Result<Cow<'a, [u8]>, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep(DEPTH_MAX));
    }
    let Some(plan) = plans.get(at) else {
        return Ok(Cow::Borrowed(bytes));
    };
    if plan.is_any {
        return rewrite_any(plans, bytes, depth);
    }
    if plan.has_maps && has_map_of_several(plan, bytes)? {
        return reorder(plans, plan, bytes, depth).map(Cow::Owned);
    }
    let mut input = bytes;
    let mut out: Option<Vec<u8>> = None;
    while !input.is_empty() {
        let (head, _) = bytes.split_at(bytes.len() - input.len());
        let raw = Raw::take(&mut input)?;
        match (&mut out, rewrite_field(plans, plan, &raw, depth)?) {
            (None, Cow::Borrowed(_)) => {}
            (None, Cow::Owned(body)) => {
                let mut changed = Vec::with_capacity(bytes.len());
                changed.extend_from_slice(head);
                put(raw.number, raw.wire, &body, &mut changed);
                out = Some(changed);
            }
            (Some(out), body) => put(raw.number, raw.wire, &body, out),
        }
    }
    Ok(out.map_or(Cow::Borrowed(bytes), Cow::Owned))
}

/// The canonical content of a field.
fn rewrite_field<'a>(
    plans: &Plans,
    plan: &Plan,
    raw: &Raw<'a>,
    depth: usize,
) -> Result<Cow<'a, [u8]>, Error> {
    let Some(step) = plan.step(raw.number) else {
        return Ok(Cow::Borrowed(raw.body));
    };
    if raw.wire != WireType::LengthDelimited {
        return Err(Error::Malformed("a message field of another wire type"));
    }
    match step {
        Step::Message(at) => rewrite(plans, *at, raw.body, depth + 1),
        Step::Map { key, entry } => {
            rewrite_entry(plans, (key, *entry), raw.body, depth).map(|(_, entry)| entry)
        }
    }
}

/// Whether some map of a message has several entries, whose order is to be looked at.
fn has_map_of_several(plan: &Plan, bytes: &[u8]) -> Result<bool, Error> {
    let mut input = bytes;
    let mut seen = Vec::new();
    while !input.is_empty() {
        let raw = Raw::take(&mut input)?;
        if matches!(plan.step(raw.number), Some(Step::Map { .. })) {
            if seen.contains(&raw.number) {
                return Ok(true);
            }
            seen.push(raw.number);
        }
    }
    Ok(false)
}

/// The same message with the entries of its maps in order.
fn reorder(plans: &Plans, plan: &Plan, bytes: &[u8], depth: usize) -> Result<Vec<u8>, Error> {
    let mut input = bytes;
    let mut out = Vec::with_capacity(bytes.len());
    // Maps of this message: where their entries belong, and the entries.
    let mut maps: BTreeMap<u32, (usize, Entries)> = BTreeMap::new();
    while !input.is_empty() {
        let raw = Raw::take(&mut input)?;
        match plan.step(raw.number) {
            Some(Step::Map { key, entry }) if raw.wire == WireType::LengthDelimited => {
                let (key, entry) = rewrite_entry(plans, (key, *entry), raw.body, depth)?;
                let at = out.len();
                let (_, entries) = maps.entry(raw.number).or_insert((at, Entries::new()));
                entries.insert(key, entry.into_owned());
            }
            _ => {
                let body = rewrite_field(plans, plan, &raw, depth)?;
                put(raw.number, raw.wire, &body, &mut out);
            }
        }
    }
    Ok(place(out, maps))
}

type Entries = BTreeMap<Key, Vec<u8>>;

/// Puts the entries of each map where its first entry stood.
fn place(plain: Vec<u8>, maps: BTreeMap<u32, (usize, Entries)>) -> Vec<u8> {
    let mut maps: Vec<_> = maps.into_iter().collect();
    // Stable: maps that start at one place stay in the order of their numbers.
    maps.sort_by_key(|(_, (at, _))| *at);
    let mut out = Vec::with_capacity(plain.len() * 2);
    let mut rest = plain.as_slice();
    let mut done = 0;
    for (number, (at, entries)) in maps {
        if let Some((head, tail)) = rest.split_at_checked(at - done) {
            out.extend_from_slice(head);
            rest = tail;
            done = at;
        }
        for entry in entries.into_values() {
            put(number, WireType::LengthDelimited, &entry, &mut out);
        }
    }
    out.extend_from_slice(rest);
    out
}

/// A map key in the order of its values, not of its bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Text(Vec<u8>),
}

impl Key {
    /// The key of an entry that leaves it out.
    fn default_of(field: &FieldDescriptor) -> Self {
        match field.kind() {
            Kind::String => Self::Text(Vec::new()),
            _ => Self::Number(0),
        }
    }

    #[allow(
        clippy::cast_possible_wrap,
        reason = "int32 and int64 travel as two's complement"
    )]
    fn read(field: &FieldDescriptor, raw: &Raw<'_>) -> Result<Self, Error> {
        let mut body = raw.body;
        let number = match raw.wire {
            WireType::LengthDelimited => return Ok(Self::Text(body.to_vec())),
            WireType::Varint => decode_varint(&mut body)?,
            _ => body
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        };
        let half = (number >> 1) as i64;
        let sign = -((number & 1) as i64);
        Ok(Self::Number(match field.kind() {
            Kind::Int32 | Kind::Sfixed32 => i128::from(number as i32),
            Kind::Int64 | Kind::Sfixed64 => i128::from(number as i64),
            Kind::Sint32 | Kind::Sint64 => i128::from(half ^ sign),
            _ => i128::from(number),
        }))
    }
}

/// The key of a map entry and the entry with its key first and value second.
fn rewrite_entry<'a>(
    plans: &Plans,
    (key_field, entry): (&FieldDescriptor, usize),
    bytes: &'a [u8],
    depth: usize,
) -> Result<(Key, Cow<'a, [u8]>), Error> {
    let canonical = rewrite(plans, entry, bytes, depth + 1)?;
    let mut input = canonical.as_ref();
    let mut key = Key::default_of(key_field);
    let mut parts: Vec<Raw<'_>> = Vec::with_capacity(2);
    while !input.is_empty() {
        let raw = Raw::take(&mut input)?;
        if raw.number == 1 {
            key = Key::read(key_field, &raw)?;
        }
        parts.push(raw);
    }
    if parts.is_sorted_by_key(|raw| raw.number) {
        return Ok((key, canonical));
    }
    parts.sort_by_key(|raw| raw.number);
    let mut out = Vec::with_capacity(canonical.len());
    for raw in &parts {
        raw.put(&mut out);
    }
    Ok((key, Cow::Owned(out)))
}

/// Rewrites the payload of an `Any` when its type is known.
fn rewrite_any<'a>(plans: &Plans, bytes: &'a [u8], depth: usize) -> Result<Cow<'a, [u8]>, Error> {
    let mut input = bytes;
    let mut payload = None;
    let mut parts: Vec<(Raw<'a>, Option<Vec<u8>>)> = Vec::with_capacity(2);
    while !input.is_empty() {
        let raw = Raw::take(&mut input)?;
        if raw.number == 1 {
            let url = std::str::from_utf8(raw.body)
                .map_err(|_| Error::Malformed("a type URL that is not text"))?;
            payload = plans.find(type_url::message_name(url));
        }
        parts.push((raw, None));
    }
    let Some(payload) = payload else {
        return Ok(Cow::Borrowed(bytes));
    };
    let mut is_same = true;
    for (raw, changed) in &mut parts {
        if raw.number == 2
            && let Cow::Owned(value) = rewrite(plans, payload, raw.body, depth + 1)?
        {
            *changed = Some(value);
            is_same = false;
        }
    }
    if is_same {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = Vec::with_capacity(bytes.len());
    for (raw, changed) in &parts {
        let body = changed.as_deref().unwrap_or(raw.body);
        put(raw.number, raw.wire, body, &mut out);
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests;
