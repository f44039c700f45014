//! What operators deploy with: the archive, the image, the compose file, the units, the examples.

#![allow(clippy::tests_outside_test_module, reason = "an integration test is one")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::binaries::{program, repository};
use yaml_rust2::{Yaml, YamlLoader};

fn deploy(file: &str) -> PathBuf {
    repository().join("docs/operations/deploy").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(deploy(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn dist(arguments: &[&Path]) -> Output {
    Command::new(repository().join(".ci/dist")).args(arguments).output().expect("bash runs it")
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The programs of the tests take faults, which nobody may set in production.
#[test]
fn an_archive_of_a_debug_build_is_refused() {
    let programs = program("broker").parent().expect("a directory").to_owned();
    let output = dist(&[Path::new("check"), &programs]);
    let said = said(&output);
    assert!(!output.status.success() && said.contains("no release build"), "{said}");
    let scratch = tempfile::tempdir().expect("a directory");
    let output = dist(&[Path::new("check"), scratch.path()]);
    assert!(!output.status.success(), "programs are missing");
}

#[test]
fn the_archive_holds_programs_that_run_and_what_they_are_deployed_with() {
    let programs = program("broker").parent().expect("a directory").to_owned();
    let scratch = tempfile::tempdir().expect("a directory");
    let output = dist(&[Path::new("pack"), &programs, scratch.path()]);
    assert!(output.status.success(), "{}", said(&output));
    let archive = said(&output).lines().last().expect("its name").to_owned();
    let sum = Command::new("sha256sum")
        .args(["-c", &format!("{archive}.sha256")])
        .current_dir(scratch.path())
        .output()
        .expect("coreutils");
    assert!(sum.status.success(), "{}", said(&sum));
    let unpacked = Command::new("tar")
        .args(["-xzf", &archive, "-C"])
        .arg(scratch.path())
        .status()
        .expect("tar");
    assert!(unpacked.success());
    let name = Path::new(&archive).file_name().and_then(|name| name.to_str()).expect("a name");
    let root = scratch.path().join(name.strip_suffix(".tar.gz").expect("an archive"));
    for program in ["broker", "namesrv", "mqadmin", "mqbench"] {
        let version = Command::new(root.join("bin").join(program)).arg("--version").output();
        let version = said(&version.expect("it runs"));
        assert!(version.starts_with(&format!("{program} ")), "{version}");
    }
    for file in ["LICENSE", "README.md", "deploy/compose.yaml", "docs/operations/deploy.md"] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
}

/// The settings that a program makes of these arguments.
fn settings(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name)).args(arguments).arg("--print-config").output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{name} {arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_example_settings_are_understood() {
    let path = deploy("broker.toml");
    let all = settings("broker", &["--config", path.to_str().expect("a path")]);
    assert!(all.contains("broker_name = \"broker-a\""), "{all}");
    let path = deploy("namesrv.toml");
    let all = settings("namesrv", &["--config", path.to_str().expect("a path")]);
    assert!(all.contains("listen = \"0.0.0.0:9876\""), "{all}");
}

#[test]
fn the_compose_file_starts_programs_with_flags_that_they_know() {
    let compose = YamlLoader::load_from_str(&text("compose.yaml")).expect("YAML");
    let services = compose[0]["services"].as_hash().expect("services");
    let names: Vec<&str> = services.keys().filter_map(Yaml::as_str).collect();
    assert_eq!(names, ["namesrv-1", "namesrv-2", "broker-1", "broker-2", "broker-3"]);
    for (name, service) in services {
        let name = name.as_str().expect("a name");
        // A merged key is not one of the service itself for this parser.
        let merged = match &service["<<"] {
            Yaml::BadValue => service.clone(),
            merged => merged.clone(),
        };
        let own = &service["command"];
        let command = if own.is_badvalue() { &merged["command"] } else { own };
        let words: Vec<&str> =
            command.as_vec().expect("a command").iter().filter_map(Yaml::as_str).collect();
        let all = settings(words[0], &words[1..]);
        if let Some(id) = name.strip_prefix("broker-") {
            assert!(all.contains(&format!("node_id = {id}")), "{all}");
            assert!(all.contains(&format!("advertise = \"{name}:8081\"")), "{all}");
            let volume = format!("{name}:/var/lib/raftmq");
            assert_eq!(service["volumes"][0].as_str(), Some(volume.as_str()));
        }
    }
}

/// The units with programs that exist here are what systemd takes.
#[test]
fn systemd_takes_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    for (unit, name) in [("raftmq-broker.service", "broker"), ("raftmq-namesrv.service", "namesrv")]
    {
        let here = program(name).display().to_string();
        let unit_text = text(unit);
        let there = format!("/opt/raftmq/bin/{name}");
        assert!(unit_text.contains(&there), "{unit_text}");
        let path = scratch.path().join(unit);
        fs::write(&path, unit_text.replace(&there, &here)).expect("written");
        let output = Command::new("systemd-analyze").arg("verify").arg(&path).output();
        let output = output.expect("it runs");
        let complaints = said(&output);
        let ours: Vec<&str> = complaints.lines().filter(|line| line.contains(unit)).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

#[test]
fn the_image_starts_a_program_of_the_archive() {
    let image = text("Containerfile");
    let command = image.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a command");
    let words: Vec<String> = serde_json::from_str(command).expect("the list form");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let all = settings(words[0], &words[1..]);
    assert!(all.contains("listen = \"0.0.0.0:8081\""), "{all}");
    assert!(image.contains("USER raftmq") && image.contains("STOPSIGNAL SIGTERM"), "{image}");
}
