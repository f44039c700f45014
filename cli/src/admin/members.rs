//! addLearner, promote, demote, removePeer, replacePeer, updatePeer, drain.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;
use proto::{
    BrokerName,
    admin::{
        AddLearner as WireAddLearner, ChangeMembershipRequest, ChangeMembershipResponse,
        DrainRequest, NodeStatus, PeerStatus, ReplacePeer, UpdatePeer, admin_client::AdminClient,
        change_membership_request::Change,
    },
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Session, catch_up::CatchUp, raft_status};
use crate::{connect, failure::Failure, output::Report};

/// Before a change that was not done is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A broker group.
#[derive(Debug, Args)]
pub(super) struct Group {
    /// The broker's name.
    #[arg(short = 'b', long = "brokerName")]
    pub(super) broker: BrokerName,
}

#[derive(Debug, Args)]
pub(super) struct Patience {
    /// Seconds that a replica may take to catch up.
    #[arg(long = "timeout", default_value_t = 3600)]
    timeout: u64,
}

#[derive(Debug, Args)]
pub(super) struct Consent {
    /// Does not ask.
    #[arg(short = 'y', long = "yes")]
    yes: bool,
}

impl Consent {
    /// Asks the person at the terminal; a program has to say it beforehand.
    pub(super) fn get(&self, question: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            bail!("{question}: say --yes");
        }
        let mut out = io::stderr().lock();
        write!(out, "{question}? [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        bail!("not confirmed; nothing was changed")
    }
}

#[derive(Debug, Args)]
pub struct AddLearner {
    #[command(flatten)]
    group: Group,
    /// The new node, which was started with --join and waits.
    #[arg(short = 'i', long = "nodeId")]
    node_id: u64,
    /// Where its peers reach it; without it, where it said that it waits.
    #[arg(short = 'r', long = "raftAddress", default_value = "")]
    raft_address: String,
    /// Returns once it has caught up.
    #[arg(short = 'w', long = "watch")]
    watch: bool,
    #[command(flatten)]
    patience: Patience,
}

impl AddLearner {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (node_id, raft_address) = (self.node_id, self.raft_address.clone());
        let change = Change::AddLearner(WireAddLearner { node_id, raft_address });
        let broker = &self.group.broker;
        let changed = make(session, broker, change).await?;
        let mut text = format!("broker {broker}: node {node_id} is a learner");
        if self.watch {
            CatchUp::new(session, broker, node_id, self.patience.deadline()).run().await?;
            text.push_str(" and has caught up");
        }
        Ok(report(broker, "added", node_id, &changed, text))
    }
}

#[derive(Debug, Args)]
pub struct Promote {
    #[command(flatten)]
    group: Group,
    /// A learner.
    #[arg(short = 'i', long = "nodeId")]
    node_id: u64,
    /// Waits until it has caught up.
    #[arg(short = 'w', long = "watch")]
    watch: bool,
    #[command(flatten)]
    patience: Patience,
}

impl Promote {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (broker, node) = (&self.group.broker, self.node_id);
        let change = Change::Promote(node);
        let changed = if self.watch {
            make_when_caught_up(session, broker, node, change, self.patience.deadline()).await?
        } else {
            make(session, broker, change).await?
        };
        let text = format!("broker {broker}: node {node} votes");
        Ok(report(broker, "promoted", node, &changed, text))
    }
}

/// A node that something is taken from.
#[derive(Debug, Args)]
struct Loss {
    #[command(flatten)]
    group: Group,
    /// A member, dead or alive. If it leads, it hands over first.
    #[arg(short = 'i', long = "nodeId")]
    node_id: u64,
    #[command(flatten)]
    consent: Consent,
}

/// What is taken, in words.
struct Words {
    question: &'static str,
    done: &'static str,
    then: &'static str,
}

impl Loss {
    async fn run(self, session: &Session, change: Change, words: Words) -> Result<Report> {
        let (broker, node) = (&self.group.broker, self.node_id);
        self.consent.get(&format!("broker {broker}, node {node}: {}", words.question))?;
        let changed = make(session, broker, change).await?;
        let text = format!("broker {broker}: node {node} {}", words.then);
        Ok(report(broker, words.done, node, &changed, text))
    }
}

#[derive(Debug, Args)]
pub struct Demote {
    #[command(flatten)]
    loss: Loss,
}

impl Demote {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (question, done) = ("take its vote", "demoted");
        let words = Words { question, done, then: "only follows" };
        let change = Change::Demote(self.loss.node_id);
        self.loss.run(session, change, words).await
    }
}

#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    loss: Loss,
}

impl Remove {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (question, done) = ("remove it for good", "removed");
        let words = Words { question, done, then: "is removed; its id is not used again" };
        let change = Change::Remove(self.loss.node_id);
        self.loss.run(session, change, words).await
    }
}

#[derive(Debug, Args)]
pub struct Replace {
    #[command(flatten)]
    group: Group,
    /// The node that is to go, mostly a dead one.
    #[arg(short = 'i', long = "nodeId")]
    node_id: u64,
    /// The node that takes its place: started with --join and waiting, or a learner.
    #[arg(long = "with")]
    with: u64,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    consent: Consent,
}

