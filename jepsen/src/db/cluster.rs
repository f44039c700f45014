//! A broker group and its NameServers, each on a machine of its own.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use super::disk::Disk;
use super::member::Member;
use crate::client::Rpc;
use crate::net::Switch;

const CLIENT: u16 = 8081;
const RAFT: u16 = 40911;
/// Of the first replicas each is on a machine of its own, at the same port.
const FOUNDERS_MAX: u8 = 9;
const NAMESRV: u16 = 9876;
/// The first NameServer's machine.
const NAMESERVERS: u8 = 101;
/// The broker group.
const BROKER: &str = "broker-a";
/// Size of a node's disk where it has one of its own.
const DISK_MIB: u64 = 768;

/// What to build.
#[derive(Debug, Clone)]
pub struct Layout {
    pub nodes: u8,
    pub nameservers: u8,
    /// Where `broker` and `namesrv` are.
    pub programs: PathBuf,
    /// Everything that is not an artefact: disks, the secret.
    pub scratch: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
    /// Whether nodes have file systems of their own.
    pub own_disks: bool,
    /// Keys of the configuration of brokers.
    pub settings: Vec<(String, String)>,
    /// Put before each broker, behind what brings it to its machine.
    pub environment: Vec<Vec<String>>,
}

/// The cluster under test.
#[derive(Debug)]
pub struct Cluster {
    pub switch: Switch,
    pub nodes: Vec<Member>,
    pub nameservers: Vec<Member>,
    /// What the nodes were made by, for those that come later.
    recipe: Recipe,
    /// The highest id that was ever given away.
    last_id: AtomicU64,
}

/// What all brokers are started with.
#[derive(Debug)]
struct Recipe {
    secret: PathBuf,
    /// Those that found the group, with their Raft addresses.
    founders: Vec<String>,
    namesrv: String,
    settings: Vec<(String, String)>,
}

impl Cluster {
    /// Gives every process its machine and its disk. Nothing runs yet.
    pub fn build(layout: &Layout, switch: Switch) -> Result<Self> {
        fs::create_dir_all(&layout.logs)?;
        let secret = layout.scratch.join("secret");
        fs::write(&secret, "replicas that are not on one machine need one\n")?;
        let nameservers: Vec<Member> = (0..layout.nameservers)
            .map(|nth| {
                let machine = NAMESERVERS + nth;
                switch.plug_in(machine)?;
                nameserver(layout, switch, machine, nth + 1)
            })
            .collect::<Result<_>>()?;
        let founders = (1..=layout.nodes).map(|id| format!("{id}={}:{RAFT}", switch.address(id)));
        let access: Vec<String> = nameservers.iter().map(|n| n.client.to_string()).collect();
        let recipe = Recipe {
            secret,
            founders: founders.collect(),
            namesrv: access.join(","),
            settings: layout.settings.clone(),
        };
        let mut nodes = Vec::new();
        for id in 1..=layout.nodes {
            switch.plug_in(id)?;
            let node = broker(layout, switch, id, &recipe)?;
            let mut prefix = switch.on(id);
            prefix.extend(layout.environment.get(usize::from(id) - 1).cloned().unwrap_or_default());
            node.set_prefix(prefix);
            nodes.push(node);
        }
        let last_id = AtomicU64::new(FOUNDERS_MAX.into());
        Ok(Self { switch, nodes, nameservers, recipe, last_id })
    }

    /// What was on the disk of a node is gone, and a new replica is to come in its place: with an id
    /// that nobody ever had, and by asking to be taken in. Returns that id; nothing is started.
    pub fn renew(&self, place: usize) -> Result<u64> {
        let node = &self.nodes[place];
        node.disk()?.wipe()?;
        let id = self.last_id.fetch_add(1, Ordering::SeqCst) + 1;
        // A port of its own: nobody takes it for the one that was there before.
        let raft = (node.address, raft_port(id)?);
        let members = self.nodes.iter().filter(|other| other.id() != node.id());
        let members = members.map(|other| Ok((other.address, raft_port(other.id())?)));
        let members: Vec<String> = members
            .map(|at: Result<(Ipv4Addr, u16)>| at.map(|at| SocketAddr::from(at).to_string()))
            .collect::<Result<_>>()?;
        let arrival =
            [("--join", members.join(",")), ("--raft-listen", SocketAddr::from(raft).to_string())];
        let arguments = self.recipe.arguments(id, node.client, &node.disk()?.data(), &arrival);
        node.become_another(id, arguments);
        Ok(id)
    }

