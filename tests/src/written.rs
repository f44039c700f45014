//! What replicas write to their disks for the bodies that they store.

use crate::Cluster;

/// What a replica may write for each byte of a body, all in all: its log, its indexes, its share of
/// the group's own entries.
const MOST: f64 = 1.25;
/// Less than this and the counters did not see the writes.
const LEAST: f64 = 0.9;
const MIB: u64 = 1 << 20;

/// The kernel's counters of each replica as they were.
#[derive(Debug)]
pub struct Written<'a> {
    cluster: &'a Cluster,
    before: Vec<u64>,
}

impl<'a> Written<'a> {
    /// From now on; whatever is under way is waited for.
    pub async fn by(cluster: &'a Cluster) -> Self {
        cluster.replicas_agree().await;
        Self { cluster, before: counters(cluster) }
    }

    /// So many bytes of bodies were stored since then, and each was written once on each replica.
    /// `what` they were is printed with the figure.
    ///
    /// # Panics
    /// When more was written, or nothing was seen.
    pub async fn holds_each_body_once(self, what: &str, bodies: u64) {
        self.cluster.replicas_agree().await;
        let after = counters(self.cluster);
        for ((node, before), after) in self.cluster.nodes.iter().zip(self.before).zip(after) {
            let written = after - before;
            #[allow(clippy::cast_precision_loss, reason = "a ratio of a few hundred MiB")]
            let ratio = written as f64 / bodies as f64;
            let (mib, of) = (written / MIB, bodies / MIB);
            eprintln!("{node:?} wrote {mib} MiB for {of} MiB of bodies: {ratio:.3} ({what})");
            assert!(
                ratio > LEAST,
                "the counters saw {ratio:.3} of the bodies: the scratch directory is not on a disk \
                 that is counted; name another with MQTEST_DIR"
            );
            assert!(ratio <= MOST, "{node:?} wrote {ratio:.3} times the bodies");
        }
    }
}

fn counters(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.iter().map(|n| n.bytes_written().expect("the kernel's counters")).collect()
}
