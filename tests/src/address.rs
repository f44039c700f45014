//! A loopback address for each cluster, so that clusters that run side by side cannot meet.
//!
//! The port of a node that is down stays free: outgoing connections take their ports on 127.0.0.1,
//! and no other cluster has this address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses that one cluster has.
const SIBLINGS: u8 = 16;

/// One address out of 127.0.0.0/8 that no other cluster of this machine's tests uses.
#[derive(Debug, Clone, Copy)]
pub struct Host(Ipv4Addr);

impl Host {
    /// The next address of this process.
    #[must_use]
    pub fn reserve() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Process ids have up to 22 bits and clusters per process are few. What the 24 bits below
        // 127 cannot tell apart, the choice of free ports does.
        let number = std::process::id().wrapping_mul(61).wrapping_add(count);
        let part = |of: u32, values: u32| u8::try_from(of % values).expect("below 256");
        let last = 1 + SIBLINGS * part(number, 15);
        Self(Ipv4Addr::new(127, 1 + part(number / 3840, 250), part(number / 15, 256), last))
    }

    /// An address that nobody else has, such as one in a network of the test's own.
    #[must_use]
    pub fn at(address: Ipv4Addr) -> Self {
        Self(address)
    }

    /// Another address of the same cluster.
    ///
    /// # Panics
    /// When there are not that many.
    #[must_use]
    pub fn sibling(self, number: usize) -> Self {
        let number = u8::try_from(number).ok().filter(|n| *n < SIBLINGS).expect("few siblings");
        let [a, b, c, d] = self.0.octets();
        Self(Ipv4Addr::new(a, b, c, d + number))
    }

    /// A port on this address that nobody listens on now and that was not given before: the probe
    /// is closed again, so the system may well offer the same port twice.
    ///
    /// # Panics
    /// When the address cannot be bound, which on Linux means that the ports are used up.
    #[must_use]
    pub fn free_port(self) -> SocketAddr {
        loop {
            let probe = TcpListener::bind((self.0, 0)).expect("a free port on a loopback address");
            let address = probe.local_addr().expect("a bound socket has an address");
            if Self::give(&[address]) {
                return address;
            }
        }
    }

    /// Notes that these addresses have an owner; changes nothing when one of them had one.
    fn give(addresses: &[SocketAddr]) -> bool {
        static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
        let mut given = GIVEN.lock().expect("no holder panics");
        let free = addresses.iter().all(|address| !given.contains(address));
        if free {
            given.extend(addresses);
        }
        free
    }

    /// The same free port on this address and its next siblings, `count` addresses in all.
    ///
    /// # Panics
    /// When no port is free on all of them.
    #[must_use]
    pub fn shared_port(self, count: usize) -> Vec<SocketAddr> {
        for _ in 0..100 {
            let first = self.free_port();
            let others = (1..count).map(|n| SocketAddr::from((self.sibling(n).0, first.port())));
            let others: Vec<SocketAddr> = others.collect();
            let free = others.iter().all(|address| TcpListener::bind(address).is_ok());
            if free && Self::give(&others) {
                return [first].into_iter().chain(others).collect();
            }
        }
        panic!("no port is free on {count} addresses");
    }

    /// The address without a port.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        IpAddr::V4(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        // The range that the system chooses from has 28,232 ports: of 2,000 that are closed again
        // at once, some come twice.
        let host = Host::reserve();
        let mut seen = BTreeSet::new();
        for _ in 0..2_000 {
            assert!(seen.insert(host.free_port()));
        }
        for _ in 0..20 {
            for address in host.shared_port(3) {
                assert!(seen.insert(address), "{address}");
            }
        }
    }
}