impl Replace {
    /// Adds the new node, waits until it has caught up, and gives it the vote of the old one. Made
    /// again after an interruption it goes on where it was.
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (broker, old, with) = (&self.group.broker, self.node_id, self.with);
        self.consent.get(&format!(
            "remove node {old} from broker {broker} for good, once node {with} has caught up"
        ))?;
        let status = raft_status::ask(session, broker).await?;
        let is_with = |peer: &PeerStatus| peer.node.as_ref().is_some_and(|n| n.node_id == with);
        if !status.members.iter().any(is_with) {
            let (node_id, raft_address) = (with, String::new());
            let add = Change::AddLearner(WireAddLearner { node_id, raft_address });
            make(session, broker, add).await?;
        }
        let swap = Change::Replace(ReplacePeer { old, with });
        let deadline = self.patience.deadline();
        let changed = make_when_caught_up(session, broker, with, swap, deadline).await?;
        let text = format!("broker {broker}: node {with} has taken the place of node {old}");
        Ok(report(broker, "replaced", old, &changed, text))
    }
}

#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    group: Group,
    /// A member that runs at its new address already, with its data.
    #[arg(short = 'i', long = "nodeId")]
    node_id: u64,
    /// Where its peers reach it from now on.
    #[arg(short = 'r', long = "raftAddress")]
    raft_address: String,
}

impl Update {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (broker, node_id) = (&self.group.broker, self.node_id);
        let raft_address = self.raft_address.clone();
        let update = Change::Update(UpdatePeer { node_id, raft_address });
        let changed = make(session, broker, update).await?;
        let text = format!("broker {broker}: node {node_id} is at {}", self.raft_address);
        Ok(report(broker, "updated", node_id, &changed, text))
    }
}

#[derive(Debug, Args)]
pub struct Drain {
    #[command(flatten)]
    group: Group,
    /// The node that is to hand leadership away and not to lead, until it is started again.
    #[arg(short = 'i', long = "nodeId")]
    node_id: u64,
    /// It may lead again.
    #[arg(long = "off")]
    off: bool,
}

impl Drain {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let (broker, node_id, on) = (&self.group.broker, self.node_id, !self.off);
        let groups = session.broker_groups().await?;
        let group = groups.iter().find(|group| group.broker_name == broker.as_str());
        let member = group.and_then(|g| g.members.iter().find(|node| node.node_id == node_id));
        let Some(member) = member else {
            bail!(Failure::Rejected(format!("broker {broker} has no node {node_id}")));
        };
        // The mark is the node's own, so it is asked itself.
        let address = &member.client_address;
        let channel = connect::dial_one(address).await?;
        let broker_name = broker.to_string();
        let request = session.operator.request(DrainRequest { broker_name, node_id, on });
        let answer = AdminClient::new(channel).drain(request).await;
        let answer = answer.map_err(|status| Failure::of_status(&status, address))?.into_inner();
        Failure::of(answer.error)?;
        let json = json!({ "broker": broker.as_str(), "node_id": node_id, "drained": on });
        let says = if on { "is drained: it does not lead" } else { "may lead again" };
        Ok(Report::new(json).line(format!("broker {broker}: node {node_id} {says}")))
    }
}

impl Patience {
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.timeout)
    }
}

async fn make(
    session: &Session,
    broker: &BrokerName,
    change: Change,
) -> Result<ChangeMembershipResponse, Failure> {
    let broker_name = broker.to_string();
    let request = ChangeMembershipRequest { broker_name, change: Some(change) };
    let answer =
        session.call(request, |mut c, r| async move { c.change_membership(r).await }).await?;
    Failure::of(answer.error.clone())?;
    Ok(answer)
}

/// Makes a change that waits for `node`, as often as it takes: each begins where the last stopped.
async fn make_when_caught_up(
    session: &Session,
    broker: &BrokerName,
    node: u64,
    change: Change,
    deadline: Instant,
) -> Result<ChangeMembershipResponse> {
    loop {
        CatchUp::new(session, broker, node, deadline).run().await?;
        match make(session, broker, change.clone()).await {
            Ok(changed) => return Ok(changed),
            Err(failure @ Failure::Rejected(_)) => return Err(failure.into()),
            Err(failure) if Instant::now() >= deadline => return Err(failure.into()),
            Err(Failure::NotDone(_) | Failure::Unknown(_)) => sleep(RETRY).await,
        }
    }
}

fn report(
    broker: &BrokerName,
    done: &str,
    node: u64,
    changed: &ChangeMembershipResponse,
    text: String,
) -> Report {
    let member = |node: &NodeStatus| {
        json!({
            "node_id": node.node_id,
            "raft_address": node.raft_address,
            "client_address": node.client_address,
            "voter": node.voter,
        })
    };
    let json = json!({
        "broker": broker.as_str(),
        "done": done,
        "node_id": node,
        "members": changed.members.iter().map(member).collect::<Vec<_>>(),
        "survives": changed.survives,
    });
    Report::new(json).line(text).line(changed.survives.clone())
}
