//! What a starting node should do, given what it holds and what its peers say.
//!
//! Pure: no clock, no network, no disk.
//!
//! A group forms once, in this order, so that a node without data can always be told from a node
//! that lost it:
//!
//! 1. Every node asks every peer. While all hold nothing and have the same peer list, nothing is
//!    written.
//! 2. The lowest node draws a group id, stores it, and invites the others to store it too.
//! 3. Once all have, the lowest node writes the first entry, and the group elects a leader.
//!
//! From then on a node that holds nothing, but is known to its peers, has lost its data.

use std::collections::{BTreeMap, BTreeSet};

use crate::{GroupId, NodeId, Refusal};

/// What a node's data directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    Nothing,
    /// A group's identity; no entry yet, and no vote was cast.
    Adopted(GroupId),
    /// A part in the group's history.
    Formed(GroupId),
}

impl Holding {
    pub(crate) fn group(self) -> Option<GroupId> {
        match self {
            Holding::Nothing => None,
            Holding::Adopted(group) | Holding::Formed(group) => Some(group),
        }
    }
}

/// This node.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) node: NodeId,
    pub(crate) broker_name: String,
    /// Initial voters as configured, this node included; once the group has formed, its members.
    pub(crate) peers: BTreeMap<NodeId, String>,
    pub(crate) holding: Holding,
}

/// The last word from a peer; absent for one that has not been heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Answer(Answer),
    /// It refused the call, or could not prove that it knows the secret.
    WrongSecret,
}

/// What a peer says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) node: NodeId,
    pub(crate) broker_name: String,
    pub(crate) peers: BTreeMap<NodeId, String>,
    pub(crate) holding: Holding,
    /// The replicated membership as far as the peer knows it.
    pub(crate) members: BTreeSet<NodeId>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask again; these have yet to be heard or to act.
    Wait(Vec<NodeId>),
    /// Draw a group id and store it.
    Found,
    /// Ask these to store the group id.
    Invite(Vec<NodeId>),
    /// Write the first entry.
    Initialise,
    /// Nothing to decide any more: take part.
    Run,
    /// Stop, and say why.
    Refuse(Refusal),
}

pub(crate) fn decide(me: &Me, heard: &BTreeMap<NodeId, Heard>) -> Step {
    match me.holding {
        Holding::Nothing => without_data(me, heard),
        Holding::Adopted(group) => adopted(me, group, heard),
        Holding::Formed(group) => match foreign_majority(me, group, heard) {
            Some(refusal) => Step::Refuse(refusal),
            None => Step::Run,
        },
    }
}

fn without_data(me: &Me, heard: &BTreeMap<NodeId, Heard>) -> Step {
    for (&peer, word) in heard {
        if let Some(refusal) = objection(me, peer, word).or_else(|| knows_me(me, peer, word)) {
            return Step::Refuse(refusal);
        }
    }
    let missing = missing(me, heard);
    if !missing.is_empty() {
        return Step::Wait(missing);
    }
    match lowest(me) {
        lowest if lowest == me.node => Step::Found,
        lowest => Step::Wait(vec![lowest]),
    }
}

fn adopted(me: &Me, group: GroupId, heard: &BTreeMap<NodeId, Heard>) -> Step {
    for (&peer, word) in heard {
        let other =
            foreign_group(group, word).map(|theirs| Refusal::OtherGroup { ours: group, theirs });
        if let Some(refusal) = objection(me, peer, word).or(other) {
            return Step::Refuse(refusal);
        }
    }
    let formed = |word: &Heard| matches!(word, Heard::Answer(answer) if matches!(answer.holding, Holding::Formed(_)));
    if heard.values().any(formed) || me.node != lowest(me) {
        return Step::Run;
    }
    let missing = missing(me, heard);
    if !missing.is_empty() {
        return Step::Wait(missing);
    }
    let empty =
        |word: &Heard| matches!(word, Heard::Answer(answer) if answer.holding == Holding::Nothing);
    let invited: Vec<NodeId> =
        heard.iter().filter(|(_, word)| empty(word)).map(|(&peer, _)| peer).collect();
    if invited.is_empty() { Step::Initialise } else { Step::Invite(invited) }
}

