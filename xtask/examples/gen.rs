//! Writes `crates/proto/descriptors/envoy.bin`: the descriptors of the Envoy
//! messages we emit, pruned from the full set that `envoy-types` packages but does
//! not export, plus `xds.type.matcher.v3.IPMatcher`, which that set lacks.
//!
//! An example of `xtask`, so that the other commands need not wait for protobuf to build.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldOptions, FileDescriptorProto, FileDescriptorSet,
    MessageOptions,
};
use proto::descriptor::ENVOY_ROOTS;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, IncludeFileResolver};

/// The file that the packaged descriptors lack, relative to `proto/`.
const IP_MATCHER: &str = "xds/type/matcher/v3/ip.proto";
/// The output, relative to the workspace.
const OUTPUT: &str = "crates/proto/descriptors/envoy.bin";

/// Regenerates the descriptors.
///
/// # Errors
/// When `envoy-types` cannot be found, a root is missing from its descriptors, or
/// the result does not form a valid pool.
fn main() -> Result<()> {
    let (workspace, source) = locate()?;
    let bytes = std::fs::read(&source).with_context(|| source.display().to_string())?;
    let mut set = FileDescriptorSet::decode(bytes.as_slice()).context("types.bin")?;
    set.file.push(ip_matcher(&workspace.join("proto"), &set)?);

    let pruned = prune(set, ENVOY_ROOTS)?;
    prost_reflect::DescriptorPool::from_file_descriptor_set(pruned.clone())
        .context("the pruned descriptors do not form a pool")?;
    let out = workspace.join(OUTPUT);
    let encoded = pruned.encode_to_vec();
    std::fs::write(&out, &encoded).with_context(|| out.display().to_string())?;
    println!(
        "{OUTPUT}: {} files, {} bytes",
        pruned.file.len(),
        encoded.len()
    );
    Ok(())
}

/// The workspace root and the packaged descriptors of `envoy-types`.
fn locate() -> Result<(PathBuf, PathBuf)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let workspace = metadata
        .get("workspace_root")
        .and_then(|root| root.as_str());
    let manifest = metadata
        .get("packages")
        .and_then(|packages| packages.as_array())
        .into_iter()
        .flatten()
        .find(|package| {
            package
                .get("name")
                .is_some_and(|name| name == "envoy-types")
        })
        .and_then(|package| package.get("manifest_path")?.as_str())
        .context("envoy-types is not a dependency")?;
    let package = Path::new(manifest)
        .parent()
        .context("manifest without a folder")?;
    Ok((
        workspace.context("no workspace root")?.into(),
        package.join("src/generated/types.bin"),
    ))
}

/// Compiles our own file against the packaged ones.
fn ip_matcher(proto: &Path, known: &FileDescriptorSet) -> Result<FileDescriptorProto> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(DescriptorSetFileResolver::new(known.clone()));
    resolver.add(IncludeFileResolver::new(proto.to_owned()));
    protox::Compiler::with_file_resolver(resolver)
        .include_imports(false)
        .open_file(IP_MATCHER)?
        .file_descriptor_set()
        .file
        .pop()
        .context("no descriptor for the address matcher")
}

/// Keeps only the roots and the messages and enums they refer to.
fn prune(set: FileDescriptorSet, roots: &[&str]) -> Result<FileDescriptorSet> {
    let graph = Graph::of(&set);
    let missing: Vec<_> = roots
        .iter()
        .filter(|root| !graph.refs.contains_key(**root))
        .collect();
    if !missing.is_empty() {
        bail!("no descriptors for {missing:?}");
    }
    let keep = graph.reach(roots);
    let file = set
        .file
        .into_iter()
        .filter_map(|file| prune_file(file, &keep, &graph.files))
        .collect();
    Ok(FileDescriptorSet { file })
}

/// Who refers to whom; names are full names without the leading dot.
#[derive(Default)]
struct Graph {
    refs: BTreeMap<String, Vec<String>>,
    files: BTreeMap<String, String>,
}

impl Graph {
    fn of(set: &FileDescriptorSet) -> Self {
        let mut graph = Self::default();
        for file in &set.file {
            for message in &file.message_type {
                graph.add(file.name(), file.package(), message);
            }
            for item in &file.enum_type {
                graph.put(file.name(), join(file.package(), item.name()), Vec::new());
            }
        }
        graph
    }

