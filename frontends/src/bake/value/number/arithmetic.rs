//! The four operations and the remainder.

use std::cmp::Ordering;

use num_bigint::BigUint;

use super::{LITERAL_BITS, Magnitude, Number, NumberError};

impl Number {
    pub(crate) fn add(&self, other: &Number) -> Result<Number, NumberError> {
        let precision = self.precision.max(other.precision);
        let (left, right) = match (&self.magnitude, &other.magnitude) {
            (Magnitude::Infinite, Magnitude::Infinite) if self.negative != other.negative => {
                return Err(NumberError::Undefined("the sum of opposing infinities is not a number"));
            }
            (Magnitude::Infinite, _) => return Ok(Number::infinity(self.negative, precision)),
            (_, Magnitude::Infinite) => return Ok(Number::infinity(other.negative, precision)),
            (Magnitude::Zero, Magnitude::Zero) => {
                let negative = self.negative && other.negative;
                return Ok(Number {
                    negative,
                    magnitude: Magnitude::Zero,
                    precision,
                });
            }
            (Magnitude::Zero, Magnitude::Finite { mantissa, exponent }) => {
                return Ok(Number::build(
                    other.negative,
                    mantissa.clone(),
                    *exponent,
                    false,
                    precision,
                ));
            }
            (Magnitude::Finite { mantissa, exponent }, Magnitude::Zero) => {
                return Ok(Number::build(
                    self.negative,
                    mantissa.clone(),
                    *exponent,
                    false,
                    precision,
                ));
            }
            (
                Magnitude::Finite {
                    mantissa: left,
                    exponent: left_exponent,
                },
                Magnitude::Finite {
                    mantissa: right,
                    exponent: right_exponent,
                },
            ) => ((left, *left_exponent), (right, *right_exponent)),
        };
        let exponent = left.1.min(right.1);
        let left = left.0 << ((left.1 - exponent) as u64);
        let right = right.0 << ((right.1 - exponent) as u64);
        let (negative, sum) = if self.negative == other.negative {
            (self.negative, left + right)
        } else {
            match left.cmp(&right) {
                Ordering::Equal => {
                    return Ok(Number {
                        negative: false,
                        magnitude: Magnitude::Zero,
                        precision,
                    });
                }
                Ordering::Greater => (self.negative, left - right),
                Ordering::Less => (other.negative, right - left),
            }
        };
        Number::build(negative, sum, exponent, false, precision).checked()
    }

    pub(crate) fn subtract(&self, other: &Number) -> Result<Number, NumberError> {
        match (&self.magnitude, &other.magnitude) {
            (Magnitude::Infinite, Magnitude::Infinite) if self.negative == other.negative => {
                Err(NumberError::Undefined("infinity minus infinity is not a number"))
            }
            _ => self.add(&other.negate()),
        }
    }

    fn product(&self, other: &Number, precision: u32) -> Result<Number, NumberError> {
        let negative = self.negative != other.negative;
        match (&self.magnitude, &other.magnitude) {
            (Magnitude::Infinite, Magnitude::Zero) | (Magnitude::Zero, Magnitude::Infinite) => {
                Err(NumberError::Undefined("zero times infinity is not a number"))
            }
            (Magnitude::Infinite, _) | (_, Magnitude::Infinite) => Ok(Number::infinity(negative, precision)),
            (
                Magnitude::Finite {
                    mantissa: left,
                    exponent: left_exponent,
                },
                Magnitude::Finite {
                    mantissa: right,
                    exponent: right_exponent,
                },
            ) => Number::build(negative, left * right, left_exponent + right_exponent, false, precision).checked(),
            _ => Ok(Number {
                negative,
                magnitude: Magnitude::Zero,
                precision,
            }),
        }
    }

    /// The product keeps every bit it needs, up to 512.
    pub(crate) fn multiply(&self, other: &Number) -> Result<Number, NumberError> {
        let mut result = self.product(other, LITERAL_BITS)?;
        let needed = result.parts().map_or(0, |(mantissa, _)| mantissa.bits() as u32);
        result.precision = self.precision.max(other.precision).max(needed);
        Ok(result)
    }

    /// Division by zero gives infinity.
    pub(crate) fn divide(&self, other: &Number) -> Result<Number, NumberError> {
        let precision = self.precision.max(other.precision);
        let negative = self.negative != other.negative;
        match (&self.magnitude, &other.magnitude) {
            (Magnitude::Zero, Magnitude::Zero) | (Magnitude::Infinite, Magnitude::Infinite) => Err(
                NumberError::Undefined("zero by zero, or infinity by infinity, cannot be divided"),
            ),
            (Magnitude::Infinite, _) | (_, Magnitude::Zero) => Ok(Number::infinity(negative, precision)),
            (Magnitude::Zero, _) | (_, Magnitude::Infinite) => Ok(Number {
                negative,
                magnitude: Magnitude::Zero,
                precision,
            }),
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
                let (quotient, shift, inexact) = divide(left, right, precision);
                Number::build(
                    negative,
                    quotient,
                    left_exponent - right_exponent - shift,
                    inexact,
                    precision,
                )
                .checked()
            }
        }
    }

    /// The remainder of a division that truncates; modulo zero is the number itself.
    pub(crate) fn modulo(&self, other: &Number) -> Result<Number, NumberError> {
        if self.is_infinite() || other.is_infinite() {
            return self.multiply(other);
        }
        if other.is_zero() {
            return Ok(self.clone());
        }
        let quotient = self.divide(other)?;
        let whole = Number::build(quotient.negative, quotient.truncated(), 0, false, self.precision);
        let covered = other.product(&whole, self.precision)?;
        let mut rest = self.subtract(&covered)?;
        if let Magnitude::Finite { mantissa, exponent } = rest.magnitude {
            rest = Number::build(rest.negative, mantissa, exponent, false, self.precision);
        }
        rest.precision = self.precision;
        Ok(rest)
    }
}
/// A quotient with two bits to spare: `left / right ≈ quotient / 2^shift`, and whether something was left over.
pub(super) fn divide(left: &BigUint, right: &BigUint, precision: u32) -> (BigUint, i64, bool) {
    let wanted = u64::from(precision) + 2;
    let shift = (wanted + right.bits()).saturating_sub(left.bits());
    let scaled = left << shift;
    let quotient = &scaled / right;
    let inexact = &quotient * right != scaled;
    (quotient, shift as i64, inexact)
}
