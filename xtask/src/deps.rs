//! `check-deps`: the arrows between our crates, and the purity of the pure ones.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::workspace::{self, Kind, Package};

/// Which of our crates each may use. A new entry is a reviewed change of its own.
///
/// It binds the crate and its build script; tests may use any crate, for they
/// stand outside the layering.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("flow", &[]),
    ("model", &["proto"]),
    ("snapshot", &["model", "proto"]),
    ("ambient", &["flow", "model", "proto"]),
    ("gateway", &["ambient", "flow", "model"]),
    ("envoy", &["flow", "gateway", "model", "proto"]),
    (
        "pipeline",
        &[
            "ambient", "envoy", "flow", "gateway", "model", "proto", "snapshot",
        ],
    ),
    ("authn", &["model"]),
    ("ca", &["authn", "model", "proto"]),
    ("agent", &["envoy", "model", "proto"]),
    ("source", &["model"]),
    ("jwks", &["model"]),
    ("kube-io", &["authn", "ca", "model", "snapshot"]),
    ("xds", &["authn", "ca", "model", "proto", "snapshot"]),
    (
        "ambientd",
        &[
            "agent", "ambient", "authn", "ca", "envoy", "flow", "gateway", "jwks", "kube-io",
            "model", "pipeline", "proto", "snapshot", "source", "xds",
        ],
    ),
    (
        "testkit",
        &[
            "agent", "ambient", "ambientd", "authn", "ca", "envoy", "flow", "gateway", "jwks",
            "kube-io", "model", "pipeline", "proto", "snapshot", "source", "xds",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that do no I/O and read no clock or environment.
const PURE: &[&str] = &[
    "ambient", "envoy", "flow", "gateway", "model", "pipeline", "proto", "snapshot",
];

/// What a pure crate must not name, nor anything that starts with it and `-`.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "getrandom",
    "h2",
    "hyper",
    "kube",
    "mio",
    "notify",
    "prometheus",
    "rand",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "tonic",
    "tower",
    "tracing-subscriber",
];

/// The stubs that are generated in `proto` name tonic's types; nothing there runs.
const IMPURE_ALLOWED: &[(&str, &str)] = &[("proto", "tonic"), ("proto", "tonic-prost")];

/// Packages that one crate alone may name, in its tests too.
const OWNED: &[(&str, &str)] = &[("envoy-types", "envoy")];

/// Checks the workspace.
///
/// # Errors
/// Names every violation.
pub(crate) fn run() -> Result<()> {
    let packages = workspace::packages()?;
    let violations = violations(&packages);
    if !violations.is_empty() {
        bail!(
            "{}\nThe rules are the tables in xtask/src/deps.rs.",
            violations.join("\n")
        );
    }
    println!("check-deps: {} crates keep to the arrows", packages.len());
    Ok(())
}

/// Every breach of the tables, sorted.
fn violations(packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|p| short(&p.name)).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut found = Vec::new();
    for name in arrows.keys().filter(|name| !ours.contains(**name)) {
        found.push(format!("{name}: in the table, but not in the workspace"));
    }
    for package in packages {
        let name = short(&package.name);
        let Some(allowed) = arrows.get(name) else {
            found.push(format!("{name}: in the workspace, but not in the table"));
            continue;
        };
        for dependency in &package.dependencies {
            let target = short(&dependency.name);
            let reason = if ours.contains(target) {
                (dependency.kind != Kind::Dev && !allowed.contains(&target))
                    .then(|| "this arrow is not allowed".to_owned())
            } else {
                outside(name, target, dependency.kind)
            };
            if let Some(reason) = reason {
                found.push(format!("{name} -> {target}: {reason}"));
            }
        }
    }
    found.extend(impure_arrows(&arrows));
    found.sort();
    found.dedup();
    found
}

