//! Which releases the definitions of the Gateway API are of: a definition that is older than what
//! is read of its kind says something else by the same words.
//!
//! Source: spec/gateway-api.md §0.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Kind, Str};
use parking_lot::Mutex;
use serde_json::Value;

use crate::kinds::{self, Release};

use super::raw::RawObject;

/// Says which release a definition is of.
const ANNOTATION: &str = "gateway.networking.k8s.io/bundle-version";

/// Longest text of a release that is repeated, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// Releases of definitions, as far as a kind has a first one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Releases(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Unknown,
    /// We may not read definitions: whatever is served is believed.
    Refused,
    /// By name; `None` is that of a definition that says none.
    Known(BTreeMap<Str, Option<Str>>),
}

// === impl Releases ===

impl Releases {
    /// Whether there is anything to go by.
    pub(super) fn is_known(&self) -> bool {
        !matches!(*self.0.lock(), State::Unknown)
    }

    /// All definitions.
    pub(super) fn replace(&self, all: BTreeMap<Str, Option<Str>>) {
        *self.0.lock() = State::Known(all);
    }

    /// They cannot be read. What was read of them holds.
    pub(super) fn refuse(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Unknown) {
            *state = State::Refused;
        }
    }

    /// A definition was installed or changed.
    pub(super) fn set(&self, name: Str, release: Option<Str>) {
        if let State::Known(all) = &mut *self.0.lock() {
            all.insert(name, release);
        }
    }

    /// A definition is gone.
    pub(super) fn remove(&self, name: &str) {
        if let State::Known(all) = &mut *self.0.lock() {
            all.remove(name);
        }
    }

    /// Why a kind of the Gateway API counts as absent although it is served: the release that its
    /// definition says, empty where it says none.
    pub(super) fn outdated(&self, kind: &str) -> Option<Str> {
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        let first = kinds::first_release(kind)?;
        let state = self.0.lock();
        let State::Known(all) = &*state else {
            return None;
        };
        let said = all.get(&name(kind)).cloned().flatten();
        let release = said.as_deref().and_then(Release::parse);
        let is_new = release.is_some_and(|release| release >= first);
        (!is_new).then(|| said.unwrap_or_default())
    }
}

/// The name of a definition and what it says of its release, where that matters.
pub(super) fn of(object: &RawObject) -> Option<(Str, Option<Str>)> {
    let key = object.key()?;
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|kind| kinds::first_release(*kind).is_some() && name(*kind) == key.name)?;
    let annotations = object.value.get("metadata")?.get("annotations");
    let said = annotations.and_then(|annotations| annotations.get(ANNOTATION));
    let said = said.and_then(Value::as_str);
    let said = said.filter(|said| said.len() <= TEXT_BYTES_MAX);
    Some((key.name, said.map(Str::from)))
}

fn name(kind: Kind) -> Str {
    let plural = kinds::plural(kind.as_str());
    arcstr::format!("{plural}.{}", kind.group())
}
