//! Every command, and who carries it out.

use anyhow::Result;
use clap::Subcommand;

use super::{
    Session, allocate, backup, balance, broker_config, change, clone_offsets, cluster, completion,
    connections, consume_message, consumer_group, consumer_status, dead_letters, export, in_flight,
    log_level, members, messages, offsets, raft_status, replicas, route, send_message, send_time,
    snapshot, stats, timers, topic, transaction,
};
use crate::output::Report;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Creates a topic or changes one. What is not given stays as it is.
    #[command(name = "updateTopic")]
    UpdateTopic(topic::Update),
    /// Deletes a topic with its messages.
    #[command(name = "deleteTopic")]
    DeleteTopic(change::DeleteTopic),
    /// Deletes a consumer group with its progress.
    #[command(name = "deleteSubGroup")]
    DeleteSubGroup(change::DeleteGroup),
    /// Bounds what a topic, a consumer group or a client may pass in a second.
    #[command(name = "updateQuota")]
    UpdateQuota(change::UpdateQuota),
    /// Lists the quotas.
    #[command(name = "quotaList")]
    QuotaList,
    /// Lists the topics.
    #[command(name = "topicList")]
    TopicList,
    /// Shows where each queue of a topic begins and ends.
    #[command(name = "topicStatus")]
    TopicStatus(topic::Status),
    /// Changes whether a topic may be read and written.
    #[command(name = "updateTopicPerm")]
    UpdateTopicPerm(topic::UpdatePermission),
    /// Shows the queues of a topic and where they are, as a client is told.
    #[command(name = "topicRoute")]
    TopicRoute(route::Route),
    /// Sends a message, to try a topic out.
    #[command(name = "sendMessage")]
    SendMessage(send_message::Send),
    /// Reads messages of a topic without consuming them.
    #[command(name = "consumeMessage")]
    ConsumeMessage(consume_message::Consume),
    /// Lists the brokers, their replicas and who leads.
    #[command(name = "clusterList")]
    ClusterList(cluster::List),
    /// Creates a consumer group or changes one. What is not given stays as it is.
    #[command(name = "updateSubGroup")]
    UpdateSubGroup(consumer_group::Update),
    /// Shows the settings of a consumer group.
    #[command(name = "getConsumerConfig")]
    GetConsumerConfig(consumer_group::Settings),
    /// Shows how far consumer groups have come.
    #[command(name = "consumerProgress")]
    ConsumerProgress(consumer_group::Progress),
    /// Puts the dead letters of a consumer group back into the queues that they come from.
    #[command(name = "dlqRedrive")]
    DlqRedrive(dead_letters::Redrive),
    /// Puts a consumer group where the topic was at a time, or at an offset.
    #[command(name = "resetOffsetByTime")]
    ResetOffsetByTime(offsets::Reset),
    /// Has a consumer group skip everything that it has not consumed.
    #[command(name = "skipAccumulatedMessage")]
    SkipAccumulatedMessage(offsets::Skip),
    /// Shows a message and what became of it.
    #[command(name = "queryMsgById", alias = "queryMsgByUniqueKey")]
    QueryMsgById(messages::ById),
    /// Lists the messages that have a key.
    #[command(name = "queryMsgByKey")]
    QueryMsgByKey(messages::ByKey),
    /// Shows the message at a place of a queue and what became of it.
    #[command(name = "queryMsgByOffset")]
    QueryMsgByOffset(messages::ByOffset),
    /// Lists the messages of a topic by time.
    #[command(name = "printMsg")]
    PrintMsg(messages::Print),
    /// Lists a consumer group's connected consumers and what they subscribe to.
    #[command(name = "consumerConnection")]
    ConsumerConnection(connections::Consumers),
    /// Lists the connected producers.
    #[command(name = "producerConnection")]
    ProducerConnection(connections::Producers),
    /// Lists the delayed messages of a topic that wait for their time.
    #[command(name = "timerList")]
    TimerList(timers::List),
    /// Lists transactions that have not ended.
    #[command(name = "txList")]
    TxList(transaction::List),
    /// Commits a transaction or rolls it back in place of its producer.
    #[command(name = "txResolve")]
    TxResolve(transaction::Resolve),
    /// Asks the leader of a broker to hand over to another replica.
    #[command(name = "transferLeader")]
    TransferLeader(cluster::Transfer),
    /// Spreads leadership of the brokers evenly over the machines.
    #[command(name = "balanceLeaders")]
    BalanceLeaders(balance::Balance),
    /// Shows how far each replica of a broker has come, and who waits to be added.
    #[command(name = "raftStatus")]
    RaftStatus(raft_status::Status),
    /// Adds a node that waits (broker --join) as a learner.
    #[command(name = "addLearner")]
    AddLearner(members::AddLearner),
    /// Gives a learner that has caught up a vote.
    #[command(name = "promote")]
    Promote(members::Promote),
    /// Takes a voter's vote; it goes on following.
    #[command(name = "demote")]
    Demote(members::Demote),
    /// Takes a node out of its broker for good.
    #[command(name = "removePeer")]
    RemovePeer(members::Remove),
    /// Puts another node in the place of one that is dead or to go.
    #[command(name = "replacePeer")]
    ReplacePeer(members::Replace),
    /// Tells a broker's replicas the new address of one of them.
    #[command(name = "updatePeer")]
    UpdatePeer(members::Update),
    /// Has a node hand leadership away and not lead, for maintenance.
    #[command(name = "drain")]
    Drain(members::Drain),
    /// Compares the replicas of each broker group: the digests of their states, and the checksums of
    /// the segments on their disks.
    #[command(name = "verifyReplicas")]
    VerifyReplicas(replicas::Verify),
    /// Copies a broker group into a directory while it runs.
    Backup(backup::Backup),
    /// Changes how much the nodes that are named with -n write to their logs, while they run.
    #[command(name = "changeLogLevel")]
    ChangeLogLevel(log_level::Change),
    /// Shows the runtime table of brokers: rates, totals, positions in the log.
    #[command(name = "brokerStatus")]
    BrokerStatus(stats::BrokerStatus),
    /// Shows for each topic and consumer group what passes, and what is not consumed.
    #[command(name = "statsAll")]
    StatsAll(stats::StatsAll),
    /// Shows what each consumer group of a broker has not consumed.
    #[command(name = "brokerConsumeStats")]
    BrokerConsumeStats(stats::BrokerConsumeStats),
    /// Shows the settings of brokers, and where each value comes from.
    #[command(name = "getBrokerConfig")]
    GetBrokerConfig(broker_config::Get),
    /// Changes a setting of brokers while they run, on all replicas.
    #[command(name = "updateBrokerConfig")]
    UpdateBrokerConfig(broker_config::Update),
    /// Shows the consumers of a group and what each of them holds.
    #[command(name = "consumerStatus")]
    ConsumerStatus(consumer_status::Status),
    /// Lists deliveries that are not acknowledged.
    #[command(name = "popInflight")]
    PopInflight(in_flight::List),
    /// Puts a consumer group where another one is.
    #[command(name = "cloneGroupOffset")]
    CloneGroupOffset(clone_offsets::Clone),
    /// Makes a snapshot of each replica of a broker now.
    #[command(name = "snapshotNow")]
    SnapshotNow(snapshot::SnapshotNow),
    /// Sends messages one after the other, and shows how long each takes.
    #[command(name = "checkMsgSendRT")]
    CheckMsgSendRt(send_time::Check),
    /// Shows how pull consumers would share the queues of a topic.
    #[command(name = "allocateMQ")]
    AllocateMq(allocate::Allocate),
    /// Lists the clusters that a topic is in.
    #[command(name = "topicClusterList")]
    TopicClusterList(allocate::Clusters),
    /// Writes topics, consumer groups and quotas to a file.
    #[command(name = "exportMetadata")]
    ExportMetadata(export::Export),
    /// Prints what a shell needs to complete commands and flags.
    Completion(completion::Completion),
}

