//! Machines, so to speak, on one switch: a network name space for each, and a bridge.
//!
//! ```text
//!  clients ── bridge ─┬─ node 1
//!   .254       │      ├─ node 2
//!       cuts are here └─ node 3
//! ```
//!
//! The process that builds it has to be in a network and a mount name space of its own: nothing of
//! it is then seen by the rest of the machine, and everything is gone when the process ends.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::tool::run;

/// Where the process itself is: the last part of its address.
const HERE: u8 = 254;

/// A network of machines with addresses of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    network: [u8; 3],
}

impl Switch {
    /// Builds the network `a.b.c.0/24`, with this process at its end.
    pub fn build(network: [u8; 3]) -> Result<Self> {
        let switch = Self { network };
        // Names of name spaces are files; these are seen by this process and its children only.
        std::fs::create_dir_all("/run").context("a directory for names")?;
        run("mount", "-t tmpfs none /run")?;
        run("ip", "link set lo up")?;
        run("ip", "link add switch type bridge")?;
        run("ip", &format!("addr add {}/24 dev switch", switch.here()))?;
        run("ip", "link set switch up")?;
        Ok(switch)
    }

    /// Where this process is.
    #[must_use]
    pub fn here(self) -> Ipv4Addr {
        self.address(HERE)
    }

    /// The address of a machine.
    #[must_use]
    pub fn address(self, machine: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, machine)
    }

    /// The machine with this address.
    #[must_use]
    pub fn machine(self, address: Ipv4Addr) -> u8 {
        address.octets()[3]
    }

    /// The switch's end of a machine's cable.
    #[must_use]
    pub fn port(self, machine: u8) -> String {
        format!("port{machine}")
    }

    /// Adds a machine.
    pub fn plug_in(self, machine: u8) -> Result<()> {
        let (space, address) = (space(machine), self.address(machine));
        run("ip", &format!("netns add {space}"))?;
        let port = self.port(machine);
        run("ip", &format!("link add {port} type veth peer name eth0 netns {space}"))?;
        run("ip", &format!("link set {port} master switch up"))?;
        run("ip", &format!("-n {space} addr add {address}/24 dev eth0"))?;
        run("ip", &format!("-n {space} link set eth0 up"))?;
        run("ip", &format!("-n {space} link set lo up"))
    }

    /// What has to be put before a program and its arguments to run it on a machine.
    #[must_use]
    pub fn on(self, machine: u8) -> Vec<String> {
        // Not `ip netns exec`, which gives each program its own view of the mounts: a disk that is
        // taken away here would stay there.
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", space(machine))]
    }
}

fn space(machine: u8) -> String {
    format!("machine-{machine}")
}