    /// The machine of a node.
    #[must_use]
    pub fn machine(&self, node: usize) -> u8 {
        self.switch.machine(self.nodes[node].address)
    }

    /// Starts everything.
    pub fn start(&self) {
        self.nameservers.iter().chain(&self.nodes).for_each(Member::start);
    }

    /// Everything that runs.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().chain(&self.nameservers)
    }

    /// Where clients may connect, as the client `id`: brokers first.
    #[must_use]
    pub fn points(&self, id: &str) -> Vec<(String, Rpc)> {
        self.members().map(|m| (m.name.clone(), Rpc::with_id(m.client, id))).collect()
    }

    /// The name of the broker group.
    #[must_use]
    pub fn broker_name(&self) -> &'static str {
        BROKER
    }

    /// The place of the node with this id.
    #[must_use]
    pub fn place(&self, id: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.id() == id)
    }
}

fn program(layout: &Layout, name: &str) -> Result<PathBuf> {
    let path = layout.programs.join(name);
    ensure!(path.exists(), "{} does not exist; name its directory with --bin", path.display());
    Ok(path)
}

fn nameserver(layout: &Layout, switch: Switch, machine: u8, nth: u8) -> Result<Member> {
    let address = switch.address(machine);
    let client = SocketAddr::from((address, NAMESRV));
    let name = format!("ns{nth}");
    let arguments: Vec<OsString> = vec![
        "--listen".into(),
        client.to_string().into(),
        "--metrics".into(),
        format!("{address}:5557").into(),
    ];
    let log = layout.logs.join(format!("{name}.log"));
    let program = program(layout, "namesrv")?;
    let member = Member::new((name, 0), client, None, &program, arguments, log);
    member.set_prefix(switch.on(machine));
    Ok(member)
}

/// Founders are the first to have their ids; each later one has a port of its own.
fn raft_port(id: u64) -> Result<u16> {
    let later = id.saturating_sub(u64::from(FOUNDERS_MAX));
    Ok(RAFT + u16::try_from(later).context("so many replicas come in no run")?)
}

fn broker(layout: &Layout, switch: Switch, id: u8, recipe: &Recipe) -> Result<Member> {
    let client = SocketAddr::from((switch.address(id), CLIENT));
    let name = format!("n{id}");
    let disk = match layout.own_disks {
        true => Disk::image(&layout.scratch, &name, DISK_MIB),
        false => Disk::directory(layout.scratch.join(&name)),
    };
    let disk = disk.with_context(|| format!("the disk of {name}"))?;
    let arrival = [("--raft-peers", recipe.founders.join(","))];
    let arguments = recipe.arguments(id.into(), client, &disk.data(), &arrival);
    let log = layout.logs.join(format!("{name}.log"));
    let program = program(layout, "broker")?;
    let identity = (name, u64::from(id));
    Ok(Member::new(identity, client, Some(disk), &program, arguments, log))
}

impl Recipe {
    /// The arguments of the node `id`, which comes to the group by `arrival`.
    fn arguments(
        &self,
        id: u64,
        client: SocketAddr,
        data: &Path,
        arrival: &[(&str, String)],
    ) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        add("--broker-name", BROKER.into());
        add("--node-id", id.to_string().into());
        for (flag, value) in arrival {
            add(flag, value.into());
        }
        add("--listen", client.to_string().into());
        add("--advertise", client.to_string().into());
        add("--metrics", format!("{}:5557", client.ip()).into());
        add("--data-dir", data.into());
        add("--raft-secret-file", self.secret.clone().into());
        if !self.namesrv.is_empty() {
            add("--namesrv", self.namesrv.clone().into());
        }
        for (key, value) in &self.settings {
            add("--set", format!("{key}={value}").into());
        }
        arguments
    }
}
