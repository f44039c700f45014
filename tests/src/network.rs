//! A network that a test has for itself: every node on a machine of its own, so to speak, and
//! links between them that can be cut.
//!
//! ```text
//!  test, clients, NameServers ── bridge ─┬─ node 1
//!                10.99.0.254      │      ├─ node 2
//!                          cuts are here └─ node 3
//! ```
//!
//! The test runs in a network name space of its own, nodes in one each. What is cut is dropped in
//! the bridge: nobody is told, connections stay open and dials get no answer. Nothing of it is seen
//! by the rest of the machine, and everything is gone when the test's process ends.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::geteuid;

/// Set in the process that has the network.
const INSIDE: &str = "MQTEST_IN_NETWORK";
/// The network that everything is in, and where the test itself is in it.
const TEST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);

/// The network of the running test.
#[derive(Debug, Clone, Copy)]
pub struct Network(());

/// Runs `body`, the test called `test`, in a network of its own.
///
/// A process cannot be moved as a whole once it has threads. So the test binary is started once
/// more for this test alone, and its outcome is this one's.
///
/// # Panics
/// When the test fails, or the machine allows no name spaces.
pub fn in_own_network<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Network) -> F) {
    if std::env::var_os(INSIDE).is_none() {
        return run_inside(test);
    }
    let network = Network::build();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(body(network));
}

fn run_inside(test: &str) {
    // Each of them has the machine to itself, as far as this test binary goes.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let status = command
        .arg(std::env::current_exe().expect("a process knows its program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) => assert!(status.success(), "{test}: {status}"),
        Err(error) => panic!("unshare, of the package util-linux: {error}"),
    }
}

/// The number of a node's machine is the node's id.
impl Network {
    fn build() -> Self {
        // Names of name spaces are files; these are seen by this process and its children only.
        std::fs::create_dir_all("/run").expect("a directory for names");
        run("mount", "-t tmpfs none /run");
        run("ip", "link set lo up");
        run("ip", "link add switch type bridge");
        run("ip", &format!("addr add {TEST}/24 dev switch"));
        run("ip", "link set switch up");
        run("nft", "add table bridge cuts");
        run("nft", "add chain bridge cuts forward { type filter hook forward priority 0; }");
        Self(())
    }

    /// Where the test, its clients and the NameServers are.
    #[must_use]
    pub fn test(self) -> Ipv4Addr {
        TEST
    }

    /// Where a node is.
    ///
    /// # Panics
    /// When the network has no room for it.
    #[must_use]
    pub fn address(self, node: u64) -> Ipv4Addr {
        let last = u8::try_from(node).ok().filter(|n| (1..100).contains(n)).expect("few nodes");
        Ipv4Addr::new(10, 99, 0, last)
    }

    /// Gives a node its machine, plugged into the switch.
    pub fn add(self, node: u64) {
        let (space, address) = (space(node), self.address(node));
        run("ip", &format!("netns add {space}"));
        run("ip", &format!("link add port{node} type veth peer name eth0 netns {space}"));
        run("ip", &format!("link set port{node} master switch up"));
        run("ip", &format!("-n {space} addr add {address}/24 dev eth0"));
        run("ip", &format!("-n {space} link set eth0 up"));
        run("ip", &format!("-n {space} link set lo up"));
    }

    /// What has to be put before a program and its arguments to run it on a node's machine.
    #[must_use]
    pub fn on(self, node: u64) -> Vec<String> {
        ["ip", "netns", "exec", &space(node)].map(str::to_owned).to_vec()
    }

    /// Cuts the link between two nodes. The test reaches both.
    pub fn cut(self, one: u64, other: u64) {
        for (from, to) in [(one, other), (other, one)] {
            let (from, to) = (self.address(from), self.address(to));
            run("nft", &format!("add rule bridge cuts forward ip saddr {from} ip daddr {to} drop"));
        }
    }

    /// Mends all links.
    pub fn mend(self) {
        run("nft", "flush chain bridge cuts forward");
    }
}

fn space(node: u64) -> String {
    format!("node-{node}")
}

/// Programs for networks are not in every user's path.
fn find(program: &str) -> String {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let found = places.map(|place| format!("{place}/{program}"));
    found.into_iter().find(|path| Path::new(path).exists()).unwrap_or_else(|| program.to_owned())
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(find(program)).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} {arguments}: {error} (packages iproute2, nftables, mount)")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
}
