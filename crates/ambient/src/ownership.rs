//! Stage `ownership`: webhook configurations and Services → [`Revisions`], what this control
//! plane owns. [`gateway`] says which Gateways it does not.
//!
//! An edit of a tag changes the one row; only what reads it is judged again.
//! Source: spec/gateway-api.md §2.2, spec/control-plane.md §8.7.

pub mod gateway;

use flow::{Output, Reads};
use model::input::{Service, WebhookConfiguration};
use model::labels::{LABEL_REVISION, LABEL_TAG};
use model::ownership::{MyTags, REVISION_DEFAULT, Revisions};
use model::{Finding, Kind, Meta, ObjectKey, ObjectRef, Parsed, Severity, Str};

use crate::mesh::MeshDefaults;
use crate::tables::InputView;

/// Says which revision the tag `default` is, where no other object does.
const DEFAULT_VALIDATOR: &str = "istiod-default-validator";
/// The other object.
const DEFAULT_TAG: &str = "istio-revision-tag-default";

/// Index of webhook configurations that give a revision a tag, by that revision.
#[derive(Clone, Copy, Debug)]
pub struct TagsByRevision;

impl flow::Index<ObjectKey, Parsed<WebhookConfiguration>> for TagsByRevision {
    type At = Str;

    fn keys(_: &ObjectKey, row: &Parsed<WebhookConfiguration>, emit: &mut dyn FnMut(&Str)) {
        if let Some((_, revision)) = tag(&row.meta) {
            emit(revision);
        }
    }
}

/// Index of Services that give a revision a tag, by namespace and that revision.
#[derive(Clone, Copy, Debug)]
pub struct TagServices;

impl flow::Index<ObjectKey, Parsed<Service>> for TagServices {
    type At = (Str, Str);

    fn keys(key: &ObjectKey, row: &Parsed<Service>, emit: &mut dyn FnMut(&(Str, Str))) {
        if let Some((_, revision)) = tag(&row.meta) {
            emit(&(key.ns.clone(), revision.clone()));
        }
    }
}

/// The tag that an object gives to a revision.
fn tag(meta: &Meta) -> Option<(&Str, &Str)> {
    let label = |key| meta.label(key).filter(|value| !value.is_empty());
    Some((label(LABEL_TAG)?, label(LABEL_REVISION)?))
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct OwnershipView<'t> {
    /// Settings of the installation.
    pub defaults: &'t MeshDefaults,
    /// Index [`TagsByRevision`].
    pub mutating_webhooks: InputView<'t, WebhookConfiguration>,
    /// The others.
    pub validating_webhooks: InputView<'t, WebhookConfiguration>,
    /// Index [`TagServices`].
    pub services: InputView<'t, Service>,
}

/// What this control plane owns.
pub fn derive(
    _: &(),
    view: &OwnershipView<'_>,
    reads: &mut Reads,
) -> Output<(), Revisions, Finding> {
    let MeshDefaults {
        revision, is_alone, ..
    } = view.defaults;
    if revision.is_empty() && *is_alone {
        return Output::one((), Revisions::All);
    }
    let revision = if revision.is_empty() {
        Str::from(REVISION_DEFAULT)
    } else {
        revision.clone()
    };
    let at = (view.defaults.system_namespace.clone(), revision.clone());
    let webhooks = view
        .mutating_webhooks
        .by::<TagsByRevision>(reads, &revision);
    let webhooks = webhooks.filter_map(|(_, row)| tag(&row.meta));
    let services = view.services.by::<TagServices>(reads, &at);
    let services = services.filter_map(|(_, row)| tag(&row.meta));
    let tags = webhooks.chain(services).map(|(tag, _)| tag);
    let mut mine = MyTags {
        tags: tags.filter(|tag| **tag != revision).cloned().collect(),
        revision,
        is_default: false,
    };
    mine.is_default = mine.has(REVISION_DEFAULT) || validates_by_default(&mine, view, reads);
    let notes: Vec<Finding> = tagged_elsewhere(&mine, view, reads).into_iter().collect();
    Output::one((), Revisions::Of(mine)).with_notes(notes)
}

/// Who tags another revision as the default one expects it to own what names none; but what is
/// called `default` keeps that, as in istiod.
fn tagged_elsewhere(mine: &MyTags, view: &OwnershipView<'_>, reads: &mut Reads) -> Option<Finding> {
    if mine.revision != REVISION_DEFAULT {
        return None;
    }
    let key = ObjectKey::cluster(DEFAULT_TAG);
    let row = view.mutating_webhooks.get(reads, &key)?;
    let (_, other) = tag(&row.meta).filter(|(_, other)| **other != mine.revision)?;
    let finding = Finding::new(
        "revision-default-tagged-elsewhere",
        Severity::Warning,
        ObjectRef::new(Kind::MutatingWebhookConfiguration, key),
        format!(
            "Tag default is revision {other}, but this control plane has revision default: objects without istio.io/rev are ours all the same, and may be those of {other} too"
        ),
        "Remove the tag, or give this control plane another revision",
    );
    Some(finding.at("metadata.labels[istio.io/rev]"))
}

/// Whether what names no revision is judged by us, and no tag says that it is another's.
fn validates_by_default(mine: &MyTags, view: &OwnershipView<'_>, reads: &mut Reads) -> bool {
    let validator = ObjectKey::cluster(DEFAULT_VALIDATOR);
    let validator = view.validating_webhooks.get(reads, &validator);
    let revision = validator.and_then(|row| row.meta.label(LABEL_REVISION));
    let other = ObjectKey::cluster(DEFAULT_TAG);
    revision == Some(&mine.revision) && view.mutating_webhooks.get(reads, &other).is_none()
}
