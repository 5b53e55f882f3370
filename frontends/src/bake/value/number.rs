//! Binary floating point numbers of up to 512 bits, as HCL counts.
//!
//! A number knows its precision: literals and parsed strings have 512 bits, whole numbers made by a function
//! 64, and values that passed through a 64 bit float 53. An operation rounds to the larger precision of its
//! operands (to nearest, ties to even), which is what makes `1/3` print 155 digits and `0.1 + 0.2` print `0.3`.
//!
//! Invariant: the mantissa of a finite number is odd, so equal numbers have equal representations.

mod arithmetic;

use std::cmp::Ordering;

use num_bigint::BigUint;
use num_traits::{One, ToPrimitive, Zero};

use self::arithmetic::divide;

/// The precision of literals and of numbers read from strings.
pub(crate) const LITERAL_BITS: u32 = 512;
/// The precision of whole numbers that a function computes.
const INTEGER_BITS: u32 = 64;
/// The precision of a number that passed through a 64 bit float.
const FLOAT_BITS: u32 = 53;
/// Exponents beyond this are refused: their decimal text alone would fill memory.
const MAX_EXPONENT: i64 = 1 << 18;

/// Why an operation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    /// Like `0 / 0`: no number is the answer.
    Undefined(&'static str),
    /// The result is too large (or too close to zero) to be written out.
    OutOfRange,
}

impl std::fmt::Display for NumberError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NumberError::Undefined(what) => f.write_str(what),
            NumberError::OutOfRange => f.write_str("the number is out of range"),
        }
    }
}

#[derive(Clone, Debug)]
enum Magnitude {
    Zero,
    Infinite,
    /// `mantissa * 2^exponent`, the mantissa odd.
    Finite {
        mantissa: BigUint,
        exponent: i64,
    },
}

/// One number; see the module for how it rounds.
#[derive(Clone, Debug)]
pub(crate) struct Number {
    negative: bool,
    magnitude: Magnitude,
    precision: u32,
}

impl Number {
    /// Zero, with the precision of a whole number.
    pub(crate) fn zero() -> Number {
        Number {
            negative: false,
            magnitude: Magnitude::Zero,
            precision: INTEGER_BITS,
        }
    }

    fn infinity(negative: bool, precision: u32) -> Number {
        Number {
            negative,
            magnitude: Magnitude::Infinite,
            precision,
        }
    }

    pub(crate) fn from_i64(value: i64) -> Number {
        Number::build(value < 0, BigUint::from(value.unsigned_abs()), 0, false, INTEGER_BITS)
    }

    pub(crate) fn from_usize(value: usize) -> Number {
        Number::build(false, BigUint::from(value), 0, false, INTEGER_BITS)
    }

    /// `None` for NaN.
    pub(crate) fn from_f64(value: f64) -> Option<Number> {
        if value.is_nan() {
            return None;
        }
        if value.is_infinite() {
            return Some(Number::infinity(value < 0.0, FLOAT_BITS));
        }
        let bits = value.to_bits();
        let fraction = bits & ((1 << 52) - 1);
        let biased = ((bits >> 52) & 0x7ff) as i64;
        let (mantissa, exponent) = if biased == 0 {
            (fraction, -1074)
        } else {
            (fraction | (1 << 52), biased - 1075)
        };
        Some(Number::build(
            value.is_sign_negative(),
            BigUint::from(mantissa),
            exponent,
            false,
            FLOAT_BITS,
        ))
    }

    /// The number as a float, rounded to nearest.
    pub(crate) fn to_f64(&self) -> f64 {
        let magnitude = match &self.magnitude {
            Magnitude::Zero => 0.0,
            Magnitude::Infinite => f64::INFINITY,
            Magnitude::Finite { mantissa, exponent } => {
                let top = exponent + mantissa.bits() as i64;
                // Subnormal floats have fewer bits, and must be rounded once only.
                let bits = if top > -1022 { 53 } else { 53 - (-1021 - top) };
                if bits < 0 {
                    0.0
                } else {
                    let (rounded, rounded_exponent) = round(mantissa.clone(), *exponent, false, bits as u32);
                    scale(rounded.to_u64().unwrap_or(u64::MAX) as f64, rounded_exponent)
                }
            }
        };
        if self.negative { -magnitude } else { magnitude }
    }

