//! `mqadmin`: topics, consumer groups, connections and leaders.
//!
//! Names and flags are RocketMQ's; the calls go over `raftmq.admin.v1` to any access point.

use std::{future::Future, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use proto::admin::{ClusterStatusRequest, GroupStatus, admin_client::AdminClient};
use tonic::{Request, Response, Status, transport::Channel};

use self::operator::Operator;
use crate::{connect, failure::Failure, output::Report};

mod attributes;
mod backoff;
mod backup;
mod balance;
mod catch_up;
mod change;
mod cluster;
mod connections;
mod consume_message;
mod consumer_group;
mod dead_letters;
mod log_level;
mod members;
mod messages;
mod offsets;
mod operator;
mod raft_status;
mod replicas;
mod route;
mod send_message;
mod timers;
mod topic;
mod transaction;
mod when;

/// No command waits longer for its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
#[command(name = "mqadmin", version, about = "Administers a RaftMQ cluster.")]
pub struct Args {
    /// NameServers or brokers, any of which will do: HOST:PORT, several with `;` between them.
    #[arg(
        short = 'n',
        long = "namesrvAddr",
        global = true,
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876"
    )]
    pub namesrv: String,

    /// File with the operators' secret, for brokers with admin.secret_file.
    #[arg(long = "secret-file", global = true, env = "RAFTMQ_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

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
}

/// Carries out one command.
pub async fn run(args: Args) -> Result<Report> {
    let operator = Operator::new(args.secret_file.as_deref())?;
    let (channel, address) = connect::dial(&args.namesrv).await?;
    let session = Session { client: AdminClient::new(channel.clone()), channel, address, operator };
    match args.command {
        Command::UpdateTopic(command) => command.run(&session).await,
        Command::DeleteTopic(command) => command.run(&session).await,
        Command::DeleteSubGroup(command) => command.run(&session).await,
        Command::UpdateQuota(command) => command.run(&session).await,
        Command::QuotaList => change::list_quotas(&session).await,
        Command::TopicList => topic::list(&session).await,
        Command::TopicStatus(command) => command.run(&session).await,
        Command::UpdateTopicPerm(command) => command.run(&session).await,
        Command::TopicRoute(command) => command.run(&session).await,
        Command::SendMessage(command) => command.run(&args.namesrv).await,
        Command::ConsumeMessage(command) => command.run(&args.namesrv).await,
        Command::ClusterList(command) => command.run(&session).await,
        Command::UpdateSubGroup(command) => command.run(&session).await,
        Command::GetConsumerConfig(command) => command.run(&session).await,
        Command::ConsumerProgress(command) => command.run(&session).await,
        Command::DlqRedrive(command) => command.run(&session).await,
        Command::ResetOffsetByTime(command) => command.run(&session).await,
        Command::SkipAccumulatedMessage(command) => command.run(&session).await,
        Command::QueryMsgById(command) => command.run(&session).await,
        Command::QueryMsgByKey(command) => command.run(&session).await,
        Command::QueryMsgByOffset(command) => command.run(&session).await,
        Command::PrintMsg(command) => command.run(&session).await,
        Command::ConsumerConnection(command) => command.run(&session).await,
        Command::ProducerConnection(command) => command.run(&session).await,
        Command::TimerList(command) => command.run(&session).await,
        Command::TxList(command) => command.run(&session).await,
        Command::TxResolve(command) => command.run(&session).await,
        Command::TransferLeader(command) => command.run(&session).await,
        Command::BalanceLeaders(command) => command.run(&session).await,
        Command::RaftStatus(command) => command.run(&session).await,
        Command::AddLearner(command) => command.run(&session).await,
        Command::Promote(command) => command.run(&session).await,
        Command::Demote(command) => command.run(&session).await,
        Command::RemovePeer(command) => command.run(&session).await,
        Command::ReplacePeer(command) => command.run(&session).await,
        Command::UpdatePeer(command) => command.run(&session).await,
        Command::Drain(command) => command.run(&session).await,
        Command::VerifyReplicas(command) => command.run(&session).await,
        Command::Backup(command) => command.run(&session, args.json).await,
        Command::ChangeLogLevel(command) => command.run(&session.operator, &args.namesrv).await,
    }
}

/// One connection to an access point.
struct Session {
    client: AdminClient<Channel>,
    channel: Channel,
    address: String,
    operator: Operator,
}

impl Session {
    /// Makes one call with a deadline.
    async fn call<Q, A, F>(
        &self,
        request: Q,
        rpc: impl FnOnce(AdminClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        match rpc(self.client.clone(), self.operator.request(request)).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Failure::of_status(&status, &self.address)),
        }
    }

    async fn broker_groups(&self) -> Result<Vec<GroupStatus>, Failure> {
        let answer = self
            .call(ClusterStatusRequest {}, |mut c, r| async move { c.cluster_status(r).await })
            .await?;
        Failure::of(answer.error)?;
        Ok(answer.groups)
    }
}
