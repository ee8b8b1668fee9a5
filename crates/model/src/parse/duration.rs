//! Durations as Istio's API takes them: `10s`, `1.5s`, `250ms`, `1h30m`.
//! Source: spec/policy-and-traffic.md §9.1.

use std::time::Duration;

/// Longest duration: far beyond every use, and far within what proxies compute with.
const SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// Reads a duration of whole milliseconds, zero included.
///
/// # Errors
/// Why it is none.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    let nanoseconds = nanoseconds(text).ok_or("not a duration such as 10s, 250ms or 1h30m")?;
    if !nanoseconds.is_multiple_of(1_000_000) {
        return Err("finer than a millisecond");
    }
    match u64::try_from(nanoseconds / 1_000_000) {
        Ok(milliseconds) if milliseconds <= SECONDS_MAX * 1000 => {
            Ok(Duration::from_millis(milliseconds))
        }
        _ => Err("longer than ten years"),
    }
}

/// As [`duration`], at least one millisecond.
///
/// # Errors
/// Why it is none.
pub(crate) fn positive(text: &str) -> Result<Duration, &'static str> {
    match duration(text)? {
        Duration::ZERO => Err("less than a millisecond"),
        duration => Ok(duration),
    }
}

/// Numbers with units, one after the other; a sign is none of them.
fn nanoseconds(text: &str) -> Option<u128> {
    const UNITS: [(&str, u128); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total = 0_u128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, more) = rest.split_at(number);
        let unit = more
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(more.len());
        let (unit, more) = more.split_at(unit);
        let (_, scale) = UNITS.iter().find(|(word, _)| *word == unit)?;
        total = total.checked_add(scaled(number, *scale)?)?;
        rest = more;
    }
    Some(total)
}

/// A decimal number times `scale`; what is below one is cut off.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    const DIGITS_MAX: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > DIGITS_MAX {
        return None;
    }
    let fraction = fraction.get(..DIGITS_MAX).unwrap_or(fraction);
    let digits = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<u128>().ok(),
    };
    let parts = digits(fraction)?.checked_mul(scale)?;
    let parts = parts / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(scale)?.checked_add(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_api_writes_them() {
        let ms = |text| duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("10s", 10_000),
            ("1.5s", 1_500),
            (".25s", 250),
            ("0.005s", 5),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1m0.5s", 60_500),
            ("2000us", 2),
            ("3.000000000s", 3_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "+1s",
            "1 s",
            "1.2.3s",
            ".s",
            "1d",
            "1s2",
            "1e3s",
            "infs",
            "9999999999999999999s",
            "99999999h",
            "1.5ms",
            "1us",
            "1ns",
        ] {
            assert!(ms(bad).is_err(), "{bad}");
        }
        assert!(positive("0s").is_err());
        assert_eq!(positive("1ms"), Ok(Duration::from_millis(1)));
    }
}
