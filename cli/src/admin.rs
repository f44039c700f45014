//! `mqadmin`: topics, consumer groups, connections and leaders.
//!
//! Names and flags are RocketMQ's; the calls go over `raftmq.admin.v1` to any access point.

use std::{future::Future, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;
use proto::admin::{ClusterStatusRequest, GroupStatus, admin_client::AdminClient};
use tonic::{Request, Response, Status, transport::Channel};

use self::operator::Operator;
use crate::{connect, failure::Failure, output::Report};

mod allocate;
mod attributes;
mod backoff;
mod backup;
mod balance;
mod broker_config;
mod catch_up;
mod change;
mod clone_offsets;
mod cluster;
mod command;
mod completion;
mod connections;
mod consume_message;
mod consumer_group;
mod consumer_status;
mod dead_letters;
mod export;
mod in_flight;
mod invocation;
mod log_level;
mod manual;
mod members;
mod messages;
mod nodes;
mod offsets;
mod operator;
mod progress;
mod raft_status;
mod replicas;
mod route;
mod send_message;
mod send_time;
mod snapshot;
mod stats;
mod timers;
mod topic;
mod transaction;
mod when;

pub use command::Command;
pub use invocation::Invocation;

/// No command waits longer for its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For what a node does for as long as its disk takes.
const LONG_CALL_TIMEOUT: Duration = Duration::from_mins(10);

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

/// Carries out one command.
pub async fn run(args: Args) -> Result<Report> {
    if let Command::Completion(command) = args.command {
        return command.run();
    }
    let operator = Operator::new(args.secret_file.as_deref())?;
    let (channel, address) = connect::dial(&args.namesrv).await?;
    let session = Session { client: AdminClient::new(channel.clone()), channel, address, operator };
    args.command.run(&session, &args.namesrv, args.json).await
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
        self.call_within(CALL_TIMEOUT, request, rpc).await
    }

    /// Makes one call that may take long.
    async fn call_patiently<Q, A, F>(
        &self,
        request: Q,
        rpc: impl FnOnce(AdminClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_within(LONG_CALL_TIMEOUT, request, rpc).await
    }

    async fn call_within<Q, A, F>(
        &self,
        timeout: Duration,
        request: Q,
        rpc: impl FnOnce(AdminClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = self.operator.lasting_request(request);
        request.set_timeout(timeout);
        match rpc(self.client.clone(), request).await {
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
