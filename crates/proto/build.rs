//! Compiles our own `.proto` files without a protoc binary.
#![allow(
    clippy::disallowed_methods,
    reason = "a build script reads its environment and writes files"
)]

use std::{error::Error, path::PathBuf};

use prost::Message;

/// Everything under `proto/` except what refers to Envoy's own matcher types;
/// that part is resolved by `cargo xtask gen`.
const FILES: &[&str] = &[
    "istio/workload/workload.proto",
    "istio/security/authorization.proto",
    "istio/v1/auth/ca.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/secret/v3/sds.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.display());

    let set = protox::compile(FILES, [&root])?;
    std::fs::write(out.join("own.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".istio.workload.Workload.addresses")
        .bytes(".istio.workload.NetworkAddress.address")
        .bytes(".istio.security.Address.address")
        .compile_fds(set)?;
    Ok(())
}