/// A disagreement that keeps a group from forming.
fn objection(me: &Me, peer: NodeId, word: &Heard) -> Option<Refusal> {
    let addr = me.peers.get(&peer).cloned().unwrap_or_default();
    let answer = match word {
        Heard::WrongSecret => return Some(Refusal::WrongSecret { peer, addr }),
        Heard::Answer(answer) => answer,
    };
    if answer.broker_name != me.broker_name {
        let (expected, found) = (me.broker_name.clone(), answer.broker_name.clone());
        return Some(Refusal::WrongBroker { addr, expected, found });
    }
    if answer.node != peer {
        return Some(Refusal::WrongAddress { addr, expected: peer, found: answer.node });
    }
    let formed = matches!(answer.holding, Holding::Formed(_));
    if !formed && answer.peers != me.peers {
        let (ours, theirs) = (list(&me.peers), list(&answer.peers));
        return Some(Refusal::PeerListsDiffer { peer, ours, theirs });
    }
    None
}

/// A peer that belongs to a group while this node holds nothing. Its group has this node as a
/// member, whose data then is gone, or it is another group.
fn knows_me(me: &Me, peer: NodeId, word: &Heard) -> Option<Refusal> {
    let Heard::Answer(answer) = word else { return None };
    let wiped = |group| Refusal::Wiped { node: me.node, peer, group };
    match answer.holding {
        Holding::Nothing => None,
        // An invitation is on its way to this node, unless it is the one that sends them.
        Holding::Adopted(group) => (me.node == lowest(me)).then(|| wiped(group)),
        Holding::Formed(group) if answer.members.contains(&me.node) => Some(wiped(group)),
        // It has voted but does not know the membership: its list is all there is to go by.
        Holding::Formed(group) if answer.members.is_empty() && answer.peers == me.peers => {
            Some(wiped(group))
        }
        Holding::Formed(group) => {
            Some(Refusal::SecondGroup { peer, group, broker_name: me.broker_name.clone() })
        }
    }
}

fn foreign_group(ours: GroupId, word: &Heard) -> Option<GroupId> {
    let Heard::Answer(answer) = word else { return None };
    answer.holding.group().filter(|&theirs| theirs != ours)
}

/// More than half of the peer list belongs to another group: it is this node that is astray. One
/// stray peer is no reason to stop a node that holds data.
fn foreign_majority(me: &Me, ours: GroupId, heard: &BTreeMap<NodeId, Heard>) -> Option<Refusal> {
    let foreign: Vec<GroupId> =
        heard.values().filter_map(|word| foreign_group(ours, word)).collect();
    let other = foreign.first().map(|&theirs| Refusal::OtherGroup { ours, theirs });
    let strangers = heard.iter().filter(|(_, word)| **word == Heard::WrongSecret);
    let stranger = strangers.clone().next().map(|(&peer, _)| Refusal::WrongSecret {
        peer,
        addr: me.peers.get(&peer).cloned().unwrap_or_default(),
    });
    let outvoted = |count: usize| count > me.peers.len() / 2;
    if outvoted(foreign.len()) {
        other
    } else if outvoted(strangers.count()) {
        stranger
    } else {
        None
    }
}

fn missing(me: &Me, heard: &BTreeMap<NodeId, Heard>) -> Vec<NodeId> {
    let known = |node: &NodeId| *node == me.node || heard.contains_key(node);
    me.peers.keys().filter(|node| !known(node)).copied().collect()
}

fn lowest(me: &Me) -> NodeId {
    me.peers.keys().next().copied().unwrap_or(me.node)
}

/// A peer list as the command line takes it.
pub(crate) fn list(peers: &BTreeMap<NodeId, String>) -> String {
    let entries: Vec<String> = peers.iter().map(|(id, addr)| format!("{id}={addr}")).collect();
    entries.join(",")
}

#[cfg(test)]
#[path = "decision_test.rs"]
mod tests;
