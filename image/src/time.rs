//! RFC 3339 times, as far as image configs need them compared.

/// Seconds since 1970 and nanoseconds; ordered as time is.
pub type Instant = (i64, u32);

/// Reads an RFC 3339 time with any offset and fraction; `None` when it is none.
pub fn parse_rfc3339(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let is = |at: usize, byte: u8| bytes.get(at).is_some_and(|found| found.eq_ignore_ascii_case(&byte));
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0_u32;
    if is(at, b'.') {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..9 {
            let digit = if place < digits {
                u32::from(bytes[at + 1 + place] - b'0')
            } else {
                0
            };
            nanos = nanos * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset = match bytes.get(at..)? {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = number(at + 1..at + 3)? * 60 + number(at + 4..at + 6)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days from a civil date, counting 400-year eras that start on 1 March.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second - offset * 60, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::format_timestamp;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("2000-02-29T00:00:00.5Z", Some((951_782_400, 500_000_000))),
            ("2024-01-01T01:00:00+01:00", Some((1_704_067_200, 0))),
            (
                "2023-12-31T19:30:00.123456789-04:30",
                Some((1_704_067_200, 123_456_789)),
            ),
            ("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0))),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01T00:00:00.Z", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_rfc3339(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn inverse_of_formatting(seconds in -62_000_000_000_i64..253_402_300_799) {
            let text = format_timestamp(seconds).expect("in range");
            prop_assert_eq!(parse_rfc3339(&text), Some((seconds, 0)));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            parse_rfc3339(&text);
        }
    }
}
