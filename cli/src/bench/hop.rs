//! Which two nodes to compare to see what forwarding costs.

use anyhow::Result;
use clap::Args;

use super::facts;

#[derive(Clone, Debug, Args)]
pub struct HopArgs {
    /// The leader's client address. Found out where there is one broker.
    #[arg(long, requires = "access_point", value_name = "HOST:PORT")]
    pub leader: Option<String>,
    /// A node that forwards to it: a NameServer, or another replica.
    #[arg(long, requires = "leader", value_name = "HOST:PORT")]
    pub access_point: Option<String>,
}

impl HopArgs {
    /// The leader, and a node that forwards.
    pub(super) async fn find(&self, endpoint: &str) -> Result<(String, String)> {
        match (&self.leader, &self.access_point) {
            (Some(leader), Some(access_point)) => Ok((leader.clone(), access_point.clone())),
            _ => facts::leader_and_other(endpoint).await,
        }
    }
}
