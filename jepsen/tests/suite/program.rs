//! The program: what it answers, what it writes, how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use jepsen::history::{Message, Workload};
use jepsen::judge::{Judgement, Slice, Validity};
use serde_json::Value;

use crate::edit::Edit;
use crate::mutations::recorded;
use crate::world::{History, SECOND};

fn jepsen(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jepsen")).args(args).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a run into a directory, as a run does.
fn store(history: &History, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("test.json"), serde_json::to_string(&history.plan).unwrap()).unwrap();
    let lines: Vec<String> = history.events.iter().map(|e| e.to_line() + "\n").collect();
    fs::write(dir.join("history.jsonl"), lines.concat()).unwrap();
}

fn with_phantom() -> History {
    let mut edit = Edit::of(&recorded(Workload::Queue));
    edit.deliver(20 * SECOND, "audit", 0, Message::new(99, 1), None);
    edit.close()
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

/// Elements that are closed in the order in which they were opened.
fn balanced(page: &str) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag that ends");
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed) {
                return false;
            }
        } else if !tag.ends_with('/') && !matches!(name, "!doctype" | "meta") {
            open.push(name);
        }
    }
    open.is_empty()
}

#[test]
fn a_valid_run_passes_and_gets_its_results_and_its_page() {
    let dir = tempfile::tempdir().unwrap();
    store(&recorded(Workload::Log), dir.path());
    let output = jepsen(&["check", path(dir.path())]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output).ends_with("1 passed, 0 failed, 0 skipped\n"), "{}", text(&output));
    let results = fs::read_to_string(dir.path().join("results.json")).unwrap();
    let judgement: Judgement = serde_json::from_str(&results).unwrap();
    assert_eq!(judgement.valid, Validity::Valid);
    assert_eq!(judgement.recoveries.len(), 3);
    assert!(judgement.recoveries.iter().all(|r| 600 < r.gap_ms && r.allowed_ms == Some(1_500)));
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    for part in ["Leaders", "Latency", "Rate", "Messages", "Unseen", "Recovery", "Checkers"] {
        assert!(page.contains(&format!("<h2>{part} ")) || page.contains(&format!("<h2>{part}<")));
    }
    assert!(balanced(&page));
    assert!(!page.contains("<script") && !page.contains("http"), "self-contained");
    assert!(!dir.path().join("anomalies").exists());
}

