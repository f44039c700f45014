//! `jepsen doctor`: which faults this machine can make.
//!
//! Each ability is tried, not guessed: a name space is made and left, a rule is set in it, a file
//! system is made and mounted in a name space of its own. What is made lives in those name spaces
//! or in a temporary directory, and is gone afterwards.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use serde::Serialize;

/// How long one trial may take, in seconds.
const PATIENCE_S: &str = "10";

/// Something that faults need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ability {
    pub name: &'static str,
    /// What cannot be done without it.
    pub faults: &'static str,
    pub able: bool,
    /// What was found, or what is missing.
    pub detail: String,
}

/// A trial: a shell script that succeeds where the ability is there.
struct Trial {
    name: &'static str,
    faults: &'static str,
    script: &'static str,
}

const TRIALS: &[Trial] = &[
    Trial {
        name: "network name spaces",
        faults: "partitions and delays between nodes",
        script: "unshare -n ip link set lo up",
    },
    Trial {
        name: "network name spaces without root",
        faults: "the same, for anybody",
        script: "unshare -Urnm ip link set lo up",
    },
    Trial {
        name: "virtual cables",
        faults: "an address per node",
        script: "unshare -n sh -ec 'ip link add one type veth peer name two; ip link set one up'",
    },
    Trial {
        name: "nftables",
        faults: "partitions, one-way cuts, loss",
        script: "unshare -n sh -ec 'nft add table inet t; nft add chain inet t c \"{ type filter hook input priority 0; }\"; nft add rule inet t c ip saddr 10.77.0.2 drop'",
    },
    Trial {
        name: "packet queues",
        faults: "delay, reordering and duplication of packets",
        script: "unshare -n iptables -A INPUT -j NFQUEUE --queue-num 7 --queue-bypass",
    },
    Trial {
        name: "traffic control",
        faults: "links that carry little",
        script: "unshare -n sh -ec 'ip link add one type veth peer name two; tc qdisc add dev one root tbf rate 1mbit burst 16kb latency 300ms'",
    },
    Trial {
        name: "loop devices",
        faults: "power loss, a full disk, a frozen disk",
        script: "unshare -m sh -ec 'd=$(mktemp -d); trap \"umount $d/m 2>/dev/null; rm -rf $d\" EXIT; truncate -s 8M $d/i; mkfs.ext4 -q $d/i; mkdir $d/m; mount -o loop $d/i $d/m; touch $d/m/f'",
    },
    Trial {
        name: "FUSE",
        faults: "torn and lost writes, errors of reads, writes and syncs",
        script: "exec 3<>/dev/fuse",
    },
    Trial {
        name: "libfaketime",
        faults: "wall clocks that jump and drift",
        script: "d=$(mktemp -d); trap 'rm -rf $d' EXIT; test \"$(faketime -f '@2001-02-03 04:05:06' date +%Y)\" = 2001",
    },
    Trial {
        name: "strace",
        faults: "errors of system calls, for anybody",
        script: "strace -qq -e trace=none true",
    },
    Trial {
        name: "control groups",
        faults: "pressure on processors and memory",
        script: "test -w /sys/fs/cgroup/cgroup.procs -o -w /sys/fs/cgroup/cpu/tasks",
    },
];

/// Tries everything.
#[must_use]
pub fn abilities() -> Vec<Ability> {
    let root = rustix::process::geteuid().is_root();
    let mut all = vec![Ability {
        name: "root",
        faults: "everything below at full strength",
        able: root,
        detail: if root { "yes" } else { "some faults need it" }.into(),
    }];
    all.push(signals());
    all.extend(TRIALS.iter().map(|trial| {
        let (able, detail) = attempt(trial.script);
        Ability { name: trial.name, faults: trial.faults, able, detail }
    }));
    all
}

fn signals() -> Ability {
    let able = Path::new("/proc/self/stat").exists();
    let detail = if able { "yes" } else { "/proc is not mounted" }.into();
    Ability { name: "processes", faults: "kills, pauses, restarts", able, detail }
}

fn attempt(script: &str) -> (bool, String) {
    let tried = Command::new("timeout")
        .args(["-k", "1", PATIENCE_S, "sh", "-ec", script])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => (true, "tried".into()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            (false, if said.is_empty() { format!("{}", output.status) } else { said })
        }
        Err(error) => (false, format!("timeout: {error}")),
    }
}

/// What figures of a run depend on.
#[derive(Serialize)]
struct Machine {
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Whether `/dev/shm` takes files: disks of runs that have to be fast lie there.
    shared_memory: bool,
}

fn machine() -> Machine {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let probe = format!("/dev/shm/jepsen-doctor-{}", std::process::id());
    let shared = OpenOptions::new().create_new(true).write(true).open(&probe).is_ok();
    if shared {
        // It was made a moment ago, by this process.
        let _ = fs::remove_file(&probe);
    }
    Machine {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: kib / 1024,
        kernel: kernel.trim().to_owned(),
        shared_memory: shared,
    }
}

/// Where runs make disks unless told otherwise.
const DISKS: &str = "/dev/shm";

/// Removes the directories of runs whose process is gone. Their processes, networks and mounts went
/// with it.
pub(super) fn clean() -> Result<u8> {
    let stale = crate::run::stale(Path::new(DISKS))?;
    for path in &stale {
        fs::remove_dir_all(path)?;
        println!("removed {}", path.display());
    }
    println!("{} removed", stale.len());
    Ok(0)
}

pub(super) fn run(json: bool) -> Result<u8> {
    let (machine, abilities) = (machine(), abilities());
    if json {
        let all = serde_json::json!({"machine": machine, "abilities": abilities});
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(0);
    }
    let Machine { cores, memory_mib, kernel, shared_memory } = machine;
    let shared = if shared_memory { "" } else { ", /dev/shm takes no files" };
    println!("{cores} cores, {memory_mib} MiB, kernel {kernel}{shared}");
    for ability in abilities {
        let able = if ability.able { "yes" } else { "no " };
        println!("{able} {:33} {}", ability.name, ability.faults);
        if !ability.able {
            println!("    {}", ability.detail);
        }
    }
    Ok(0)
}
