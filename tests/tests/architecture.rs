//! What must stay true of the shape of the code, whatever it does.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tests::binaries::repository;

/// Which of our crates each crate may use. `jepsen` judges from outside: it drives the programs and
/// uses nothing of them but the wire.
const ARROWS: [(&str, &[&str]); 10] = [
    ("proto", &[]),
    ("commitlog", &[]),
    ("raft", &["commitlog", "proto"]),
    ("gateway", &["proto"]),
    ("broker", &["raft", "commitlog", "gateway", "proto"]),
    ("namesrv", &["gateway", "proto"]),
    ("client", &["proto"]),
    ("cli", &["client", "proto"]),
    ("jepsen", &["proto"]),
    (
        "tests",
        &["broker", "namesrv", "gateway", "raft", "commitlog", "client", "cli", "proto", "jepsen"],
    ),
];

/// Everything that may lie at the top of the repository.
const TOP: [&str; 25] = [
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "broker",
    "cli",
    "client",
    "clippy.toml",
    "commitlog",
    "deny.toml",
    "docs",
    "gateway",
    "jepsen",
    "namesrv",
    "proto",
    "raft",
    "rust-toolchain.toml",
    "rustfmt.toml",
];
const TOP_TOO: [&str; 4] = ["tests", "target", "data", ".github"];

/// Who uses the packages that this project is built on.
const AT_WORK: [(&str, &[&str]); 9] = [
    ("openraft", &["raft"]),
    ("tokio", &["raft", "gateway", "broker", "namesrv"]),
    ("tonic", &["proto", "gateway", "broker", "namesrv"]),
    ("prost", &["proto"]),
    ("rocksdb", &["broker"]),
    ("memmap2", &["commitlog"]),
    ("crc32fast", &["commitlog"]),
    ("serde", &["broker"]),
    ("tracing", &["commitlog", "raft", "gateway", "broker", "namesrv"]),
];

/// A file that is longer is about more than one thing.
const LONGEST: usize = 700;

/// What a crate calls itself to others. The client's name says what it is a client of, because it is
/// meant for other people's manifests.
fn package(krate: &str) -> &str {
    if krate == "client" { "raftmq-client" } else { krate }
}

/// `[dependencies]` of one crate, without those for tests and builds.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(repository().join(krate).join("Cargo.toml"));
    let manifest = manifest.unwrap_or_else(|e| panic!("{krate}/Cargo.toml: {e}"));
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section == "dependencies]";
            let named = section.strip_prefix("dependencies.").and_then(|s| s.strip_suffix(']'));
            found.extend(named.map(str::to_owned));
        } else if inside
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['.', '=', ' '])
        {
            found.insert(name.trim().to_owned());
        }
    }
    found
}

/// Every Rust file of a crate that is ours: sources and tests, no generated code.
fn sources(krate: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in ["src", "tests", "benches", "examples", "build.rs"] {
        collect(&repository().join(krate).join(part), &mut found);
    }
    found
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        if path.extension().is_some_and(|e| e == "rs") {
            found.push(path.to_owned());
        }
    } else if let Ok(entries) = fs::read_dir(path) {
        for entry in entries {
            collect(&entry.expect("a directory entry").path(), found);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    ARROWS.iter().flat_map(|(krate, _)| sources(krate)).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).expect("below the repository").display().to_string()
}

/// Lines of code, that is without comments, that hold `text`.
fn code_with(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in all_sources() {
        let name = relative(&path);
        if name == "tests/tests/architecture.rs" {
            continue;
        }
        let source = fs::read_to_string(&path).expect("a source file");
        for line in source.lines().filter(|l| !l.trim_start().starts_with("//")) {
            let code = line.split(" // ").next().unwrap_or(line);
            if code.contains(text) {
                found.push((name.clone(), line.trim().to_owned()));
            }
        }
    }
    found
}

fn outside(found: Vec<(String, String)>, allowed: &[&str]) -> Vec<(String, String)> {
    found.into_iter().filter(|(file, _)| !allowed.iter().any(|a| file.starts_with(a))).collect()
}

#[test]
fn the_workspace_has_exactly_these_crates() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("Cargo.toml");
    let members = manifest.lines().find(|l| l.starts_with("members")).expect("members");
    let members: BTreeSet<&str> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(members, ARROWS.iter().map(|(krate, _)| *krate).collect());
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    for (krate, allowed) in ARROWS {
        let used = dependencies(krate);
        let ours = ARROWS.iter().map(|(other, _)| *other);
        let used: BTreeSet<&str> = ours.filter(|other| used.contains(package(other))).collect();
        let wrong: Vec<_> = used.iter().filter(|d| !allowed.contains(d)).collect();
        assert!(wrong.is_empty(), "{krate} must not depend on {wrong:?}");
    }
}

#[test]
fn the_top_of_the_repository_is_a_table_of_contents() {
    for entry in fs::read_dir(repository()).expect("the repository") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(
            TOP.contains(&name.as_str()) || TOP_TOO.contains(&name.as_str()),
            "{name} at the top of the repository: put it where it belongs, or say here why it is there"
        );
    }
}

