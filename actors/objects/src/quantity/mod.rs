//! Quantities of resources: `500m` of a CPU, `1.5Gi` of memory.
//!
//! A quantity is a decimal number with at most nine places after the point, and it remembers which family of suffixes
//! it was written with. It is never a floating-point number. Printing gives the canonical form: no fraction, the
//! largest suffix that keeps the value exact.
//!
//! Values keep [`DIGITS_MAX`] digits, far more than any resource has; what exceeds that is rounded away from zero, as
//! everything here is: who asks for something, however small, gets something.

mod arithmetic;
mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

pub use parse::wire_form;

/// Digits that a quantity keeps, counted from its first.
pub const DIGITS_MAX: u32 = 37;

/// The smallest step, as a power of ten: a nano-unit.
const NANO: i32 = -9;

/// The power of ten of the largest decimal suffix, `E`.
const SUFFIX_EXPONENT_MAX: i32 = 18;

/// A value that isn't a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseQuantityError {
    /// Not a number with letters behind it.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The letters are no suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes that a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n`, `u`, `m`, none, `k` to `E`: powers of 1000.
    #[default]
    DecimalSi,
    /// `Ki` to `Ei`: powers of 1024.
    BinarySi,
    /// `e3`, `e-6`: the power of ten itself.
    DecimalExponent,
}

/// A number with a suffix. Two quantities are equal if their values are, however they are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    /// The value is `unscaled` × 10^`scale`; always below 10^[`DIGITS_MAX`] in magnitude.
    unscaled: i128,
    /// At least [`NANO`].
    scale: i32,
    /// How it prints.
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { unscaled: 0, scale: 0, format: Format::DecimalSi };

    /// A whole number.
    #[must_use]
    pub fn from_i64(value: i64, format: Format) -> Self {
        Self::from_parts(i128::from(value), 0, format)
    }

    /// Thousandths, as CPUs are counted in.
    #[must_use]
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self::from_parts(i128::from(value), -3, format)
    }

    /// `value` × 10^`scale`, rounded to what a quantity can hold.
    #[must_use]
    pub fn from_scaled(value: i64, scale: i32, format: Format) -> Self {
        Self::from_parts(i128::from(value), scale, format)
    }

    /// A quantity as it stands in an object: text, or a number without suffix.
    ///
    /// # Errors
    ///
    /// Fails for text that isn't one, and for values of other types.
    pub fn from_json(value: &Value) -> Result<Self, ParseQuantityError> {
        match value {
            Value::Null => Ok(Self::ZERO),
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => format!("{float}").parse(),
                _ => number.to_string().parse(),
            },
            _ => Err(ParseQuantityError::Format),
        }
    }

    /// How it prints.
    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    /// The same value, printed otherwise.
    #[must_use]
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.unscaled == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn signum(self) -> i32 {
        match self.unscaled.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// The whole number, rounded away from zero, at the limit of its type where it is beyond that.
    #[must_use]
    pub fn value(self) -> i64 {
        self.scaled_value(0)
    }

    /// In thousandths, rounded and limited like [`Self::value`].
    #[must_use]
    pub fn milli_value(self) -> i64 {
        self.scaled_value(-3)
    }

    /// The whole number if it is one and fits.
    #[must_use]
    pub fn exact_value(self) -> Option<i64> {
        let (rounded, exact) = self.round_up(0);
        let value = rounded.scaled_value(0);
        (exact && Self::from_i64(value, self.format) == self).then_some(value)
    }

    /// The nearest floating-point number, for metrics and scores.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        // The text is a plain decimal number, which Rust reads correctly rounded.
        format!("{}e{}", self.unscaled, self.scale).parse().unwrap_or(f64::NAN)
    }

    /// Mantissa and exponent of the canonical form, and the family of the suffix.
    fn canonical(self) -> (i128, i32, Format) {
        if let Some((mantissa, exponent)) = self.canonical_binary() {
            return (mantissa, exponent, Format::BinarySi);
        }
        let (mantissa, exponent) = self.without_trailing_zeros();
        let mut shift = exponent.rem_euclid(3);
        let mut format = Format::DecimalExponent;
        if self.format != format {
            shift = shift.max(exponent.saturating_sub(SUFFIX_EXPONENT_MAX));
            format = Format::DecimalSi;
        }
        let mut factor = 10_i128.checked_pow(shift.unsigned_abs());
        if factor.and_then(|factor| mantissa.checked_mul(factor)).is_none() {
            // More digits than anybody reads: only the exponent itself reaches that far.
            (shift, factor, format) = (0, None, Format::DecimalExponent);
        }
        (mantissa * factor.unwrap_or(1), exponent - shift, format)
    }

    /// Mantissa and exponent if a binary suffix is asked for and loses nothing.
    fn canonical_binary(self) -> Option<(i128, i32)> {
        if self.format != Format::BinarySi || self.is_below(1024) {
            return None;
        }
        let (mut mantissa, mut exponent) = (self.whole_digits()?, 0);
        while mantissa % 1024 == 0 && exponent < 60 {
            mantissa /= 1024;
            exponent += 10;
        }
        Some((mantissa, exponent))
    }

    /// Whether its magnitude is below a whole number.
    fn is_below(self, limit: i64) -> bool {
        self < Self::from_i64(limit, self.format) && self > Self::from_i64(-limit, self.format)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return out.write_str("0");
        }
        let (mantissa, exponent, format) = self.canonical();
        match parse::suffix(exponent, format) {
            Some(suffix) => write!(out, "{mantissa}{suffix}"),
            None => write!(out, "{mantissa}e{exponent}"),
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::parse(text).map(|parsed| parsed.quantity)
    }
}
