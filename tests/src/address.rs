//! A loopback address for each cluster, so that clusters that run side by side cannot meet.
//!
//! The port of a node that is down stays free: outgoing connections take their ports on 127.0.0.1,
//! and no other cluster has this address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// One address out of 127.0.0.0/8 that no other cluster of this machine's tests uses.
#[derive(Debug, Clone, Copy)]
pub struct Host(Ipv4Addr);

impl Host {
    /// The next address of this process.
    #[must_use]
    pub fn reserve() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Process ids have up to 22 bits and clusters per process are few: what is left of the
        // 24 bits below 127 makes collisions unlikely, and the choice of a free port the rest.
        let [_, high, middle, low] =
            std::process::id().wrapping_mul(61).wrapping_add(count).to_be_bytes();
        Self(Ipv4Addr::new(127, 1 + high % 250, middle, 1 + low % 250))
    }

    /// A port on this address that nobody listens on now.
    ///
    /// # Panics
    /// When the address cannot be bound, which on Linux means that the ports are used up.
    #[must_use]
    pub fn free_port(self) -> SocketAddr {
        let probe = TcpListener::bind((self.0, 0)).expect("a free port on a loopback address");
        probe.local_addr().expect("a bound socket has an address")
    }

    /// The address without a port.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        IpAddr::V4(self.0)
    }
}

/// One free port on both addresses of the name `localhost`, below the range that outgoing
/// connections use.
///
/// # Panics
/// When there is none, or when this machine has no IPv6 loopback address.
#[must_use]
pub fn localhost_port() -> [SocketAddr; 2] {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("below ten thousand");
    (first..32_000)
        .map(|port| [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
        .find(|both: &[SocketAddr; 2]| both.iter().all(|one| TcpListener::bind(one).is_ok()))
        .expect("a port that is free on 127.0.0.1 and on ::1; the machine needs an IPv6 loopback")
}
