//! Which revision is whose. Source: spec/gateway-api.md §2.2.

use std::sync::Arc;

use flow::{Derived, Dirty, Reads, Table, Touched};
use model::input::{Gateway, Namespace, Service, WebhookConfiguration};
use model::ownership::{MyTags, Revisions};
use model::parse::{Recognised, recognise};
use model::{Finding, Labels, Meta, Object, ObjectKey, Parsed, Str};
use serde_json::{Value, json};

use crate::mesh::MeshDefaults;
use crate::ownership::gateway::{self, ForeignGatewayView};
use crate::ownership::{self, OwnershipView, TagServices, TagsByRevision};
use crate::tables::InputTable;

fn object(value: &Value) -> Object {
    match recognise(value, "test") {
        Recognised::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

/// `tag=revision`; either may be missing.
fn labels(pair: &str) -> Value {
    let (tag, revision) = pair.split_once('=').unwrap();
    let mut out = json!({});
    for (key, value) in [("istio.io/tag", tag), ("istio.io/rev", revision)] {
        if !value.is_empty() {
            out[key] = json!(value);
        }
    }
    out
}

/// Inputs of the stage.
struct Inputs {
    defaults: MeshDefaults,
    mutating: InputTable<WebhookConfiguration>,
    validating: InputTable<WebhookConfiguration>,
    services: InputTable<Service>,
}

impl Inputs {
    fn new(revision: &str) -> Self {
        Self {
            defaults: MeshDefaults {
                revision: revision.into(),
                system_namespace: "system".into(),
                is_alone: false,
                ..MeshDefaults::default()
            },
            mutating: Table::new("mutating").with_index::<TagsByRevision>(),
            validating: Table::new("validating"),
            services: Table::new("services").with_index::<TagServices>(),
        }
    }

    /// `name tag=revision`, or `service ns tag=revision`.
    fn put(&mut self, text: &str) -> Touched {
        let words: Vec<&str> = text.split(' ').collect();
        let mut touched = Touched::new();
        if let ["service", ns, pair] = words.as_slice() {
            let document = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "s", "namespace": ns, "labels": labels(pair)},
                "spec": {"ports": [{"port": 80}]},
            });
            let Object::Service(row) = object(&document) else {
                panic!("{document}")
            };
            touched.add(&self.services.commit([(row.key().clone(), Some(row))]));
            return touched;
        }
        let [name, pair] = words.as_slice() else {
            panic!("{text}")
        };
        let kind = match *name {
            "istiod-default-validator" => "ValidatingWebhookConfiguration",
            _ => "MutatingWebhookConfiguration",
        };
        let document = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "labels": labels(pair)},
        });
        touched.add(&match object(&document) {
            Object::MutatingWebhookConfiguration(row) => {
                self.mutating.commit([(row.key().clone(), Some(row))])
            }
            Object::ValidatingWebhookConfiguration(row) => {
                self.validating.commit([(row.key().clone(), Some(row))])
            }
            other => panic!("{other:?}"),
        });
        touched
    }

    fn view(&self) -> OwnershipView<'_> {
        OwnershipView {
            defaults: &self.defaults,
            mutating_webhooks: self.mutating.view(),
            validating_webhooks: self.validating.view(),
            services: self.services.view(),
        }
    }

    fn revisions(&self) -> Revisions {
        let output = ownership::derive(&(), &self.view(), &mut Reads::detached());
        let mut rows = output.rows.into_iter();
        rows.next().unwrap().1
    }
}

fn mine(revision: &str, tags: &[&str], is_default: bool) -> Revisions {
    Revisions::Of(MyTags {
        revision: revision.into(),
        tags: tags.iter().copied().map(Str::from).collect(),
        is_default,
    })
}

