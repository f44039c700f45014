//! Disks that answer with an error: the program itself is told to make one system call fail
//! (`fault.disk`), so that nothing between it and a real disk is needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use super::{Class, Tools, processes};

/// Which of the calls after the start fails.
const NTH: std::ops::Range<u64> = 5..120;

/// Starts the nodes again with a disk that will fail. A broker ends when it cannot write or sync,
/// and says so: what it does not know to be stored it must not acknowledge.
pub(super) async fn arm(
    tools: &Arc<Tools>,
    class: Class,
    places: &BTreeSet<usize>,
    random: &mut StdRng,
) -> Result<()> {
    let call = match class {
        Class::ErrorSync => "sync",
        Class::ErrorWrite => "write",
        _ => "read",
    };
    processes::stop(tools, places).await?;
    for place in places {
        let node = &tools.cluster.nodes[*place];
        node.let_end(true);
        let fault = format!("fault.disk={call} {}", random.random_range(NTH));
        node.set_extra(vec!["--set".into(), fault.into()]);
        node.start();
    }
    Ok(())
}

/// Disks are well again.
pub(super) async fn disarm(tools: &Arc<Tools>, places: &BTreeSet<usize>) -> Result<()> {
    processes::kill(tools, places).await?;
    for place in places {
        let node = &tools.cluster.nodes[*place];
        node.set_extra(Vec::new());
        node.let_end(false);
        node.start();
    }
    Ok(())
}
