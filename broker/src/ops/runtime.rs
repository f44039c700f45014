//! The runtime table of this node: what `brokerStatus` shows, under RocketMQ's names where it has one
//! for the thing.

use proto::clock::wall_now;

use super::Broker;
use crate::metrics::{Rates, Windows};

impl Broker {
    /// How much passes.
    pub fn rates(&self) -> &Rates {
        self.metrics.rates()
    }

    /// By name.
    pub fn runtime(&self) -> Vec<(&'static str, String)> {
        let (status, kept) = (self.group.status(), self.view.kept());
        let rates = self.metrics.rates();
        let index = |index: Option<raft::LogIndex>| index.map_or(0, |index| index.0);
        let span = self.group.log_span().map_or(0..0, |span| span.start.0..span.end.0);
        let (space, unresolved) = (self.disk.space(), self.view.unresolved());
        let (put, got) = (rates.put(), rates.got());
        let average = put.bytes.checked_div(put.messages).unwrap_or(0);
        let member = |member: &raft::Member| format!("{}={}", member.node_id, member.raft_addr);
        let members: Vec<String> = status.members.iter().map(member).collect();
        // One look: the registry must not be locked twice by one statement.
        let (consumers, producers) = {
            let clients = self.clients();
            let consumers = clients.iter().filter(|(_, client)| client.group.is_some()).count();
            (consumers, clients.iter().count() - consumers)
        };
        let mut table = vec![
            ("bootTimestamp", rates.started().0.to_string()),
            ("brokerActive", status.role.is_leader().to_string()),
            ("brokerVersionDesc", concat!("RaftMQ ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("commitLogDirCapacity", space.total.to_string()),
            ("commitLogDiskRatio", percent(space.used_percent())),
            ("commitLogMaxOffset", span.end.to_string()),
            ("commitLogMinOffset", span.start.to_string()),
            ("consumerClients", consumers.to_string()),
            ("consumerGroups", self.view.consumer_groups().len().to_string()),
            (
                "dispatchBehindEntries",
                (index(status.committed) - index(status.applied).min(index(status.committed)))
                    .to_string(),
            ),
            ("earliestMessageTimeStamp", kept.since.map_or(0, |since| since.0).to_string()),
            ("featureLevel", self.view.level().to_string()),
            ("getFoundTps", windows(rates.got_windows())),
            ("getMessageSizeTotal", got.bytes.to_string()),
            ("getMessageTimesTotal", got.messages.to_string()),
            ("longPolls", self.waiting.len().to_string()),
            ("producerClients", producers.to_string()),
            ("putMessageAverageSize", average.to_string()),
            ("putMessageSizeTotal", put.bytes.to_string()),
            ("putMessageTimesTotal", put.messages.to_string()),
            ("putTps", windows(rates.put_windows())),
            ("raftApplied", index(status.applied).to_string()),
            ("raftCommitted", index(status.committed).to_string()),
            ("raftLast", index(status.last).to_string()),
            ("raftLeader", status.leader.map_or_else(String::new, |node| node.to_string())),
            ("raftMembers", members.join(",")),
            ("raftPurged", index(status.purged).to_string()),
            ("raftRole", status.role.kind.as_str().to_owned()),
            ("raftTerm", status.term.to_string()),
            ("runtime", runtime(proto::clock::millis(wall_now().since(rates.started())))),
            ("sendBytesInProgress", self.send_budget.used().to_string()),
            ("timerPending", self.view.timers_pending().to_string()),
            ("topics", self.view.topics().len().to_string()),
            ("transactionsParked", unresolved.parked.to_string()),
            ("transactionsPending", unresolved.pending.to_string()),
        ];
        let today = |name, flow: [u64; 3]| {
            let [yesterday, morning, now]: [&'static str; 3] = name;
            [(yesterday, flow[0]), (morning, flow[1]), (now, flow[2])]
        };
        let puts =
            ["msgPutTotalYesterdayMorning", "msgPutTotalTodayMorning", "msgPutTotalTodayNow"];
        let gets =
            ["msgGetTotalYesterdayMorning", "msgGetTotalTodayMorning", "msgGetTotalTodayNow"];
        let days = today(puts, rates.put_days()).into_iter().chain(today(gets, rates.got_days()));
        table.extend(days.map(|(name, count)| (name, count.to_string())));
        table.sort_unstable();
        table
    }
}

/// Of 10 s, 1 min and 10 min, as RocketMQ writes it.
fn windows(Windows([ten_seconds, minute, ten_minutes]): Windows) -> String {
    format!("{ten_seconds:.1} {minute:.1} {ten_minutes:.1}")
}

fn percent(percent: u64) -> String {
    format!("{}.{:02}", percent / 100, percent % 100)
}

/// As RocketMQ writes it.
fn runtime(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    format!(
        "[ {days} days, {} hours, {} minutes, {} seconds ]",
        hours % 24,
        minutes % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_rocketmq_writes_them() {
        assert_eq!(windows(Windows([1.0, 2.25, 0.0])), "1.0 2.2 0.0");
        assert_eq!(percent(7), "0.07");
        assert_eq!(runtime(90_061_000), "[ 1 days, 1 hours, 1 minutes, 1 seconds ]");
    }
}