#[test]
fn tags_and_the_default_follow_the_labels_of_webhooks_and_services() {
    let validator = |revision: &str| format!("istiod-default-validator ={revision}");
    let default = |revision: &str| format!("istio-revision-tag-default default={revision}");
    let of = |text: &str| vec![text.to_owned()];
    // Revision, objects, tags, whether it is the default one.
    let cases: Vec<(&str, Vec<String>, Revisions)> = vec![
        ("", vec![], mine("default", &[], true)),
        ("default", vec![], mine("default", &[], true)),
        ("canary", vec![], mine("canary", &[], false)),
        (
            "canary",
            of("w prod=canary"),
            mine("canary", &["prod"], false),
        ),
        ("canary", of("w prod=stable"), mine("canary", &[], false)),
        ("canary", of("w =canary"), mine("canary", &[], false)),
        ("canary", of("w canary=canary"), mine("canary", &[], false)),
        ("", of("w prod=default"), mine("default", &["prod"], true)),
        (
            "canary",
            of("service system prod=canary"),
            mine("canary", &["prod"], false),
        ),
        (
            "canary",
            of("service other prod=canary"),
            mine("canary", &[], false),
        ),
        (
            "canary",
            of(&default("canary")),
            mine("canary", &["default"], true),
        ),
        ("canary", of(&default("stable")), mine("canary", &[], false)),
        (
            "canary",
            of("service system default=canary"),
            mine("canary", &["default"], true),
        ),
        (
            "canary",
            of(&validator("canary")),
            mine("canary", &[], true),
        ),
        (
            "canary",
            of(&validator("stable")),
            mine("canary", &[], false),
        ),
        (
            "canary",
            vec![validator("canary"), default("stable")],
            mine("canary", &[], false),
        ),
        (
            "canary",
            vec![validator("stable"), default("canary")],
            mine("canary", &["default"], true),
        ),
        // A revision of that name keeps it, whatever a tag of the same name says.
        (
            "default",
            of(&default("stable")),
            mine("default", &[], true),
        ),
    ];
    for (revision, objects, wanted) in cases {
        let mut inputs = Inputs::new(revision);
        for text in &objects {
            inputs.put(text);
        }
        assert_eq!(inputs.revisions(), wanted, "{revision:?} with {objects:?}");
    }
}

#[test]
fn a_default_that_is_tagged_elsewhere_is_told_by_who_is_called_default() {
    let cases = [
        ("default", "default=stable", 1),
        ("", "default=stable", 1),
        ("default", "default=default", 0),
        ("canary", "default=stable", 0),
    ];
    for (revision, tag, wanted) in cases {
        let mut inputs = Inputs::new(revision);
        inputs.put(&format!("istio-revision-tag-default {tag}"));
        let output = ownership::derive(&(), &inputs.view(), &mut Reads::detached());
        assert_eq!(output.notes.len(), wanted, "{revision:?} with {tag}");
    }
}

#[test]
fn alone_and_without_a_revision_everything_is_ours() {
    let mut inputs = Inputs::new("");
    inputs.put("istio-revision-tag-default default=stable");
    inputs.defaults.is_alone = true;
    assert_eq!(inputs.revisions(), Revisions::All);
    inputs.defaults.revision = "canary".into();
    assert_eq!(inputs.revisions(), mine("canary", &[], false));
}

#[test]
fn only_tags_of_this_revision_touch_the_row() {
    let mut inputs = Inputs::new("canary");
    let mut stage: Derived<(), (), Revisions, Finding> = Derived::new("ownership");
    {
        let view = inputs.view();
        let first: Dirty<()> = std::iter::once(()).collect();
        stage.update(first, |p, reads| ownership::derive(p, &view, reads));
    }
    let mut dirties = |text: &str| {
        let touched = inputs.put(text);
        let mut dirty = Dirty::default();
        stage.touched_by(&mut dirty, &touched);
        dirty.len()
    };
    assert_eq!(dirties("w prod=stable"), 0);
    assert_eq!(dirties("service system prod=stable"), 0);
    assert_eq!(dirties("service other prod=canary"), 0);
    assert_eq!(dirties("service system ="), 0);
    assert_eq!(dirties("w prod=canary"), 1);
    assert_eq!(dirties("service system prod=canary"), 1);
    // It matters only once the validator names this revision.
    assert_eq!(dirties("istio-revision-tag-default default=stable"), 0);
    assert_eq!(dirties("istiod-default-validator =canary"), 1);
}

#[test]
fn a_gateway_of_another_revision_has_a_row() {
    let mut revisions: Table<(), Revisions> = Table::new("revisions");
    revisions.commit([((), Some(Arc::new(mine("canary", &[], false))))]);
    let mut gateways: InputTable<Gateway> = Table::new("gateways");
    let mut add = |name: &str, revision: &str| {
        let row = Parsed {
            meta: Meta {
                key: ObjectKey::new("a", name),
                labels: Labels::from([("istio.io/rev".into(), revision.into())]),
                ..Meta::default()
            },
            body: Ok(Gateway::default()),
            notes: Vec::new(),
        };
        gateways.commit([(row.key().clone(), Some(Arc::new(row)))]);
    };
    add("ours", "canary");
    add("theirs", "stable");
    let namespaces: InputTable<Namespace> = Table::new("namespaces");
    let waypoints = Table::new("waypoints");
    let view = ForeignGatewayView {
        revisions: revisions.view(),
        gateways: gateways.view(),
        namespaces: namespaces.view(),
        waypoints: waypoints.view(),
    };
    for (name, has_row) in [("ours", false), ("theirs", true), ("gone", false)] {
        let key = ObjectKey::new("a", name);
        let output = gateway::derive(&key, &view, &mut Reads::detached());
        assert_eq!(output.rows.len(), usize::from(has_row), "{name}");
        // Nothing is said where the class is not known to be ours.
        assert_eq!(output.notes, [], "{name}");
    }
}
