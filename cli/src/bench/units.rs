//! Sizes and durations as flags, and figures as people read them.

use std::time::Duration;

/// `1024`, `64KiB`, `4MiB`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        other => return Err(format!("{other:?} is no unit of size; use KiB or MiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("{text:?} is no size such as 1KiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

/// `250ms`, `10s`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let wrong = || format!("{text:?} is no duration such as 250ms, 10s or 2m");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// A size in the largest unit that divides it.
pub(super) fn show_size(bytes: usize) -> String {
    match bytes {
        0 => "0 B".into(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// Milliseconds with three significant figures or so.
pub(super) fn show_ms(ms: f64) -> String {
    match ms {
        _ if ms < 10.0 => format!("{ms:.2}"),
        _ if ms < 100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(size("1024"), Ok(1024));
        assert_eq!(size("1KiB"), Ok(1024));
        assert_eq!(size("4MiB"), Ok(4 << 20));
        for bad in ["", "KiB", "1GiB", "-1", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(show_size(1024), "1 KiB");
        assert_eq!(show_size(1000), "1000 B");
        assert_eq!(show_size(4 << 20), "4 MiB");
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["10", "s", "1h", "1.5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn milliseconds_have_fitting_precision() {
        assert_eq!(show_ms(0.7), "0.70");
        assert_eq!(show_ms(12.34), "12.3");
        assert_eq!(show_ms(1234.5), "1234");
    }
}