#[test]
fn the_packages_that_this_is_built_on_are_at_work_where_they_should_be() {
    for (package, crates) in AT_WORK {
        for krate in crates {
            assert!(dependencies(krate).contains(package), "{krate} does not depend on {package}");
            let used = sources(krate).iter().any(|path| {
                let source = fs::read_to_string(path).expect("a source file");
                source.contains(&format!("{package}::"))
            });
            assert!(used, "{krate} depends on {package} and never uses it");
        }
    }
}

#[test]
fn dependencies_are_pinned_once_at_the_root() {
    for (krate, _) in ARROWS {
        let manifest = fs::read_to_string(repository().join(krate).join("Cargo.toml"));
        for line in manifest.expect("a manifest").lines() {
            let pinned = line.contains("version = \"") || {
                let right = line.split_once(" = ").map_or("", |(_, right)| right);
                right.starts_with("\"")
                    && right.contains('.')
                    && right[1..].starts_with(|c: char| c.is_ascii_digit())
            };
            assert!(!pinned, "{krate}/Cargo.toml: {line}: pin it in the root");
        }
    }
}

#[test]
fn only_raft_knows_openraft() {
    assert_eq!(outside(code_with("openraft::"), &["raft/"]), []);
    for (krate, _) in ARROWS.iter().filter(|(krate, _)| *krate != "raft") {
        assert!(!dependencies(krate).contains("openraft"), "{krate} depends on openraft");
    }
}

#[test]
fn only_the_key_value_store_knows_rocksdb() {
    assert_eq!(outside(code_with("rocksdb::"), &["broker/src/kv/", "broker/tests/"]), []);
}

#[test]
fn only_the_commit_log_maps_files() {
    assert_eq!(outside(code_with("memmap2::"), &["commitlog/"]), []);
}

#[test]
fn the_commit_log_knows_neither_raft_nor_messages_nor_async() {
    let used = dependencies("commitlog");
    for stranger in ["tokio", "openraft", "prost", "tonic", "serde", "proto", "futures"] {
        assert!(!used.contains(stranger), "commitlog depends on {stranger}");
    }
}

#[test]
fn only_one_place_reads_the_wall_clock() {
    let allowed = ["proto/src/clock.rs", "tests/clients/"];
    assert_eq!(outside(code_with("SystemTime::now"), &allowed), []);
}

#[test]
fn unsafe_lives_in_one_file() {
    let found = code_with("unsafe ");
    assert_eq!(outside(found, &["commitlog/src/mmap.rs"]), []);
}

#[test]
fn codes_of_rocketmq_are_chosen_in_the_status_files() {
    let allowed = [
        "broker/src/grpc/status",
        "gateway/src/status",
        // Those who read answers have to name codes too.
        "client/",
        "cli/",
        "jepsen/",
        "tests/",
        "broker/tests/",
        "gateway/tests/",
        "namesrv/tests/",
        "proto/",
    ];
    assert_eq!(outside(code_with("Code::HaNotAvailable"), &allowed), []);
    assert_eq!(outside(code_with("Code::TooManyRequests"), &allowed), []);
    assert_eq!(outside(code_with("Code::InternalServerError"), &allowed), []);
}

#[test]
fn files_stay_short_enough_to_be_about_one_thing() {
    let mut long = BTreeMap::new();
    for path in all_sources() {
        let lines = fs::read_to_string(&path).expect("a source file").lines().count();
        if lines > LONGEST {
            long.insert(relative(&path), lines);
        }
    }
    assert!(long.is_empty(), "longer than {LONGEST} lines: {long:#?}");
}

#[test]
fn files_are_named_after_what_they_hold() {
    let empty = ["util", "utils", "helper", "helpers", "common", "manager", "misc", "impl"];
    for path in all_sources() {
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let vague = stem.split('_').any(|word| empty.contains(&word));
        assert!(!vague, "{} says nothing about what is in it", relative(&path));
    }
}

#[test]
fn every_library_warns_of_unwrap() {
    for (krate, _) in ARROWS.iter().filter(|(krate, _)| *krate != "tests") {
        let lib = fs::read_to_string(repository().join(krate).join("src/lib.rs"));
        let lib = lib.unwrap_or_else(|e| panic!("{krate}/src/lib.rs: {e}"));
        assert!(lib.contains("clippy::unwrap_used"), "{krate}/src/lib.rs");
    }
}

#[test]
fn the_architecture_page_lists_every_crate() {
    let page = fs::read_to_string(repository().join("docs/architecture.md")).expect("the page");
    for (krate, _) in ARROWS {
        assert!(
            page.contains(&format!("`{krate}`")),
            "docs/architecture.md does not list `{krate}`"
        );
    }
}

#[test]
fn nothing_is_skipped() {
    for path in all_sources() {
        let name = relative(&path);
        if name == "tests/tests/architecture.rs" {
            continue;
        }
        let source = fs::read_to_string(&path).expect("a source file");
        for (number, line) in source.lines().enumerate() {
            let skipped = line.trim_start().starts_with("#[ignore");
            let unfinished = line.contains("todo!(") || line.contains("unimplemented!(");
            assert!(!skipped && !unfinished, "{name}:{}: {line}", number + 1);
        }
    }
}