    fn put(&mut self, file: &str, name: String, refs: Vec<String>) {
        self.files.insert(name.clone(), file.to_owned());
        self.refs.insert(name, refs);
    }

    fn add(&mut self, file: &str, scope: &str, message: &DescriptorProto) {
        let name = join(scope, message.name());
        let mut refs: Vec<String> = message
            .field
            .iter()
            .filter_map(|field| field.type_name.as_deref())
            .map(|name| name.trim_start_matches('.').to_owned())
            .collect();
        // A nested message lives inside its parent, so that it keeps it alive.
        if self.files.contains_key(scope) {
            refs.push(scope.to_owned());
        }
        self.put(file, name.clone(), refs);
        for nested in &message.nested_type {
            self.add(file, &name, nested);
        }
        for item in &message.enum_type {
            self.put(file, join(&name, item.name()), vec![name.clone()]);
        }
    }

    fn reach(&self, roots: &[&str]) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        while let Some(name) = open.pop() {
            if seen.insert(name.clone()) {
                open.extend(self.refs.get(&name).into_iter().flatten().cloned());
            }
        }
        seen
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

/// The file with what is kept of it, or nothing.
fn prune_file(
    mut file: FileDescriptorProto,
    keep: &BTreeSet<String>,
    files: &BTreeMap<String, String>,
) -> Option<FileDescriptorProto> {
    let package = file.package().to_owned();
    let mut used = BTreeSet::new();
    file.message_type
        .retain(|message| keep.contains(&join(&package, message.name())));
    for message in &mut file.message_type {
        prune_message(message, &join(&package, message.name()), keep, &mut used);
    }
    prune_enums(&mut file.enum_type, &package, keep);
    if file.message_type.is_empty() && file.enum_type.is_empty() {
        return None;
    }
    let own = file.name().to_owned();
    let needed: BTreeSet<&String> = used
        .iter()
        .filter_map(|name| files.get(name))
        .filter(|file| **file != own)
        .collect();
    Some(FileDescriptorProto {
        dependency: needed.into_iter().cloned().collect(),
        message_type: file.message_type,
        enum_type: file.enum_type,
        name: file.name,
        package: file.package,
        syntax: file.syntax,
        ..FileDescriptorProto::default()
    })
}

/// Drops what is not kept inside a message and every option that does not change
/// the encoding; collects the types its fields use.
fn prune_message(
    message: &mut DescriptorProto,
    name: &str,
    keep: &BTreeSet<String>,
    used: &mut BTreeSet<String>,
) {
    message
        .nested_type
        .retain(|nested| keep.contains(&join(name, nested.name())));
    for nested in &mut message.nested_type {
        prune_message(nested, &join(name, nested.name()), keep, used);
    }
    prune_enums(&mut message.enum_type, name, keep);
    for field in &mut message.field {
        used.extend(
            field
                .type_name
                .as_deref()
                .map(|it| it.trim_start_matches('.').to_owned()),
        );
        let packed = field.options.as_ref().and_then(|options| options.packed);
        field.options = packed.map(|_| FieldOptions {
            packed,
            ..FieldOptions::default()
        });
        if field.json_name.as_deref() == Some(&json_name(field.name())) {
            field.json_name = None;
        }
    }
    for oneof in &mut message.oneof_decl {
        oneof.options = None;
    }
    let map_entry = message
        .options
        .as_ref()
        .and_then(|options| options.map_entry);
    message.options = map_entry.map(|_| MessageOptions {
        map_entry,
        ..MessageOptions::default()
    });
    message.extension.clear();
    message.reserved_name.clear();
    message.reserved_range.clear();
}

fn prune_enums(enums: &mut Vec<EnumDescriptorProto>, scope: &str, keep: &BTreeSet<String>) {
    enums.retain(|item| keep.contains(&join(scope, item.name())));
    for item in enums {
        for value in &mut item.value {
            value.options = None;
        }
        let alias = item
            .options
            .as_ref()
            .and_then(|options| options.allow_alias);
        item.options = alias.map(|allow_alias| prost_types::EnumOptions {
            allow_alias: Some(allow_alias),
            ..prost_types::EnumOptions::default()
        });
        item.reserved_name.clear();
        item.reserved_range.clear();
    }
}

/// The JSON name that readers derive when a field states none.
fn json_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match (letter, upper) {
            ('_', _) => upper = true,
            (letter, true) => {
                out.push(letter.to_ascii_uppercase());
                upper = false;
            }
            (letter, false) => out.push(letter),
        }
    }
    out
}
