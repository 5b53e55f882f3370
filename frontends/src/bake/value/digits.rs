//! Numbers as decimal text: the shortest that reads back, or a fixed count of digits, with and without exponent.

use num_bigint::BigUint;
use num_traits::{One, ToPrimitive};

use super::number::Number;

/// Decimal digits `0.d1d2d3… × 10^point`, no zero at either end.
struct Decimal {
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    /// The exact decimal expansion of `mantissa * 2^exponent`.
    fn new(mantissa: &BigUint, exponent: i64) -> Decimal {
        let (whole, places) = if exponent >= 0 {
            (mantissa << (exponent as u64), 0)
        } else {
            let places = exponent.unsigned_abs();
            (mantissa * BigUint::from(5_u32).pow(places as u32), places as i64)
        };
        let digits: Vec<u8> = whole.to_str_radix(10).bytes().map(|byte| byte - b'0').collect();
        let point = digits.len() as i64 - places;
        let mut decimal = Decimal { digits, point };
        decimal.trim();
        decimal
    }

    fn zero() -> Decimal {
        Decimal {
            digits: Vec::new(),
            point: 0,
        }
    }

    fn trim(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            self.point = 0;
        }
    }

    fn at(&self, index: usize) -> u8 {
        self.digits.get(index).copied().unwrap_or(0)
    }

    fn round_down(&mut self, count: usize) {
        self.digits.truncate(count);
        self.trim();
    }

    fn round_up(&mut self, count: usize) {
        self.digits.truncate(count);
        while self.digits.last() == Some(&9) {
            self.digits.pop();
        }
        match self.digits.last_mut() {
            Some(last) => *last += 1,
            None => {
                self.digits.push(1);
                self.point += 1;
            }
        }
    }

    /// Rounds to `count` digits, halves to even.
    fn round(&mut self, count: i64) {
        let Ok(count) = usize::try_from(count) else {
            *self = Decimal::zero();
            return;
        };
        if count >= self.digits.len() {
            return;
        }
        let exactly_half = self.at(count) == 5 && count + 1 == self.digits.len();
        let up = if exactly_half {
            count > 0 && self.at(count - 1) % 2 == 1
        } else {
            self.at(count) >= 5
        };
        if up {
            self.round_up(count)
        } else {
            self.round_down(count)
        }
    }
}

/// The fewest digits that read back as the same number at its precision.
fn shortest(number: &Number) -> Decimal {
    let Some((mantissa, exponent)) = number.parts() else {
        return Decimal::zero();
    };
    let mut exact = Decimal::new(mantissa, exponent);
    // Scaled so that one unit is half of what the last bit of the precision is worth.
    let shift = i64::from(number.precision()) + 1 - mantissa.bits() as i64;
    let scaled = mantissa << (shift.max(0) as u64);
    let unit = exponent - shift;
    let lower = Decimal::new(&(&scaled - BigUint::one()), unit);
    let upper = Decimal::new(&(&scaled + BigUint::one()), unit);
    // The bounds themselves read back as this number when its last bit is even.
    let inclusive = !scaled.bit(1);
    // Cut as soon as the digits kept so far tell the number from both bounds. A bound with its point elsewhere
    // differs in its first digit already.
    for index in 0..exact.digits.len() {
        let (digit, below, above) = (exact.at(index), lower.at(index), upper.at(index));
        let down_is_fine = below != digit || (inclusive && index + 1 == lower.digits.len());
        let up_is_fine = above != digit && (inclusive || digit + 1 < above || index + 1 < upper.digits.len());
        match (down_is_fine, up_is_fine) {
            (true, true) => {
                exact.round(index as i64 + 1);
                return exact;
            }
            (true, false) => {
                exact.round_down(index + 1);
                return exact;
            }
            (false, true) => {
                exact.round_up(index + 1);
                return exact;
            }
            (false, false) => {}
        }
    }
    exact
}

fn exact(number: &Number) -> Decimal {
    number
        .parts()
        .map_or_else(Decimal::zero, |(mantissa, exponent)| Decimal::new(mantissa, exponent))
}

fn sign(number: &Number) -> &'static str {
    if number.has_sign() { "-" } else { "" }
}

