//! More broker groups: more throughput where there are machines for them, and for each message the
//! same work as with one.

use anyhow::Result;
use tests::Cluster;

use crate::Plan;
use crate::load;
use crate::table::Table;

const GROUPS: [u8; 3] = [1, 2, 4];
const REPLICAS: f64 = 3.0;
/// An access point sends each message on once.
const HOPS: f64 = 1.01;
/// Smaller batches in each of more groups share their headers among fewer messages.
const GROWTH: f64 = 1.1;

/// What was done for all messages, over all nodes.
#[derive(Debug, Clone, Copy)]
struct Work {
    messages: f64,
    hops: f64,
    log_bytes: f64,
    disk_bytes: f64,
}

impl Work {
    async fn of(cluster: &Cluster) -> Result<Work> {
        let mut work = Work { messages: 0.0, hops: 0.0, log_bytes: 0.0, disk_bytes: 0.0 };
        for node in &cluster.nodes {
            work.messages += node.metric("raftmq_sent_messages_total").await?;
            work.hops += node.metric("raftmq_forwarded_calls_total").await?;
            work.log_bytes += node.metric("raftmq_log_end_offset").await?;
            #[allow(clippy::cast_precision_loss, reason = "bytes far below 2^53")]
            let written = node.bytes_written()? as f64;
            work.disk_bytes += written;
        }
        let nameserver = &cluster.nameservers[0];
        work.hops += nameserver.metric("raftmq_namesrv_forwarded_calls_total").await?;
        Ok(work)
    }

    /// What each message took since `before`.
    fn each_since(self, before: Work) -> Work {
        let messages = self.messages - before.messages;
        Work {
            messages,
            hops: (self.hops - before.hops) / messages,
            log_bytes: (self.log_bytes - before.log_bytes) / messages / REPLICAS,
            disk_bytes: (self.disk_bytes - before.disk_bytes) / messages / REPLICAS,
        }
    }
}

pub(crate) async fn run(plan: Plan, table: &mut Table) -> Result<()> {
    let duration = plan.duration();
    let mut alone: Option<Work> = None;
    for groups in GROUPS {
        let cluster = Cluster::of(3).groups(groups).start().await;
        cluster.topic("spread", 4).await;
        let access_point = cluster.nameservers[0].address;
        let before = Work::of(&cluster).await?;
        let load = ["produce", "--topic", "spread", "--duration", &duration];
        let figure = load::start_at(&cluster, access_point, &load)?.figure().await?;
        cluster.replicas_agree().await;
        let each = Work::of(&cluster).await?.each_since(before);
        let first = *alone.get_or_insert(each);
        let what = format!("{groups} broker groups of 3, 256 sends in flight");
        let measured = format!(
            "{:.0} messages/s; each {:.3} hops, {:.0} bytes of log and {:.0} of disk a replica",
            figure.per_second, each.hops, each.log_bytes, each.disk_bytes
        );
        let good = each.hops <= HOPS && each.log_bytes <= GROWTH * first.log_bytes;
        let reach = format!("{HOPS} hops, log at most {GROWTH}x of one group");
        table.reach(what, measured, reach, good);
        cluster.finish().await;
    }
    Ok(())
}