#[test]
fn an_anomaly_fails_and_shows_its_slice_and_how_to_do_it_again() {
    let dir = tempfile::tempdir().unwrap();
    store(&with_phantom(), dir.path());
    fs::create_dir(dir.path().join("anomalies")).unwrap();
    fs::write(dir.path().join("anomalies/of-yesterday.json"), "{}").unwrap();
    let output = jepsen(&["check", path(dir.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("phantom: 1"), "{}", text(&output));
    assert!(text(&output).ends_with("0 passed, 1 failed, 0 skipped\n"));
    let files: Vec<_> = fs::read_dir(dir.path().join("anomalies")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "what an earlier check found is gone");
    let slice = fs::read_to_string(files[0].path()).unwrap();
    let slice: Slice = serde_json::from_str(&slice).unwrap();
    assert_eq!(slice.lines.len(), slice.own.len());
    assert_eq!(slice.own.iter().filter(|own| **own).count(), 2, "request and answer");
    let (at, _) = slice.own.iter().enumerate().rfind(|(_, own)| **own).unwrap();
    assert!(slice.lines[at].contains(&Message::new(99, 1).0.to_string()));
    assert!(10 < slice.lines.len(), "with its neighbours");
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(balanced(&page));
    assert!(page.contains("<h3>phantom") && page.contains("class=\"own\""));
    assert!(page.contains("jepsen run -w queue -n kill --seed 7"));
}

#[test]
fn a_doubt_is_no_pass_and_a_broken_record_is_nobodys_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (doubt, broken) = (dir.path().join("doubt"), dir.path().join("broken"));
    let mut edit = Edit::of(&recorded(Workload::Queue));
    edit.events().retain(|event| !event.to_line().contains("drained_group"));
    store(&edit.close(), &doubt);
    let output = jepsen(&["check", path(&doubt)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("did not read to the end"), "{}", text(&output));

    store(&recorded(Workload::Meta), &broken);
    let history = fs::read_to_string(broken.join("history.jsonl")).unwrap();
    fs::write(broken.join("history.jsonl"), &history[..history.len() - 5]).unwrap();
    let output = jepsen(&["check", path(&broken)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no event"));

    let output = jepsen(&["check", path(&doubt), path(&broken)]);
    assert_eq!(output.status.code(), Some(3), "the worse of the two");
    assert!(text(&output).ends_with("0 passed, 2 failed, 0 skipped\n"));
}

#[test]
fn some_checkers_alone_and_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    store(&with_phantom(), dir.path());
    let output = jepsen(&["check", path(dir.path()), "--checker", "queue,replicas", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "messages was not asked: {output:?}");
    assert!(!dir.path().join("results.json").exists());
    let output = jepsen(&["check", path(dir.path()), "--checker", "horoscope"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(jepsen(&["chekc"]).status.code(), Some(64));
    assert_eq!(jepsen(&["--help"]).status.code(), Some(0));
    let output = jepsen(&["check", path(dir.path()), "--dry-run", "--json"]);
    let judgement: Judgement = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(judgement.valid, Validity::Invalid);
}

#[test]
fn a_page_over_all_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("offset/kill/1"), dir.path().join("queue/kill/7"));
    store(&recorded(Workload::Offset), &good);
    store(&with_phantom(), &bad);
    jepsen(&["check", path(&good), path(&bad)]);
    let output = jepsen(&["index", path(dir.path())]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    assert!(balanced(&page));
    assert!(page.contains("href=\"offset/kill/1/report.html\""));
    assert!(page.contains("1 valid, 1 invalid, 0 unknown") && page.contains("1 phantom"));
}

#[test]
fn porcupine_gets_what_may_have_happened() {
    let dir = tempfile::tempdir().unwrap();
    let history = recorded(Workload::Offset);
    store(&history, dir.path());
    let output = jepsen(&["export", path(dir.path()), "--format", "porcupine"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let all: Vec<Value> = serde_json::from_str(&text(&output)).unwrap();
    let record = Edit::of(&history).record;
    assert_eq!(all.len(), record.ops.iter().filter(|op| !op.is_failed()).count());
    let open = all.iter().filter(|op| op["Return"] == i64::MAX).count();
    let unknown = record.ops.iter().filter(|op| !op.is_ok() && !op.is_failed()).count();
    assert!(0 < unknown);
    assert_eq!(open, unknown);
    let query = all.iter().find(|op| op["Input"]["f"] == "query").unwrap();
    assert!(query["Output"]["offset"].is_u64() || query["Output"]["offset"].is_null());
    assert!(query["Call"].as_i64() < query["Return"].as_i64());
}

#[test]
fn edn_has_a_map_for_each_event() {
    let dir = tempfile::tempdir().unwrap();
    let history = recorded(Workload::Queue);
    store(&history, dir.path());
    let file = dir.path().join("history.edn");
    let output = jepsen(&["export", path(dir.path()), "--format", "edn", "--output", path(&file)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let edn = fs::read_to_string(file).unwrap();
    assert_eq!(edn.lines().count(), history.events.len());
    let leader = edn.lines().next().unwrap();
    for part in [":index 0", ":process :observer", ":type :info", ":f :leader", ":node \"n1\""] {
        assert!(leader.contains(part), "{leader}");
    }
    assert!(edn.contains(":f :change-invisible") && edn.contains(":group \"audit\""));
    assert!(edn.lines().all(|l| l.matches('{').count() == l.matches('}').count()));
}

#[test]
fn elle_gets_lists_that_only_grow() {
    let dir = tempfile::tempdir().unwrap();
    store(&recorded(Workload::Broadcast), dir.path());
    let output = jepsen(&["export", path(dir.path()), "--format", "elle"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<Value> =
        text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut longest: Vec<Vec<Value>> = vec![Vec::new(); 2];
    let mut reads = 0;
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], index);
        let step = &line["value"][0];
        if step[0] == "r" && line["type"] == "ok" {
            reads += 1;
            let key = usize::try_from(step[1].as_u64().unwrap()).unwrap();
            let list = step[2].as_array().unwrap();
            let shared = list.len().min(longest[key].len());
            assert_eq!(list[..shared], longest[key][..shared], "one is a prefix of the other");
            if longest[key].len() < list.len() {
                longest[key].clone_from(list);
            }
        }
    }
    assert!(100 < reads && longest.iter().all(|list| 100 < list.len()));
    let appended = lines.iter().filter(|l| l["value"][0][0] == "append" && l["type"] == "ok");
    let missing = appended
        .map(|l| (l["value"][0][1].as_u64().unwrap(), &l["value"][0][2]))
        .filter(|(key, id)| !longest[usize::try_from(*key).unwrap()].contains(id));
    assert_eq!(missing.count(), 0, "what was appended is in the list");
}

#[test]
fn the_doctor_tries_what_faults_need() {
    let output = jepsen(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let found: Value = serde_json::from_str(&text(&output)).unwrap();
    assert!(0 < found["machine"]["cores"].as_u64().unwrap());
    let abilities = found["abilities"].as_array().unwrap();
    let names: Vec<&str> = abilities.iter().map(|a| a["name"].as_str().unwrap()).collect();
    for name in ["root", "network name spaces", "nftables", "loop devices", "FUSE", "libfaketime"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for ability in abilities {
        let told = !ability["detail"].as_str().unwrap().is_empty();
        assert!(told, "{ability} says what was found or what is missing");
    }
    let output = jepsen(&["doctor"]);
    assert!(text(&output).contains("cores") && text(&output).contains("partitions"));
}
