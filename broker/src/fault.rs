//! A knob for tests: the leader holds still at a named moment, so that it can be killed there.
//!
//! `fault.hold = "after EndTransaction 800ms"` holds the first command of that kind that this
//! process proposes, just before it is proposed or just after it was applied and before anybody
//! hears of it. Builds without debug assertions refuse the key.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tracing::warn;

use crate::command::tag_named;

/// Longer is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(60);

/// When to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Where and how long to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    side: Side,
    command: String,
    tag: u8,
    time: Duration,
}

impl FromStr for Hold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[side, command, time] = &words[..] else {
            return Err("expected \"before COMMAND TIME\" or \"after COMMAND TIME\"".into());
        };
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            other => return Err(format!("{other:?} is neither before nor after")),
        };
        let tag = tag_named(command).ok_or_else(|| format!("no command {command:?} to hold"))?;
        let time = humantime_serde::re::humantime::parse_duration(time);
        let time = time.map_err(|error| error.to_string())?;
        if time > LONGEST {
            return Err(format!("at most {LONGEST:?}"));
        }
        Ok(Hold { side, command: command.to_owned(), tag, time })
    }
}

/// What is armed, if anything is.
#[derive(Debug, Clone, Default)]
pub struct Fault(Option<Arc<(Hold, AtomicBool)>>);

impl Fault {
    /// Arms a hold; it happens once.
    pub fn holding(hold: Option<Hold>) -> Self {
        Fault(hold.map(|hold| Arc::new((hold, AtomicBool::new(false)))))
    }

    /// About to propose a command with this tag. Does not wait when nothing is armed for it.
    pub(crate) async fn before(&self, tag: u8) {
        self.reach(Side::Before, tag).await;
    }

    /// A command with this tag was applied.
    pub(crate) async fn after(&self, tag: u8) {
        self.reach(Side::After, tag).await;
    }

    async fn reach(&self, side: Side, tag: u8) {
        let Some((hold, held)) = self.0.as_deref() else { return };
        if (hold.side, hold.tag) == (side, tag) && !held.swap(true, Ordering::Relaxed) {
            warn!(?side, command = hold.command, time = ?hold.time, "held by fault.hold");
            tokio::time::sleep(hold.time).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_names_a_side_a_command_and_a_time() {
        let hold: Hold = "after EndTransaction 800ms".parse().expect("good");
        assert_eq!((hold.side, hold.time), (Side::After, Duration::from_millis(800)));
        for bad in ["", "after Fire", "during Fire 1s", "after Everything 1s", "after Fire 2h"] {
            assert!(bad.parse::<Hold>().is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn it_holds_once_and_nothing_else() {
        const TIME: Duration = Duration::from_millis(300);
        let fire = tag_named("Fire").expect("a command");
        let fault = Fault::holding(Some("before Fire 300ms".parse().expect("good")));
        let held = async |side, tag| {
            let start = std::time::Instant::now();
            fault.reach(side, tag).await;
            start.elapsed() >= TIME
        };
        assert!(!held(Side::After, fire).await);
        assert!(!held(Side::Before, fire + 1).await);
        assert!(held(Side::Before, fire).await);
        assert!(!held(Side::Before, fire).await);
    }
}
