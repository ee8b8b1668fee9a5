//! WasmPlugin, TrafficExtension and ProxyConfig. Source: spec/policy-and-traffic.md §5, §9.3.

use std::collections::BTreeSet;

use super::Verdict;
use super::common::{attachment, port, selector};
use super::read::At;

const LUA_BYTES_MAX: usize = 65_536;
const SECRET_CHARS_MAX: usize = 253;
const NAME_CHARS_MAX: usize = 256;
const ENVIRONMENT_COUNT_MAX: usize = 256;
const VALUE_CHARS_MAX: usize = 2_048;

pub(super) fn wasm_plugin(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    attachment(verdict, spec);
    wasm(verdict, spec);
    ports(verdict, spec);
}

pub(super) fn traffic_extension(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    attachment(verdict, spec);
    ports(verdict, spec);
    let (module, script) = (spec.get("wasm"), spec.get("lua"));
    if module.is_some() == script.is_some() {
        let message = "exactly one of wasm and lua is required";
        verdict.reject(spec.path(), message);
    }
    if let Some(module) = module {
        wasm(verdict, &module);
    }
    if let Some(script) = script {
        let code = script.text("inlineCode").len();
        if code == 0 || code > LUA_BYTES_MAX {
            let message = format!("a script has from 1 to {LUA_BYTES_MAX} bytes");
            verdict.reject(script.field("inlineCode"), message);
        }
    }
}

fn ports(verdict: &mut Verdict, at: &At<'_>) {
    for one in at.items("match") {
        for number in one.items("ports") {
            port(verdict, &number, "number");
        }
    }
}

fn wasm(verdict: &mut Verdict, at: &At<'_>) {
    let url = at.text("url");
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if url.is_empty() {
        verdict.reject(at.field("url"), "a url is required");
    } else if !matches!(scheme, None | Some("" | "file" | "http" | "https" | "oci")) {
        let message = "its scheme is none of file, http, https and oci";
        verdict.reject(at.field("url"), message);
    }
    let hash = at.text("sha256");
    let is_hex = |c: u8| c.is_ascii_digit() || matches!(c, b'a'..=b'f');
    let is_hash = hash.len() == 64 && hash.bytes().all(is_hex);
    if !(hash.is_empty() || is_hash) {
        verdict.reject(at.field("sha256"), "not 64 lower-case hexadecimal digits");
    }
    longest(verdict, at, "imagePullSecret", SECRET_CHARS_MAX);
    longest(verdict, at, "pluginName", NAME_CHARS_MAX);
    let environment = at.get("vmConfig").map(|vm| vm.items("env"));
    let environment = environment.unwrap_or_default();
    if environment.len() > ENVIRONMENT_COUNT_MAX {
        let message = format!("more than {ENVIRONMENT_COUNT_MAX} items");
        verdict.reject(at.field("vmConfig.env"), message);
    }
    let mut names = BTreeSet::new();
    for one in environment {
        let name = one.text("name");
        if name.is_empty() {
            verdict.reject(one.field("name"), "a name is required");
        } else if !names.insert(name) {
            verdict.reject(one.field("name"), "an earlier variable has this name");
        }
        longest(verdict, &one, "name", NAME_CHARS_MAX);
        longest(verdict, &one, "value", VALUE_CHARS_MAX);
        match one.text("valueFrom") {
            "HOST" if !one.text("value").is_empty() => {
                verdict.reject(one.field("value"), "HOST takes the value of the proxy");
            }
            "" | "INLINE" | "HOST" => {}
            _ => verdict.reject(one.field("valueFrom"), "neither INLINE nor HOST"),
        }
    }
}

fn longest(verdict: &mut Verdict, at: &At<'_>, name: &str, chars_max: usize) {
    if at.text(name).chars().count() > chars_max {
        verdict.reject(
            at.field(name),
            format!("longer than {chars_max} characters"),
        );
    }
}

pub(super) fn proxy_config(verdict: &mut Verdict, _: &At<'_>, spec: &At<'_>) {
    if let Some(labels) = spec.get("selector") {
        selector(verdict, &labels, "matchLabels");
    }
    if spec.integer("concurrency").is_some_and(|number| number < 0) {
        verdict.reject(spec.field("concurrency"), "less than 0");
    }
    for (_, value) in spec.entries("environmentVariables") {
        if value.as_text().chars().count() > VALUE_CHARS_MAX {
            let message = format!("longer than {VALUE_CHARS_MAX} characters");
            verdict.reject(value.path(), message);
        }
    }
}
