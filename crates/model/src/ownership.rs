//! Whose an object of the Gateway API is, where several control planes run in one cluster.
//!
//! A control plane has a revision, and tags are other names of revisions. Every one serves the
//! proxies of every Gateway; status and managed deployments are its owner's alone.
//! Source: spec/gateway-api.md §2.2, spec/control-plane.md §8.7.

use std::collections::BTreeSet;

use crate::Str;
use crate::labels::LABEL_REVISION;
use crate::object::Labels;

/// Revision of a control plane that was given none, and the tag of what names no revision.
pub const REVISION_DEFAULT: &str = "default";

/// What this control plane owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Revisions {
    /// Everything: no other control plane can be there.
    #[default]
    All,
    /// What names it, or nothing where it is the default.
    Of(MyTags),
}

/// The names of one control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MyTags {
    /// The revision; never empty.
    pub revision: Str,
    /// Every tag that points to it, without the revision itself.
    pub tags: BTreeSet<Str>,
    /// Whether it owns what names no revision.
    pub is_default: bool,
}

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Ours: we write its status and run its deployment.
    Us,
    /// Whose revision or tag this is.
    Other(&'a Str),
    /// Nothing names a revision, and we are not the default.
    OtherDefault,
}

// === impl Revisions ===

impl Revisions {
    /// Whose an object with these labels is. The label of the object counts; without one, that of
    /// its namespace. `namespace` gives the labels of the namespace, `None` if there is none that
    /// we know, and is asked only where they matter.
    pub fn owner<'a>(
        &self,
        object: &'a Labels,
        namespace: impl FnOnce() -> Option<&'a Labels>,
    ) -> Owner<'a> {
        let Self::Of(mine) = self else {
            return Owner::Us;
        };
        let named = match object.get(LABEL_REVISION) {
            Some(named) => Some(named),
            None => match namespace() {
                Some(labels) => labels.get(LABEL_REVISION),
                None => return Owner::Us,
            },
        };
        match named.filter(|named| !named.is_empty()) {
            Some(named) if mine.has(named) => Owner::Us,
            Some(named) => Owner::Other(named),
            None if mine.is_default => Owner::Us,
            None => Owner::OtherDefault,
        }
    }

    /// [`Revisions::owner`] is [`Owner::Us`].
    pub fn is_ours<'a>(
        &self,
        object: &'a Labels,
        namespace: impl FnOnce() -> Option<&'a Labels>,
    ) -> bool {
        self.owner(object, namespace) == Owner::Us
    }

    /// Whether a name is a tag of ours, and not our revision.
    pub fn has_tag(&self, name: &str) -> bool {
        match self {
            Self::All => false,
            Self::Of(mine) => *name != *mine.revision && mine.tags.contains(name),
        }
    }
}

// === impl MyTags ===

impl MyTags {
    /// Whether a name is the revision or one of its tags.
    pub fn has(&self, name: &str) -> bool {
        *name == *self.revision || self.tags.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(revision: Option<&str>) -> Labels {
        let pair = |value: &str| (Str::from(LABEL_REVISION), Str::from(value));
        revision.map(pair).into_iter().collect()
    }

    fn canary(tags: &[&str], is_default: bool) -> Revisions {
        Revisions::Of(MyTags {
            revision: "canary".into(),
            tags: tags.iter().copied().map(Str::from).collect(),
            is_default,
        })
    }

    /// What an object says, and its namespace: `None` is one that nobody knows.
    type Case = (Option<&'static str>, Option<Option<&'static str>>, bool);

    fn judged(revisions: &Revisions, cases: &[Case]) {
        for (object, namespace, ours) in cases {
            let of_object = labels(*object);
            let of_namespace = namespace.map(labels);
            let is = revisions.is_ours(&of_object, || of_namespace.as_ref());
            assert_eq!(is, *ours, "{revisions:?}: {object:?} in {namespace:?}");
        }
    }

    #[test]
    fn the_label_of_the_object_counts_before_that_of_its_namespace() {
        let cases = [
            (Some("canary"), Some(None), true),
            (Some("canary"), Some(Some("stable")), true),
            (Some("stable"), Some(Some("canary")), false),
            (None, Some(Some("canary")), true),
            (None, Some(Some("stable")), false),
            (Some("Canary"), Some(None), false),
        ];
        judged(&canary(&[], false), &cases);
        judged(&canary(&[], true), &cases);
    }

    #[test]
    fn a_tag_is_as_good_as_the_revision() {
        let cases = [
            (Some("prod"), Some(None), true),
            (None, Some(Some("prod")), true),
            (Some("canary"), Some(None), true),
            (Some("test"), Some(Some("prod")), false),
        ];
        judged(&canary(&["prod"], false), &cases);
    }

    #[test]
    fn without_a_label_the_default_owns_it() {
        // An empty label of the object is one: its namespace is not asked.
        let unlabelled = |ours| {
            [
                (None, Some(None), ours),
                (None, Some(Some("")), ours),
                (Some(""), Some(Some("stable")), ours),
                (Some(""), Some(Some("canary")), ours),
            ]
        };
        judged(&canary(&[], false), &unlabelled(false));
        judged(&canary(&[], true), &unlabelled(true));
    }

    #[test]
    fn in_an_unknown_namespace_what_says_nothing_is_ours() {
        let cases = [(None, None, true), (Some("stable"), None, false)];
        judged(&canary(&[], false), &cases);
    }

    #[test]
    fn alone_everything_is_ours() {
        let cases = [
            (Some("stable"), Some(Some("other")), true),
            (None, Some(None), true),
        ];
        judged(&Revisions::All, &cases);
    }

    #[test]
    fn the_revision_is_no_tag_of_itself() {
        let revisions = canary(&["prod", "canary"], false);
        assert!(revisions.has_tag("prod"));
        assert!(!revisions.has_tag("canary"));
        assert!(!revisions.has_tag("other"));
        assert!(!Revisions::All.has_tag("prod"));
    }
}
