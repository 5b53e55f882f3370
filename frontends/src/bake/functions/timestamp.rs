//! Points in time: reading and writing RFC 3339, and the calendar.

/// A point in time with the offset it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp {
    /// Seconds since 1970, UTC.
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
    /// Seconds east of UTC.
    pub(super) offset: i64,
}

/// A point in time as the calendar shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    pub(super) year: i64,
    pub(super) month: usize,
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    /// 0 is Sunday.
    pub(super) weekday: usize,
    /// From 1.
    pub(super) year_day: i64,
}

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const DAY: i64 = 86_400;

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(month: i64, year: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date; years are counted from March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl Timestamp {
    pub(super) fn from_unix(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
            offset: 0,
        }
    }

    pub(super) fn calendar(self) -> Calendar {
        let local = self.seconds.saturating_add(self.offset);
        let days = local.div_euclid(DAY);
        let rest = local.rem_euclid(DAY);
        let (year, month, day) = civil_from_days(days);
        Calendar {
            year,
            month: usize::try_from(month).unwrap_or(1),
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            year_day: days - days_from_civil(year, 1, 1) + 1,
        }
    }

    /// The offset as `+hh:mm`, with or without the colon.
    pub(super) fn offset_text(self, separator: &str) -> String {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.abs() / 60;
        format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
    }

    /// RFC 3339 without a fraction.
    pub(super) fn to_text(self) -> String {
        let at = self.calendar();
        let zone = if self.offset == 0 {
            String::from("Z")
        } else {
            self.offset_text(":")
        };
        // A sign is not one of the four digits.
        let sign = if at.year < 0 { "-" } else { "" };
        format!(
            "{sign}{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{zone}",
            at.year.abs(),
            at.month,
            at.day,
            at.hour,
            at.minute,
            at.second
        )
    }

    /// Reads RFC 3339 strictly.
    pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
        let mut reader = Reader { text, at: 0 };
        let year = reader.number(4, 0, 9999, "year")?;
        reader.expect('-')?;
        let month = reader.number(2, 1, 12, "month")?;
        reader.expect('-')?;
        let day = reader.number(2, 1, days_in(month, year), "day of month")?;
        if !reader.eat('T') {
            return Err(reader.error("the time introducer 'T' is missing"));
        }
        let hour = reader.number(2, 0, 23, "hour")?;
        reader.expect(':')?;
        let minute = reader.number(2, 0, 59, "minute")?;
        reader.expect(':')?;
        let second = reader.number(2, 0, 59, "second")?;
        let mut nanoseconds = 0;
        if reader.eat('.') {
            let digits: String = reader.rest().chars().take_while(char::is_ascii_digit).collect();
            if digits.is_empty() {
                return Err(reader.error("a digit is missing behind the decimal point"));
            }
            reader.at += digits.len();
            nanoseconds = format!("{digits:0<9}")[..9].parse().unwrap_or(0);
        }
        let offset = if reader.eat('Z') {
            0
        } else {
            let east = reader.eat('+');
            if !east && !reader.eat('-') {
                return Err(reader.error("the UTC offset is missing"));
            }
            let hours = reader.number(2, 0, 23, "UTC offset")?;
            reader.expect(':')?;
            let minutes = reader.number(2, 0, 59, "UTC offset")?;
            let seconds = hours * 3600 + minutes * 60;
            if east { seconds } else { -seconds }
        };
        if !reader.rest().is_empty() {
            return Err(reader.error("there is extra text at the end"));
        }
        let seconds = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
        Ok(Timestamp {
            seconds,
            nanoseconds,
            offset,
        })
    }

    /// Moves by a duration in nanoseconds.
    pub(super) fn add(self, duration: i128) -> Option<Timestamp> {
        let total = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds) + duration;
        Some(Timestamp {
            seconds: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
            nanoseconds: i64::try_from(total.rem_euclid(1_000_000_000)).ok()?,
            offset: self.offset,
        })
    }

    /// The ISO 8601 week and the year it belongs to.
    pub(super) fn iso_week(self) -> (i64, i64) {
        // The week belongs to the year of its Thursday.
        let days = (self.seconds + self.offset).div_euclid(DAY);
        let thursday = days - (days + 3).rem_euclid(7) + 3;
        let (year, ..) = civil_from_days(thursday);
        (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn error(&self, message: &str) -> String {
        format!("{:?} is not a valid RFC 3339 timestamp: {message}", self.text)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) {
            Ok(())
        } else {
            Err(self.error(&format!("{wanted:?} is expected at {}", self.at)))
        }
    }

    fn number(&mut self, digits: usize, least: i64, most: i64, what: &str) -> Result<i64, String> {
        let part = self
            .rest()
            .get(..digits)
            .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(part) = part else {
            return Err(self.error(&format!("the {what} must have {digits} digits")));
        };
        let value: i64 = part.parse().unwrap_or(-1);
        if value < least || value > most {
            return Err(self.error(&format!("the {what} must be between {least} and {most}")));
        }
        self.at += digits;
        Ok(value)
    }
}

/// Reads a duration such as `1h30m`, `-1.5h` or `250ms`; the result is in nanoseconds.
pub(super) fn parse_duration(text: &str) -> Result<i128, String> {
    let invalid = || format!("{text:?} is not a duration; write it like 1h30m, with the units h, m, s, ms, us, ns");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|char: char| !(char.is_ascii_digit() || char == '.'))
            .ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|char: char| char.is_ascii_digit() || char == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(invalid()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 18 {
            return Err(invalid());
        }
        total += whole.parse::<i128>().unwrap_or(0) * scale;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let digits: i128 = fraction.parse().map_err(|_| invalid())?;
            total += digits * scale / 10_i128.pow(fraction.len() as u32);
        }
        rest = next;
    }
    // A duration has 64 bits, which is about 292 years.
    let total = if negative { -total } else { total };
    i64::try_from(total).map(i128::from).map_err(|_| invalid())
}
