//! What is said of each command beyond its flags. Tests hold that every command is here, that the
//! examples are understood, and that each is run against a cluster and shown in
//! `docs/operations/mqadmin.md`.

/// A command's page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) name: &'static str,
    /// It changes nothing, so that it may be watched.
    pub(super) looks: bool,
    /// Without the name of the program.
    pub(super) example: &'static str,
}

const fn looks(name: &'static str, example: &'static str) -> Page {
    Page { name, looks: true, example }
}

const fn changes(name: &'static str, example: &'static str) -> Page {
    Page { name, looks: false, example }
}

/// In the order of `mqadmin --help`.
pub(super) const PAGES: &[Page] = &[
    changes("updateTopic", "updateTopic -c DefaultCluster -t orders -w 8"),
    changes("deleteTopic", "deleteTopic -c DefaultCluster -t orders --yes"),
    changes("deleteSubGroup", "deleteSubGroup -c DefaultCluster -g billing --yes"),
    changes("updateQuota", "updateQuota -t orders --messages 1000 --bytes 10000000"),
    looks("quotaList", "quotaList"),
    looks("topicList", "topicList"),
    looks("topicStatus", "topicStatus -t orders"),
    changes("updateTopicPerm", "updateTopicPerm -t orders -p 4"),
    looks("topicRoute", "topicRoute -t orders"),
    changes("sendMessage", "sendMessage -t orders -p hello -k order-7 -c red"),
    looks("consumeMessage", "consumeMessage -t orders -c 3"),
    looks("clusterList", "clusterList"),
    changes("updateSubGroup", "updateSubGroup -c DefaultCluster -g billing -r 5"),
    looks("getConsumerConfig", "getConsumerConfig -g billing"),
    looks("consumerProgress", "consumerProgress -g billing"),
    changes("dlqRedrive", "dlqRedrive -g billing -m 100"),
    changes("resetOffsetByTime", "resetOffsetByTime -g billing -t orders -s now --yes"),
    changes("skipAccumulatedMessage", "skipAccumulatedMessage -g billing -t orders --yes"),
    looks("queryMsgById", "queryMsgById -t orders -i 01B4D9A2C37D6B7C0F0000000000000001"),
    looks("queryMsgByKey", "queryMsgByKey -t orders -k order-7"),
    looks("queryMsgByOffset", "queryMsgByOffset -t orders -b broker-a -i 0 -o 0"),
    looks("printMsg", "printMsg -t orders -m 3"),
    looks("consumerConnection", "consumerConnection -g billing"),
    looks("producerConnection", "producerConnection -t orders"),
    looks("timerList", "timerList -t reminders"),
    looks("txList", "txList --parked"),
    changes("txResolve", "txResolve -i ID --commit"),
    changes("transferLeader", "transferLeader -b broker-a -i 2"),
    changes("balanceLeaders", "balanceLeaders"),
    looks("raftStatus", "raftStatus -b broker-a"),
    changes("addLearner", "addLearner -b broker-a -i 4 --watch"),
    changes("promote", "promote -b broker-a -i 4 --watch"),
    changes("demote", "demote -b broker-a -i 4 --yes"),
    changes("removePeer", "removePeer -b broker-a -i 4 --yes"),
    changes("replacePeer", "replacePeer -b broker-a -i 3 --with 5 --yes"),
    changes("updatePeer", "updatePeer -b broker-a -i 2 -r 10.0.0.7:40911"),
    changes("drain", "drain -b broker-a -i 1"),
    changes("verifyReplicas", "verifyReplicas"),
    changes("backup", "backup -b broker-a --to /backups/broker-a"),
    changes("changeLogLevel", "changeLogLevel -l debug"),
    looks("brokerStatus", "brokerStatus -b broker-a"),
    looks("statsAll", "statsAll"),
    looks("brokerConsumeStats", "brokerConsumeStats -b broker-a"),
    looks("getBrokerConfig", "getBrokerConfig -b broker-a --changed"),
    changes("updateBrokerConfig", "updateBrokerConfig -b broker-a -k log.retention_time -v 48h"),
    looks("consumerStatus", "consumerStatus -g billing"),
    looks("popInflight", "popInflight -g billing"),
    changes("cloneGroupOffset", "cloneGroupOffset -s billing -d audit -t orders --yes"),
    changes("snapshotNow", "snapshotNow -b broker-a"),
    changes("checkMsgSendRT", "checkMsgSendRT -t orders -a 20"),
    looks("allocateMQ", "allocateMQ -t orders -i 10.0.0.1,10.0.0.2"),
    looks("topicClusterList", "topicClusterList -t orders"),
    changes("exportMetadata", "exportMetadata"),
    changes("completion", "completion bash"),
];

pub(super) fn page(name: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.name == name)
}
