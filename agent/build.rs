//! What is made before the agent is compiled: one function for each thing.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    admin_proto()?;
    Ok(())
}

/// `proto/admin.proto` → `derny.admin.v1.rs`, client and server. protox reads it, so that no `protoc` is needed.
fn admin_proto() -> anyhow::Result<()> {
    const PROTO: &str = "proto/admin.proto";
    println!("cargo::rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"]).with_context(|| format!("reading {PROTO}"))?;
    tonic_prost_build::configure()
        // For `-o json`. An enum goes out by its name and not by its number.
        .message_attribute(
            ".",
            "#[derive(serde::Serialize)] #[serde(rename_all = \"camelCase\")]",
        )
        .field_attribute("Pod.state", "#[serde(serialize_with = \"pod_state_word\")]")
        .compile_fds(files)
        .with_context(|| format!("writing the code for {PROTO}"))
}
