//! What an operator may choose about an access point.

use std::time::Duration;

/// How QueryRoute presents the cluster to clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RouteMode {
    /// Every queue at the address that the client dialled; the node behind it forwards. A leader's
    /// death costs clients nothing but the election.
    #[default]
    AccessPoint,
    /// Producers that can handle it are spread over the replicas, each under a name of its own;
    /// consumers stay at the address that they dialled.
    Split,
    /// Every queue at its leader's advertised address. One hop less, and clients that hold on to
    /// a dead address.
    Direct,
}

/// A text that is no route mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route mode {0:?} is none of access-point, split, direct")]
pub struct UnknownRouteMode(pub String);

impl std::str::FromStr for RouteMode {
    type Err = UnknownRouteMode;

    fn from_str(text: &str) -> Result<Self, UnknownRouteMode> {
        match text {
            "access-point" => Ok(Self::AccessPoint),
            "split" => Ok(Self::Split),
            "direct" => Ok(Self::Direct),
            _ => Err(UnknownRouteMode(text.to_owned())),
        }
    }
}

impl std::fmt::Display for RouteMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::AccessPoint => "access-point",
            Self::Split => "split",
            Self::Direct => "direct",
        })
    }
}

/// Settings of a [`crate::Gateway`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Names this access point to leaders, for as long as it runs. Any text that no other access
    /// point of the cluster uses, such as its advertised address.
    pub access_point: String,
    /// Differs from start to start.
    pub boot_id: u64,
    pub route_mode: RouteMode,
    /// How long a request waits for a leader before it is answered as not done. Under the 3 s that
    /// clients give a send.
    pub hold: Duration,
    /// Clients that this access point serves at once.
    pub clients_max: usize,
}

/// Below the send deadline of the official clients, with room for the way back.
pub const HOLD: Duration = Duration::from_millis(2500);

/// Each connected client costs the access point some KiB.
pub const CLIENTS_MAX: usize = 20_000;

impl Config {
    /// The defaults, for this access point.
    pub fn new(access_point: impl Into<String>, boot_id: u64) -> Self {
        Self {
            access_point: access_point.into(),
            boot_id,
            route_mode: RouteMode::default(),
            hold: HOLD,
            clients_max: CLIENTS_MAX,
        }
    }
}