impl Command {
    pub(super) async fn run(
        self,
        session: &Session,
        namesrv: &str,
        as_json: bool,
    ) -> Result<Report> {
        match self {
            Self::UpdateTopic(command) => command.run(session).await,
            Self::DeleteTopic(command) => command.run(session).await,
            Self::DeleteSubGroup(command) => command.run(session).await,
            Self::UpdateQuota(command) => command.run(session).await,
            Self::QuotaList => change::list_quotas(session).await,
            Self::TopicList => topic::list(session).await,
            Self::TopicStatus(command) => command.run(session).await,
            Self::UpdateTopicPerm(command) => command.run(session).await,
            Self::TopicRoute(command) => command.run(session).await,
            Self::SendMessage(command) => command.run(namesrv).await,
            Self::ConsumeMessage(command) => command.run(namesrv).await,
            Self::ClusterList(command) => command.run(session).await,
            Self::UpdateSubGroup(command) => command.run(session).await,
            Self::GetConsumerConfig(command) => command.run(session).await,
            Self::ConsumerProgress(command) => command.run(session).await,
            Self::DlqRedrive(command) => command.run(session).await,
            Self::ResetOffsetByTime(command) => command.run(session).await,
            Self::SkipAccumulatedMessage(command) => command.run(session).await,
            Self::QueryMsgById(command) => command.run(session).await,
            Self::QueryMsgByKey(command) => command.run(session).await,
            Self::QueryMsgByOffset(command) => command.run(session).await,
            Self::PrintMsg(command) => command.run(session).await,
            Self::ConsumerConnection(command) => command.run(session).await,
            Self::ProducerConnection(command) => command.run(session).await,
            Self::TimerList(command) => command.run(session).await,
            Self::TxList(command) => command.run(session).await,
            Self::TxResolve(command) => command.run(session).await,
            Self::TransferLeader(command) => command.run(session).await,
            Self::BalanceLeaders(command) => command.run(session).await,
            Self::RaftStatus(command) => command.run(session).await,
            Self::AddLearner(command) => command.run(session).await,
            Self::Promote(command) => command.run(session).await,
            Self::Demote(command) => command.run(session).await,
            Self::RemovePeer(command) => command.run(session).await,
            Self::ReplacePeer(command) => command.run(session).await,
            Self::UpdatePeer(command) => command.run(session).await,
            Self::Drain(command) => command.run(session).await,
            Self::VerifyReplicas(command) => command.run(session).await,
            Self::Backup(command) => command.run(session, as_json).await,
            Self::ChangeLogLevel(command) => command.run(&session.operator, namesrv).await,
            Self::BrokerStatus(command) => command.run(session).await,
            Self::StatsAll(command) => command.run(session).await,
            Self::BrokerConsumeStats(command) => command.run(session).await,
            Self::GetBrokerConfig(command) => command.run(session).await,
            Self::UpdateBrokerConfig(command) => command.run(session).await,
            Self::ConsumerStatus(command) => command.run(session).await,
            Self::PopInflight(command) => command.run(session).await,
            Self::CloneGroupOffset(command) => command.run(session).await,
            Self::SnapshotNow(command) => command.run(session).await,
            Self::CheckMsgSendRt(command) => command.run(namesrv).await,
            Self::AllocateMq(command) => command.run(session).await,
            Self::TopicClusterList(command) => command.run(session).await,
            Self::ExportMetadata(command) => command.run(session).await,
            Self::Completion(command) => command.run(),
        }
    }
}
