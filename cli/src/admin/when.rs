//! Times as RocketMQ's tools take them.

use std::str::FromStr;

use anyhow::{Result, bail};
use proto::Timestamp;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// A moment: `now`, milliseconds since 1970, or `yyyy-MM-dd#HH:mm:ss:SSS` in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Now,
    At(Timestamp),
}

impl When {
    pub(super) fn timestamp(self) -> Timestamp {
        match self {
            Self::Now => proto::clock::wall_now(),
            Self::At(time) => time,
        }
    }
}

impl FromStr for When {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // RocketMQ's tools take -1 for the latest.
        if text == "now" || text == "-1" {
            return Ok(Self::Now);
        }
        if let Ok(ms) = text.parse::<u64>() {
            return Ok(Self::At(Timestamp(ms)));
        }
        match date(text) {
            Some(ms) => Ok(Self::At(Timestamp(ms))),
            None => bail!("{text:?} is no time: use now, milliseconds or yyyy-MM-dd#HH:mm:ss:SSS"),
        }
    }
}

fn date(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('#')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let parts: Vec<i64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second, ms] = parts[..] else { return None };
    let within = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second)
        && (0..1000).contains(&ms);
    let days = days_before(year, month) + day - 1;
    let clock = ((hour * 60 + minute) * 60 + second) * 1000 + ms;
    within.then(|| u64::try_from(days * DAY_MS + clock).ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// From 1970 to the first of the month.
fn days_before(year: i64, month: i64) -> i64 {
    let years: i64 = (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum();
    years + (1..month).map(|month| days_in(year, month)).sum::<i64>()
}

/// A moment as people read it.
pub(super) fn show(ms: u64) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    let total = i64::try_from(ms).unwrap_or(i64::MAX);
    let (mut days, clock) = (total / DAY_MS, total % DAY_MS);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let (seconds, ms) = (clock / 1000, clock % 1000);
    format!(
        "{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}.{ms:03}",
        days + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<u64> {
        match text.parse() {
            Ok(When::At(time)) => Some(time.0),
            Ok(When::Now) | Err(_) => None,
        }
    }

    #[test]
    fn a_time_is_now_a_number_or_a_date() {
        assert_eq!("now".parse::<When>().unwrap(), When::Now);
        assert_eq!("-1".parse::<When>().unwrap(), When::Now);
        assert_eq!(at("1700000000123"), Some(1_700_000_000_123));
        assert_eq!(at("2023-11-14#22:13:20:123"), Some(1_700_000_000_123));
        assert_eq!(at("1970-01-01#00:00:00:000"), Some(0));
        assert_eq!(at("2024-02-29#00:00:00:000"), Some(1_709_164_800_000));
        for wrong in ["2023-02-29#00:00:00:000", "2023-11-14", "x", "2023-13-01#00:00:00:000"] {
            assert_eq!(at(wrong), None, "{wrong}");
            assert!(wrong.parse::<When>().is_err());
        }
    }

    #[test]
    fn what_is_shown_is_what_was_meant() {
        assert_eq!(show(1_700_000_000_123), "2023-11-14 22:13:20.123");
        assert_eq!(show(1_709_164_800_000), "2024-02-29 00:00:00.000");
        assert_eq!(show(0), "-");
    }
}
