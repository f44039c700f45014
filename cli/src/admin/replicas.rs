//! verifyReplicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use proto::{
    admin::{GroupStatus, NodeStatus},
    replicas::{
        MarkRequest, ReadRequest, Segment, read_response::Part, replicas_client::ReplicasClient,
    },
};
use serde_json::{Value, json};
use tonic::Request;

use super::{CALL_TIMEOUT, Session};
use crate::{
    connect,
    output::{Report, Rows},
};

/// How long a replica may be silent while it reads one segment.
const SEGMENT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Verify {
    /// Only this broker group.
    #[arg(short = 'b', long = "brokerName")]
    broker_name: Option<String>,
    /// Compare the states and leave the segments on the disks unread.
    #[arg(long = "digestOnly")]
    digest_only: bool,
}

/// What one replica said.
struct Replica {
    node: u64,
    address: String,
    digest: Result<String>,
    segments: BTreeMap<u64, Segment>,
}

impl Verify {
    pub(super) async fn run(self, session: &Session) -> Result<Report> {
        let mut groups = session.broker_groups().await?;
        groups.retain(|g| self.broker_name.as_ref().is_none_or(|name| g.broker_name == *name));
        if groups.is_empty() {
            bail!("there is no such broker group");
        }
        groups.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
        let header = ["broker", "node", "address", "at index", "digest", "segments", "verdict"];
        let mut rows = Rows::new(header);
        let mut brokers = Vec::new();
        let mut differences = Vec::new();
        for group in &groups {
            let (index, replicas) = self.read(group).await?;
            let verdicts = compare(&replicas);
            for (replica, verdict) in replicas.iter().zip(&verdicts) {
                let digest = match &replica.digest {
                    Ok(digest) => digest.clone(),
                    Err(_) => "-".to_owned(),
                };
                rows.push([
                    group.broker_name.clone(),
                    replica.node.to_string(),
                    replica.address.clone(),
                    index.to_string(),
                    digest,
                    replica.segments.len().to_string(),
                    if verdict.is_empty() { "equal".to_owned() } else { verdict.join("; ") },
                ]);
                let of =
                    |text: &String| format!("{}, node {}: {text}", group.broker_name, replica.node);
                differences.extend(verdict.iter().map(of));
            }
            brokers.push(as_json(group, index, &replicas, &verdicts));
        }
        let equal = differences.is_empty();
        let json = json!({ "equal": equal, "brokers": brokers, "differences": differences });
        let report = Report::new(json).rows(rows);
        Ok(if equal { report } else { report.failing("replicas differ") })
    }

    async fn read(&self, group: &GroupStatus) -> Result<(u64, Vec<Replica>)> {
        let leader = group.members.iter().find(|node| node.node_id == group.leader_id);
        let leader = leader.with_context(|| format!("{} has no leader", group.broker_name))?;
        let mut client = ReplicasClient::new(connect::dial_one(&leader.client_address).await?);
        let mut request = Request::new(MarkRequest {});
        request.set_timeout(CALL_TIMEOUT);
        let index = client.mark(request).await.context("mark a place in the log")?;
        let index = index.into_inner().index;
        let all = group.members.iter().map(|node| self.read_one(node, index));
        Ok((index, futures::future::join_all(all).await))
    }

    async fn read_one(&self, node: &NodeStatus, index: u64) -> Replica {
        let mut segments = BTreeMap::new();
        let digest = self.read_into(node, index, &mut segments).await;
        let (node, address) = (node.node_id, node.client_address.clone());
        Replica { node, address, digest, segments }
    }

    async fn read_into(
        &self,
        node: &NodeStatus,
        index: u64,
        segments: &mut BTreeMap<u64, Segment>,
    ) -> Result<String> {
        let channel = connect::dial_one(&node.client_address).await?;
        let request = ReadRequest { index, digest_only: self.digest_only };
        let call = ReplicasClient::new(channel).read(request).await;
        let mut parts =
            call.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner();
        let mut digest = None;
        loop {
            let part = tokio::time::timeout(SEGMENT_TIMEOUT, parts.message()).await;
            match part.context("silent")?.context("read")?.map(|part| part.part) {
                None => return digest.context("no digest"),
                Some(Some(Part::Digest(found))) => digest = Some(found.digest),
                Some(Some(Part::Segment(segment))) => {
                    segments.insert(segment.base, segment);
                }
                Some(None) => {}
            }
        }
    }
}