fn infinite(number: &Number) -> Option<String> {
    number
        .is_infinite()
        .then(|| String::from(if number.has_sign() { "-Inf" } else { "+Inf" }))
}

fn fixed(decimal: &Decimal, places: usize) -> String {
    let mut text = String::new();
    if decimal.point > 0 {
        for index in 0..decimal.point as usize {
            text.push(char::from(b'0' + decimal.at(index)));
        }
    } else {
        text.push('0');
    }
    if places > 0 {
        text.push('.');
        for place in 0..places as i64 {
            let index = decimal.point + place;
            let digit = usize::try_from(index).map_or(0, |index| decimal.at(index));
            text.push(char::from(b'0' + digit));
        }
    }
    text
}

fn scientific(decimal: &Decimal, places: usize, letter: char) -> String {
    let mut text = String::from(char::from(b'0' + decimal.at(0)));
    if places > 0 {
        text.push('.');
        for index in 1..=places {
            text.push(char::from(b'0' + decimal.at(index)));
        }
    }
    let exponent = if decimal.digits.is_empty() {
        0
    } else {
        decimal.point - 1
    };
    let sign = if exponent < 0 { '-' } else { '+' };
    text.push_str(&format!("{letter}{sign}{:02}", exponent.abs()));
    text
}

impl Number {
    /// Plain decimal text with as many digits as are needed, never an exponent.
    pub(crate) fn to_text(&self) -> String {
        if let Some(text) = infinite(self) {
            return text;
        }
        // Whole numbers that fit are exact at any precision they were made with.
        if let Some((mantissa, exponent)) = self.parts()
            && exponent >= 0
            && exponent + mantissa.bits() as i64 <= i64::from(self.precision().min(64))
        {
            let magnitude = mantissa.to_u64().unwrap_or(0) << exponent;
            return format!("{}{magnitude}", sign(self));
        }
        let decimal = shortest(self);
        let places = (decimal.digits.len() as i64 - decimal.point).max(0) as usize;
        format!("{}{}", sign(self), fixed(&decimal, places))
    }

    /// `%f`: a fixed count of decimal places.
    pub(crate) fn to_fixed(&self, places: usize) -> String {
        if let Some(text) = infinite(self) {
            return text;
        }
        let mut decimal = exact(self);
        decimal.round(decimal.point + places as i64);
        format!("{}{}", sign(self), fixed(&decimal, places))
    }

    /// `%e`: one digit, the decimal places, and an exponent introduced by `letter`.
    pub(crate) fn to_scientific(&self, places: usize, letter: char) -> String {
        if let Some(text) = infinite(self) {
            return text;
        }
        let mut decimal = exact(self);
        decimal.round(places as i64 + 1);
        format!("{}{}", sign(self), scientific(&decimal, places, letter))
    }

    /// `%g`: plain or with exponent, whichever suits; without `significant`, the shortest that reads back.
    pub(crate) fn to_general(&self, significant: Option<usize>, letter: char) -> String {
        if let Some(text) = infinite(self) {
            return text;
        }
        let (decimal, mut digits, threshold) = match significant {
            None => {
                let decimal = shortest(self);
                let count = decimal.digits.len();
                (decimal, count, 6)
            }
            Some(count) => {
                let count = count.max(1);
                let mut decimal = exact(self);
                decimal.round(count as i64);
                let available = decimal.digits.len() as i64;
                let shortened = count as i64 > available && available >= decimal.point;
                let threshold = if shortened { available } else { count as i64 };
                (decimal, count, threshold)
            }
        };
        let exponent = if decimal.digits.is_empty() {
            -1
        } else {
            decimal.point - 1
        };
        if !decimal.digits.is_empty() && (exponent < -4 || exponent >= threshold) {
            digits = digits.min(decimal.digits.len());
            return format!(
                "{}{}",
                sign(self),
                scientific(&decimal, digits.saturating_sub(1), letter)
            );
        }
        if digits as i64 > decimal.point {
            digits = decimal.digits.len();
        }
        let places = (digits as i64 - decimal.point).max(0) as usize;
        format!("{}{}", sign(self), fixed(&decimal, places))
    }
}
