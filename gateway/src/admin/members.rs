//! Members of one broker group: their leader is asked.

use proto::{
    BrokerName,
    admin::{
        ChangeMembershipRequest, ChangeMembershipResponse, Error, RaftStatusRequest,
        RaftStatusResponse,
    },
};

use super::{AdminFanout, calls, fanout::chosen};
use crate::{Caller, Directory, retry::Repeat};

impl<D: Directory> AdminFanout<D> {
    /// Made twice it is made once, so that a change which its leader did not live to answer is
    /// taken to the next.
    pub(super) async fn change_members(
        &self,
        caller: &Caller,
        request: ChangeMembershipRequest,
    ) -> Result<ChangeMembershipResponse, Error> {
        let group = self.one_group(caller, &request.broker_name).await?;
        self.call::<calls::ChangeMembership>(caller, &group, Repeat::Safe, request).await
    }

    pub(super) async fn raft_status_of(
        &self,
        caller: &Caller,
        request: RaftStatusRequest,
    ) -> Result<RaftStatusResponse, Error> {
        let group = self.one_group(caller, &request.broker_name).await?;
        self.call::<calls::RaftStatus>(caller, &group, Repeat::Safe, request).await
    }

    async fn one_group(&self, caller: &Caller, name: &str) -> Result<BrokerName, Error> {
        let groups = self.groups(caller).await?;
        let mut chosen = chosen(&groups, &[name.to_owned()])?;
        Ok(chosen.pop().expect("one name gives one group"))
    }
}