/// What is wrong with each of them. Where they differ, what most of them have is taken for right.
fn compare(replicas: &[Replica]) -> Vec<Vec<String>> {
    let digests = replicas.iter().filter_map(|replica| replica.digest.as_ref().ok());
    let right = most_common(digests);
    let bases: BTreeSet<u64> = replicas.iter().flat_map(|r| r.segments.keys().copied()).collect();
    let sound = |segment: &&Segment| segment.damage.is_empty();
    let sums: BTreeMap<u64, (u64, u32)> = bases
        .into_iter()
        .filter_map(|base| {
            let all = replicas.iter().filter_map(|r| r.segments.get(&base)).filter(sound);
            let sums: Vec<_> = all.map(|segment| (segment.last_index, segment.crc)).collect();
            Some((base, *most_common(sums.iter())?))
        })
        .collect();
    let judge = |replica: &Replica| {
        let mut found = Vec::new();
        match &replica.digest {
            Err(error) => found.push(format!("not compared: {error:#}")),
            Ok(digest) if Some(digest) != right => found.push("another digest".to_owned()),
            Ok(_) => {}
        }
        for (base, segment) in &replica.segments {
            if !segment.damage.is_empty() {
                found.push(format!("segment {base}: {}", segment.damage));
            } else if sums.get(base) != Some(&(segment.last_index, segment.crc)) {
                found.push(format!("segment {base} differs"));
            }
        }
        found
    };
    replicas.iter().map(judge).collect()
}

fn most_common<'a, T: Ord>(all: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let mut counts: BTreeMap<&T, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one)
}

fn as_json(
    group: &GroupStatus,
    index: u64,
    replicas: &[Replica],
    verdicts: &[Vec<String>],
) -> Value {
    let replica = |(replica, verdict): (&Replica, &Vec<String>)| {
        let segment = |segment: &Segment| {
            json!({
                "base": segment.base,
                "last_index": segment.last_index,
                "crc": format!("{:08x}", segment.crc),
                "damage": segment.damage,
            })
        };
        json!({
            "node_id": replica.node,
            "address": replica.address,
            "digest": replica.digest.as_ref().ok(),
            "segments": replica.segments.values().map(segment).collect::<Vec<_>>(),
            "differences": verdict,
        })
    };
    json!({
        "broker_name": group.broker_name,
        "index": index,
        "replicas": replicas.iter().zip(verdicts).map(replica).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u64, digest: &str, segments: &[(u64, u32, &str)]) -> Replica {
        let segment = |&(base, crc, damage): &(u64, u32, &str)| {
            (base, Segment { base, last_index: base + 9, crc, damage: damage.to_owned() })
        };
        let segments = segments.iter().map(segment).collect();
        Replica { node, address: String::new(), digest: Ok(digest.to_owned()), segments }
    }

    #[test]
    fn the_one_that_differs_is_named() {
        let good = [(0, 7, ""), (100, 8, "")];
        let all = [replica(1, "a", &good), replica(2, "a", &good), replica(3, "a", &good[1..])];
        assert!(compare(&all).iter().all(Vec::is_empty), "one may have removed more");
        let all = [
            replica(1, "a", &good),
            replica(2, "b", &[(0, 7, ""), (100, 9, "")]),
            replica(3, "a", &[(0, 0, "bad checksum"), (100, 8, "")]),
        ];
        let found = compare(&all);
        assert!(found[0].is_empty(), "{found:?}");
        assert_eq!(found[1], ["another digest", "segment 100 differs"]);
        assert_eq!(found[2], ["segment 0: bad checksum"]);
    }

    #[test]
    fn one_that_cannot_be_asked_is_no_success() {
        let mut all = [replica(1, "a", &[]), replica(2, "a", &[])];
        all[1].digest = Err(anyhow::anyhow!("refused"));
        assert_eq!(compare(&all)[1], ["not compared: refused"]);
    }
}