/// Why `name` may not use the foreign package `target`, if it may not.
fn outside(name: &str, target: &str, kind: Kind) -> Option<String> {
    if let Some((_, owner)) = OWNED.iter().find(|(owned, _)| *owned == target)
        && *owner != name
    {
        return Some(format!("only crate `{owner}` may name it"));
    }
    let impure = IMPURE.iter().any(|impure| {
        target
            .strip_prefix(impure)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    let banned = kind == Kind::Normal
        && PURE.contains(&name)
        && impure
        && !IMPURE_ALLOWED.contains(&(name, target));
    banned.then(|| "a pure crate does no I/O".to_owned())
}

/// Allowed arrows from a pure crate to one that is not: with none of them, what
/// a pure crate reaches through our crates is pure as well.
fn impure_arrows(arrows: &BTreeMap<&str, &[&str]>) -> Vec<String> {
    PURE.iter()
        .flat_map(|name| {
            let targets = arrows.get(name).copied().unwrap_or_default();
            targets.iter().map(move |target| (name, target))
        })
        .filter(|(_, target)| !PURE.contains(target))
        .map(|(name, target)| format!("{name} -> {target}: pure crates may use only pure crates"))
        .collect()
}

/// The name by which crates here call each other.
fn short(package: &str) -> &str {
    package.strip_prefix("ambientd-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Kind)]) -> Package {
        let full = match name {
            "ambientd" | "xtask" => name.to_owned(),
            _ => format!("ambientd-{name}"),
        };
        Package {
            name: full,
            directory: "/".into(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: *kind,
                })
                .collect(),
            roots: Vec::new(),
        }
    }

    /// The whole workspace, where only `name` has dependencies.
    fn with(name: &str, dependencies: &[(&str, Kind)]) -> Vec<Package> {
        ARROWS
            .iter()
            .map(|(other, _)| package(other, if *other == name { dependencies } else { &[] }))
            .collect()
    }

    #[test]
    fn each_breach_is_named_and_each_lawful_edge_is_not() {
        type Case<'c> = (&'c str, (&'c str, Kind), &'c [&'c str]);
        let cases: &[Case<'_>] = &[
            ("xds", ("ambientd-snapshot", Kind::Normal), &[]),
            (
                "model",
                ("ambientd-flow", Kind::Normal),
                &["model -> flow: this arrow is not allowed"],
            ),
            (
                "model",
                ("ambientd-flow", Kind::Build),
                &["model -> flow: this arrow is not allowed"],
            ),
            (
                "ambientd",
                ("ambientd-testkit", Kind::Normal),
                &["ambientd -> testkit: this arrow is not allowed"],
            ),
            ("ambientd", ("ambientd-testkit", Kind::Dev), &[]),
            (
                "flow",
                ("tokio-util", Kind::Normal),
                &["flow -> tokio-util: a pure crate does no I/O"],
            ),
            ("flow", ("tokio", Kind::Dev), &[]),
            ("xds", ("tokio", Kind::Normal), &[]),
            ("proto", ("tonic", Kind::Normal), &[]),
            (
                "envoy",
                ("tonic", Kind::Normal),
                &["envoy -> tonic: a pure crate does no I/O"],
            ),
            ("model", ("kubernetes-names", Kind::Normal), &[]),
            ("envoy", ("envoy-types", Kind::Normal), &[]),
            (
                "testkit",
                ("envoy-types", Kind::Dev),
                &["testkit -> envoy-types: only crate `envoy` may name it"],
            ),
        ];
        for (name, dependency, expected) in cases {
            assert_eq!(
                violations(&with(name, &[*dependency])),
                *expected,
                "{name} -> {dependency:?}"
            );
        }
    }

    #[test]
    fn table_and_workspace_must_name_the_same_crates() {
        let mut packages = with("", &[]);
        packages.retain(|package| short(&package.name) != "ca");
        packages.push(package("extra", &[]));
        assert_eq!(
            violations(&packages),
            [
                "ca: in the table, but not in the workspace",
                "extra: in the workspace, but not in the table",
            ]
        );
    }

    #[test]
    fn an_arrow_from_a_pure_crate_to_another_kind_is_found_in_the_table_itself() {
        let arrows: BTreeMap<&str, &[&str]> = [("model", ["source"].as_slice())].into();
        assert_eq!(
            impure_arrows(&arrows),
            ["model -> source: pure crates may use only pure crates"]
        );
    }
}
