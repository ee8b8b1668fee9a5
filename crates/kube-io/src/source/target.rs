//! What is watched: a kind in the version that is served.

use kube::core::ApiResource;
use model::finding::{Finding, ObjectRef, Severity};
use model::{Kind, ObjectKey, Str};

use crate::kinds;

use super::catalogue::Catalogue;
use super::failure::clip;

/// Which versions will do.
enum Versions {
    /// Always served, in this version.
    BuiltIn(&'static str),
    /// The first of these that is served.
    Preferred(&'static [&'static str]),
    /// Any.
    Any,
}

/// What a watch is of.
pub(super) struct Target {
    /// Of health, when it is of a kind that is read.
    pub(super) input: Option<Kind>,
    /// In findings; unlike the kind it is never the same for two watches.
    pub(super) label: Str,
    /// In the log and in metrics.
    pub(super) kind: &'static str,
    group: &'static str,
    versions: Versions,
    pub(super) namespace: Option<String>,
    pub(super) fields: Option<String>,
    pub(super) labels: Option<&'static str>,
    pub(super) metadata_only: bool,
}

/// Whether and how a kind is served.
#[derive(Debug, PartialEq)]
pub(super) enum Served {
    Unknown,
    No,
    /// Only in versions that are not known, which are named here.
    Otherwise(String),
    /// By a definition of this release, which is too old; empty where it says none.
    Outdated(Str),
    As(ApiResource),
}

// === impl Target ===

impl Target {
    pub(super) fn input(kind: Kind) -> Self {
        let versions = match kind.group() {
            group if kinds::is_built_in(group) => Versions::BuiltIn("v1"),
            _ => Versions::Preferred(model::parse::versions(kind)),
        };
        Self {
            input: Some(kind),
            label: label(kind.group(), kind.as_str()),
            kind: kind.as_str(),
            group: kind.group(),
            versions,
            namespace: None,
            fields: kinds::field_selector(kind).map(str::to_owned),
            labels: kinds::label_selector(kind),
            metadata_only: kinds::is_metadata_only(kind),
        }
    }

    pub(super) fn unsupported(group: &'static str, kind: &'static str) -> Self {
        Self {
            input: None,
            label: label(group, kind),
            kind,
            group,
            versions: Versions::Any,
            namespace: None,
            fields: None,
            labels: None,
            metadata_only: !kinds::has_status_unsupported(group, kind),
        }
    }

    pub(super) fn definitions() -> Self {
        Self {
            input: None,
            label: label("apiextensions.k8s.io", "CustomResourceDefinition"),
            kind: "CustomResourceDefinition",
            group: "apiextensions.k8s.io",
            versions: Versions::BuiltIn("v1"),
            namespace: None,
            fields: None,
            labels: None,
            metadata_only: true,
        }
    }

    /// ConfigMaps of mesh config: one, or all of a namespace.
    pub(super) fn mesh(namespace: &str, name: Option<&str>) -> Self {
        Self {
            input: Some(Kind::MeshConfig),
            label: Str::from("MeshConfig"),
            kind: "ConfigMap",
            group: "",
            versions: Versions::BuiltIn("v1"),
            namespace: Some(namespace.to_owned()),
            fields: name.map(|name| format!("metadata.name={name}")),
            labels: None,
            metadata_only: false,
        }
    }

    pub(super) fn served(&self, catalogue: &Catalogue) -> Served {
        let versions = match self.versions {
            Versions::BuiltIn(version) => return Served::As(self.built_in(version)),
            Versions::Preferred(versions) => Some(versions),
            Versions::Any => None,
        };
        let Some(resources) = catalogue.get(self.group) else {
            return Served::Unknown;
        };
        let here = resources.iter().filter(|one| one.api.kind == self.kind);
        if let Some(release) = here.clone().find_map(|one| one.outdated.clone()) {
            return Served::Outdated(release);
        }
        let here: Vec<_> = here.map(|one| &one.api).collect();
        let Some(first) = here.first() else {
            return Served::No;
        };
        let Some(versions) = versions else {
            return Served::As((*first).clone());
        };
        let of = |version: &&str| here.iter().find(|api| api.version == **version);
        if let Some(api) = versions.iter().find_map(of) {
            return Served::As((*api).clone());
        }
        let names: Vec<&str> = here.iter().map(|api| api.version.as_str()).collect();
        Served::Otherwise(clip(&names.join(", ")))
    }

    fn built_in(&self, version: &str) -> ApiResource {
        let api_version = if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        };
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: kinds::plural(self.kind),
        }
    }

    /// The API server refuses something.
    pub(super) fn forbidden(&self, verb: &str, severity: Severity, effect: &str) -> Finding {
        let (group, plural) = (self.group, kinds::plural(self.kind));
        let message = arcstr::format!("The API server refuses to {verb} {plural}: {effect}");
        let fix = arcstr::format!(
            "Add to the ClusterRole of ambientd: apiGroups [\"{group}\"], resources [{plural}], \
             verbs [get, list, watch]"
        );
        Finding::new("kube-forbidden", severity, self.reference(), message, fix)
    }

    /// It is served in other versions only.
    pub(super) fn version_unknown(
        &self,
        served: &str,
        severity: Severity,
        effect: &str,
    ) -> Finding {
        let (group, plural) = (self.group, kinds::plural(self.kind));
        let known = match self.versions {
            Versions::Preferred(versions) => versions.join(", "),
            Versions::BuiltIn(version) => version.to_owned(),
            Versions::Any => "any".to_owned(),
        };
        let message = arcstr::format!(
            "The API server serves {plural} as {served} only, which ambientd does not read: {effect}"
        );
        let fix = arcstr::format!(
            "Serve one of the versions {known} in the definition {plural}.{group}, or upgrade ambientd"
        );
        Finding::new(
            "kube-version-unknown",
            severity,
            self.reference(),
            message,
            fix,
        )
    }

    /// It is served by a definition that is too old.
    pub(super) fn outdated(&self, release: &str) -> Finding {
        let (group, plural) = (self.group, kinds::plural(self.kind));
        let first = self.input.and_then(kinds::first_release);
        let first = first.map_or_else(String::new, |first| first.to_string());
        let release = match release {
            "" => "names no release of the Gateway API".to_owned(),
            release => format!("is of release {release} of the Gateway API"),
        };
        let message = arcstr::format!(
            "The definition {plural}.{group} {release}, and is read from {first} on: no object of \
             the kind has any effect"
        );
        let fix = arcstr::format!(
            "Install the definitions of release {first} of the Gateway API, or a later one"
        );
        let (code, severity) = ("kube-definition-outdated", Severity::Warning);
        Finding::new(code, severity, self.reference(), message, fix)
    }

    fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: Str::from(self.input.map_or(self.kind, Kind::as_str)),
            key: ObjectKey::cluster("*"),
        }
    }
}

fn label(group: &str, kind: &str) -> Str {
    arcstr::format!("{group}/{kind}")
}
