//! Comparing, adding, rounding: exact as long as [`DIGITS_MAX`] digits suffice, and away from zero beyond.

use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use super::{DIGITS_MAX, Format, NANO, Quantity};

/// The first number that has too many digits.
const TOO_LONG: u128 = 10_u128.pow(DIGITS_MAX);

/// Ten to the power of `exponent`, if it is within [`DIGITS_MAX`] digits.
fn power_of_ten(exponent: u32) -> Option<i128> {
    (exponent < DIGITS_MAX).then(|| 10_i128.pow(exponent))
}

/// Divides by a power of ten, away from zero. Tells too whether nothing was lost.
fn divide_away(value: i128, exponent: u32) -> (i128, bool) {
    let Some(divisor) = power_of_ten(exponent) else { return (value.signum(), value == 0) };
    let (quotient, remainder) = (value / divisor, value % divisor);
    (quotient + remainder.signum(), remainder == 0)
}

impl Quantity {
    /// Makes a quantity of any number, within its limits.
    pub(super) fn from_parts(unscaled: i128, scale: i32, format: Format) -> Self {
        let mut parts = (unscaled, scale);
        if scale < NANO {
            parts = (divide_away(unscaled, NANO.abs_diff(scale)).0, NANO);
        }
        while parts.0.unsigned_abs() >= TOO_LONG {
            parts = (divide_away(parts.0, 1).0, parts.1.saturating_add(1));
        }
        let scale = if parts.0 == 0 { 0 } else { parts.1 };
        Self { unscaled: parts.0, scale, format }
    }

    /// Rounded away from zero to a multiple of 10^`scale`, and whether that changed nothing.
    #[must_use]
    pub fn round_up(self, scale: i32) -> (Self, bool) {
        if self.scale >= scale {
            return (self, true);
        }
        let (unscaled, exact) = divide_away(self.unscaled, scale.abs_diff(self.scale));
        (Self::from_parts(unscaled, scale, self.format), exact)
    }

    /// How often 10^`scale` goes into it, rounded away from zero, at the limit of its type where it is beyond that.
    #[must_use]
    pub fn scaled_value(self, scale: i32) -> i64 {
        let limit = if self.unscaled < 0 { i64::MIN } else { i64::MAX };
        if self.scale < scale {
            let (unscaled, _) = divide_away(self.unscaled, scale.abs_diff(self.scale));
            return i64::try_from(unscaled).unwrap_or(limit);
        }
        if self.is_zero() {
            return 0;
        }
        let factor = power_of_ten(self.scale.abs_diff(scale));
        let scaled = factor.and_then(|factor| self.unscaled.checked_mul(factor));
        scaled.and_then(|scaled| i64::try_from(scaled).ok()).unwrap_or(limit)
    }

    /// The value as a whole number, if it is one that prints with a binary suffix.
    pub(super) fn whole_digits(self) -> Option<i128> {
        if self.scale < 0 {
            let (whole, exact) = divide_away(self.unscaled, self.scale.unsigned_abs());
            return exact.then_some(whole);
        }
        self.unscaled.checked_mul(power_of_ten(self.scale.unsigned_abs())?)
    }

    /// Mantissa and exponent, the mantissa not a multiple of ten.
    pub(super) fn without_trailing_zeros(self) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.unscaled, self.scale);
        while mantissa != 0 && mantissa % 10 == 0 && exponent < i32::MAX {
            mantissa /= 10;
            exponent += 1;
        }
        (mantissa, exponent)
    }

    /// So many of it.
    #[must_use]
    pub fn times(self, count: i64) -> Self {
        let (mut unscaled, mut scale) = self.without_trailing_zeros();
        loop {
            if let Some(product) = unscaled.checked_mul(i128::from(count)) {
                return Self::from_parts(product, scale, self.format);
            }
            unscaled = divide_away(unscaled, 1).0;
            scale = scale.saturating_add(1);
        }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { unscaled: -self.unscaled, ..self }
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Prints as the first one does, unless that is nothing.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        if self.is_zero() || other.is_zero() {
            let sum = if self.is_zero() { other } else { self };
            return sum.with_format(format);
        }
        let (coarse, fine) = if self.scale >= other.scale { (self, other) } else { (other, self) };
        let (mut unscaled, mut scale) = (coarse.unscaled, coarse.scale);
        while scale > fine.scale && unscaled.unsigned_abs() < TOO_LONG / 10 {
            unscaled *= 10;
            scale -= 1;
        }
        // If the digits did not suffice to meet, the finer one is rounded to where the coarser one ends.
        let (addend, _) = divide_away(fine.unscaled, scale.abs_diff(fine.scale));
        Self::from_parts(unscaled + addend, scale, format)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.signum().cmp(&other.signum());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let (left, left_exponent) = self.without_trailing_zeros();
        let (right, right_exponent) = other.without_trailing_zeros();
        let length = |mantissa: i128, exponent: i32| i64::from(mantissa.unsigned_abs().ilog10()) + i64::from(exponent);
        let lengths = length(left, left_exponent).cmp(&length(right, right_exponent));
        if lengths != Ordering::Equal {
            return if left > 0 { lengths } else { lengths.reverse() };
        }
        // Both begin at the same place, so that the shorter one has room for the digits that it lacks.
        let missing = left_exponent.abs_diff(right_exponent);
        let factor = power_of_ten(missing).unwrap_or(1);
        if left_exponent > right_exponent { (left * factor).cmp(&right) } else { left.cmp(&(right * factor)) }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}
