//! A network that a test has for itself: every node on a machine of its own, so to speak, and
//! links between them that can be cut.
//!
//! The test, its clients and the NameServers are one machine on the switch, each node is another.
//! What is cut is dropped in the switch: nobody is told, connections stay open and dials get no
//! answer. Nothing of it is seen by the rest of the machine, and everything is gone when the test's
//! process ends.

use std::future::Future;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use jepsen::net::{Cut, Rules, Switch};
use rustix::process::geteuid;

/// Set in the process that has the network.
const INSIDE: &str = "MQTEST_IN_NETWORK";
/// The network that everything is in.
const NETWORK: [u8; 3] = [10, 99, 0];

/// The network of the running test.
#[derive(Debug, Clone)]
pub struct Network {
    switch: Switch,
    rules: Arc<Rules>,
    cuts: Arc<Mutex<Vec<Cut>>>,
}

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

impl Network {
    fn build() -> Self {
        let switch = Switch::build(NETWORK).expect("a network (packages iproute2, mount)");
        let rules = Rules::build().expect("rules (package nftables)");
        Self { switch, rules: Arc::new(rules), cuts: Arc::default() }
    }

    /// Where the test, its clients and the NameServers are.
    #[must_use]
    pub fn test(&self) -> Ipv4Addr {
        self.switch.here()
    }

    /// Where a node is.
    #[must_use]
    pub fn address(&self, node: u64) -> Ipv4Addr {
        self.switch.address(machine(node))
    }

    /// Gives a node its machine, plugged into the switch.
    ///
    /// # Panics
    /// When that is refused.
    pub fn add(&self, node: u64) {
        self.switch.plug_in(machine(node)).expect("one more machine");
    }

    /// What has to be put before a program and its arguments to run it on a node's machine.
    #[must_use]
    pub fn on(&self, node: u64) -> Vec<String> {
        self.switch.on(machine(node))
    }

    /// Cuts the link between two nodes. The test reaches both.
    ///
    /// # Panics
    /// When that is refused.
    pub fn cut(&self, one: u64, other: u64) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.extend(Cut::between(self.address(one), self.address(other)));
        self.rules.set(0, cuts.clone()).expect("a cut");
    }

    /// Mends all links.
    ///
    /// # Panics
    /// When that is refused.
    pub fn mend(&self) {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.rules.clear().expect("no cuts");
    }
}

/// The number of a node's machine is the node's id.
fn machine(node: u64) -> u8 {
    u8::try_from(node).ok().filter(|n| (1..100).contains(n)).expect("few nodes")
}
