//! Where the programs under test are.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Names a directory with `broker`, `namesrv`, `mqadmin` and `mqbench`, and keeps the tests from
/// building them.
const DIRECTORY: &str = "MQTEST_BIN_DIR";

/// The path of the program `name`.
///
/// Builds the workspace's programs once per test process, so that `cargo test` never runs stale
/// ones; after `make test` has built them this takes a fraction of a second.
///
/// # Panics
/// When they do not build, or when the named directory does not hold the program.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| match std::env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory),
        None => build(),
    });
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} does not exist: run `cargo build --workspace --bins`, or name another directory with {DIRECTORY}",
        path.display()
    );
    path
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate lies in the workspace").to_owned()
}

/// Cargo's target directory, where tests may keep what they install.
#[must_use]
pub fn target() -> PathBuf {
    let profile = profile_directory();
    profile.parent().expect("the profile's directory lies in the target directory").to_owned()
}

/// The directory of the running test's own profile: `target/debug` or `target/release`.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let directory = test.parent().expect("a program lies in a directory");
    let in_deps = directory.file_name().is_some_and(|name| name == "deps");
    let profile = if in_deps { directory.parent().unwrap_or(directory) } else { directory };
    profile.to_owned()
}

fn build() -> PathBuf {
    let directory = profile_directory();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bins", "--quiet"]).current_dir(repository());
    if directory.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the programs under test do not build");
    directory
}