    /// Reads decimal text such as `12`, `-0.5`, `1e3` or `Inf`; `None` when it is not a number.
    pub(crate) fn parse(text: &str) -> Option<Result<Number, NumberError>> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if matches!(rest, "Inf" | "inf" | "Infinity" | "infinity") {
            return Some(Ok(Number::infinity(negative, LITERAL_BITS)));
        }
        let (digits, exponent_text) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let mut exponent = 0_i64;
        if let Some(text) = exponent_text {
            let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
            if plain.is_empty() || !all_digits(plain) {
                return None;
            }
            // Seven digits are far beyond the range already.
            let value = if plain.trim_start_matches('0').len() > 7 {
                i64::from(u32::MAX)
            } else {
                plain.parse().ok()?
            };
            exponent = if text.starts_with('-') { -value } else { value };
        }
        if whole.len() + fraction.len() > MAX_EXPONENT as usize {
            return Some(Err(NumberError::OutOfRange));
        }
        let mantissa = BigUint::parse_bytes(format!("{whole}{fraction}").as_bytes(), 10)?;
        if mantissa.is_zero() {
            return Some(Ok(Number {
                negative,
                magnitude: Magnitude::Zero,
                precision: LITERAL_BITS,
            }));
        }
        let exponent = exponent - fraction.len() as i64;
        if exponent.abs() > MAX_EXPONENT / 4 {
            return Some(Err(NumberError::OutOfRange));
        }
        Some(Ok(if exponent >= 0 {
            let power = BigUint::from(5_u32).pow(exponent as u32);
            Number::build(negative, mantissa * power, exponent, false, LITERAL_BITS)
        } else {
            let power = BigUint::from(5_u32).pow(exponent.unsigned_abs() as u32);
            let (quotient, shift, inexact) = divide(&mantissa, &power, LITERAL_BITS);
            Number::build(negative, quotient, exponent - shift, inexact, LITERAL_BITS)
        }))
    }

    /// A whole number of any size, with at least 64 bits of precision.
    pub(crate) fn from_integer(negative: bool, value: BigUint) -> Number {
        let precision = INTEGER_BITS.max(value.bits() as u32);
        Number::build(negative, value, 0, false, precision)
    }

    fn build(negative: bool, mantissa: BigUint, exponent: i64, inexact: bool, precision: u32) -> Number {
        if mantissa.is_zero() {
            return Number {
                negative,
                magnitude: Magnitude::Zero,
                precision,
            };
        }
        let (mantissa, exponent) = round(mantissa, exponent, inexact, precision);
        Number {
            negative,
            magnitude: Magnitude::Finite { mantissa, exponent },
            precision,
        }
    }

    fn checked(self) -> Result<Number, NumberError> {
        match &self.magnitude {
            Magnitude::Finite { mantissa, exponent }
                if exponent + mantissa.bits() as i64 > MAX_EXPONENT || *exponent < -MAX_EXPONENT =>
            {
                Err(NumberError::OutOfRange)
            }
            _ => Ok(self),
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        matches!(self.magnitude, Magnitude::Zero)
    }

    pub(crate) fn is_infinite(&self) -> bool {
        matches!(self.magnitude, Magnitude::Infinite)
    }

    /// Below zero (negative zero is not).
    pub(crate) fn is_negative(&self) -> bool {
        self.negative && !self.is_zero()
    }

    /// True for minus zero too: it prints with its sign.
    pub(crate) fn has_sign(&self) -> bool {
        self.negative
    }

    pub(crate) fn precision(&self) -> u32 {
        self.precision
    }

    pub(crate) fn is_integer(&self) -> bool {
        match &self.magnitude {
            Magnitude::Zero => true,
            Magnitude::Infinite => false,
            Magnitude::Finite { exponent, .. } => *exponent >= 0,
        }
    }

    /// The mantissa and exponent of a finite number that is not zero.
    pub(crate) fn parts(&self) -> Option<(&BigUint, i64)> {
        match &self.magnitude {
            Magnitude::Finite { mantissa, exponent } => Some((mantissa, *exponent)),
            _ => None,
        }
    }

    /// The magnitude as a whole number, or `None` when it has a fraction or is infinite.
    pub(crate) fn to_integer(&self) -> Option<BigUint> {
        match &self.magnitude {
            Magnitude::Zero => Some(BigUint::zero()),
            Magnitude::Finite { mantissa, exponent } if *exponent >= 0 => Some(mantissa << (*exponent as u64)),
            _ => None,
        }
    }

    /// The exact value, or `None` when it is no whole number in range.
    pub(crate) fn to_i64(&self) -> Option<i64> {
        if let Some((_, exponent)) = self.parts()
            && exponent > 64
        {
            return None;
        }
        let magnitude = self.to_integer()?.to_u64()?;
        if self.negative {
            0_i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        }
    }

    pub(crate) fn negate(&self) -> Number {
        Number {
            negative: !self.negative,
            ..self.clone()
        }
    }

    pub(crate) fn absolute(&self) -> Number {
        Number {
            negative: false,
            ..self.clone()
        }
    }

    /// Drops the fraction; the magnitude of what is left.
    fn truncated(&self) -> BigUint {
        match &self.magnitude {
            Magnitude::Finite { mantissa, exponent } if *exponent >= 0 => mantissa << (*exponent as u64),
            Magnitude::Finite { mantissa, exponent } => mantissa >> exponent.unsigned_abs(),
            _ => BigUint::zero(),
        }
    }

    /// Rounds towards zero.
    pub(crate) fn truncate(&self) -> Number {
        if self.is_integer() || self.is_infinite() {
            return self.clone();
        }
        let whole = self.truncated();
        // What is rounded to zero has no sign.
        Number::from_integer(self.negative && !whole.is_zero(), whole)
    }

    /// Rounds towards minus infinity (`upwards` false) or plus infinity.
    fn round_integer(&self, upwards: bool) -> Number {
        if self.is_infinite() {
            return self.clone();
        }
        let mut whole = self.truncated();
        if self.negative != upwards && !self.is_integer() {
            whole += BigUint::one();
        }
        Number::build(self.negative && !whole.is_zero(), whole, 0, false, self.precision)
    }

    pub(crate) fn floor(&self) -> Number {
        self.round_integer(false)
    }

    pub(crate) fn ceil(&self) -> Number {
        self.round_integer(true)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        let sign = |number: &Number| match (number.is_zero(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign != Ordering::Equal {
            return by_sign;
        }
        let by_magnitude = match (&self.magnitude, &other.magnitude) {
            (Magnitude::Zero, _) | (_, Magnitude::Zero) | (Magnitude::Infinite, Magnitude::Infinite) => Ordering::Equal,
            (Magnitude::Infinite, _) => Ordering::Greater,
            (_, Magnitude::Infinite) => Ordering::Less,
            (
                Magnitude::Finite {
                    mantissa: left,
                    exponent: left_exponent,
                },
                Magnitude::Finite {
                    mantissa: right,
                    exponent: right_exponent,
                },
            ) => {
                let left_top = left_exponent + left.bits() as i64;
                let right_top = right_exponent + right.bits() as i64;
                left_top.cmp(&right_top).then_with(|| {
                    let exponent = (*left_exponent).min(*right_exponent);
                    let left = left << ((left_exponent - exponent) as u64);
                    let right = right << ((right_exponent - exponent) as u64);
                    left.cmp(&right)
                })
            }
        };
        if self.negative {
            by_magnitude.reverse()
        } else {
            by_magnitude
        }
    }
}

/// Rounds to nearest, ties to even, then strips zero bits. `inexact` says that the true value is a bit larger.
fn round(mantissa: BigUint, exponent: i64, inexact: bool, precision: u32) -> (BigUint, i64) {
    let excess = mantissa.bits().saturating_sub(u64::from(precision));
    let (mantissa, exponent) = if excess == 0 {
        (mantissa, exponent)
    } else {
        let half = mantissa.bit(excess - 1);
        let below = inexact || mantissa.trailing_zeros().is_some_and(|zeros| zeros < excess - 1);
        let mut kept = &mantissa >> excess;
        if half && (below || kept.bit(0)) {
            kept += BigUint::one();
        }
        (kept, exponent + excess as i64)
    };
    match mantissa.trailing_zeros() {
        None | Some(0) => (mantissa, exponent),
        Some(zeros) => (mantissa >> zeros, exponent + zeros as i64),
    }
}

/// `value * 2^exponent` without rounding on the way.
fn scale(mut value: f64, mut exponent: i64) -> f64 {
    while exponent > 1000 {
        value *= 2_f64.powi(1000);
        exponent -= 1000;
        if value.is_infinite() {
            return value;
        }
    }
    while exponent < -1000 {
        value *= 2_f64.powi(-1000);
        exponent += 1000;
        if value == 0.0 {
            return value;
        }
    }
    value * 2_f64.powi(exponent as i32)
}
