//! Compiles `protos/` to Rust without a protoc on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

/// The messages that clients see.
const V2: [&str; 3] = [
    "apache/rocketmq/v2/definition.proto",
    "apache/rocketmq/v2/service.proto",
    "apache/rocketmq/v2/admin.proto",
];
/// What our own processes say to each other.
const OURS: [&str; 7] = [
    "raftmq/raft.proto",
    "raftmq/registry.proto",
    "raftmq/session.proto",
    "raftmq/admin.proto",
    "raftmq/produce.proto",
    "raftmq/replicas.proto",
    "raftmq/backup.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    let all = protox::compile(V2.iter().chain(&OURS), ["protos"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), all.encode_to_vec())?;

    // In two goes, because types that `extern_path` maps to a module are not generated. The first
    // needs to see the types of v2 and leaves an empty file for them, which the second replaces.
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".apache.rocketmq.v2", "crate::v2")
        .compile_fds(all.clone())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".apache.rocketmq.v2.SendMessageRequest", "crate::SendMessageRequest")
        .compile_fds(without(all, &OURS))?;
    Ok(())
}

fn without(mut all: FileDescriptorSet, names: &[&str]) -> FileDescriptorSet {
    all.file.retain(|file| !names.contains(&file.name()));
    all
}
