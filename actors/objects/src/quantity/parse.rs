//! Text to quantity, and what the API writes back.

use super::{DIGITS_MAX, Format, NANO, ParseQuantityError, Quantity};

/// Suffixes with the power they stand for, of ten or of two.
const SUFFIXES: &[(&str, i32, Format)] = &[
    ("n", -9, Format::DecimalSi),
    ("u", -6, Format::DecimalSi),
    ("m", -3, Format::DecimalSi),
    ("", 0, Format::DecimalSi),
    ("k", 3, Format::DecimalSi),
    ("M", 6, Format::DecimalSi),
    ("G", 9, Format::DecimalSi),
    ("T", 12, Format::DecimalSi),
    ("P", 15, Format::DecimalSi),
    ("E", 18, Format::DecimalSi),
    ("Ki", 10, Format::BinarySi),
    ("Mi", 20, Format::BinarySi),
    ("Gi", 30, Format::BinarySi),
    ("Ti", 40, Format::BinarySi),
    ("Pi", 50, Format::BinarySi),
    ("Ei", 60, Format::BinarySi),
];

/// Digits up to which upstream takes its quick path; what it writes back depends on that.
const QUICK_DIGITS: usize = 18;

/// Greatest value that a binary suffix reaches: upstream caps there, and only there.
const BINARY_MAX: i128 = i64::MAX as i128;

/// A parsed text.
pub(super) struct Parsed {
    /// Its value.
    pub(super) quantity: Quantity,
    /// Whether upstream keeps the text as written rather than printing the value again.
    kept: bool,
}

/// The text cut into its parts.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point, without leading zeros; `0` stands for none.
    whole: &'a str,
    /// Digits after the point.
    fraction: &'a str,
    suffix: &'a str,
}

/// The suffix of a power in a family, empty for none.
pub(super) fn suffix(exponent: i32, format: Format) -> Option<&'static str> {
    if exponent == 0 {
        return Some("");
    }
    SUFFIXES.iter().find(|(_, power, family)| (*power, *family) == (exponent, format)).map(|(suffix, ..)| *suffix)
}

/// The text that the API keeps for a quantity it was given.
///
/// This is the canonical form, except that upstream recognizes some texts as canonical which aren't (`1.500`, `+1`)
/// and leaves them alone; so do we, since clients compare what they get with what they sent.
///
/// # Errors
///
/// Fails for text that isn't a quantity.
pub fn wire_form(text: &str) -> Result<String, ParseQuantityError> {
    let text = text.trim();
    let parsed = parse(text)?;
    Ok(if parsed.kept { text.to_owned() } else { parsed.quantity.to_string() })
}

/// Reads a quantity.
pub(super) fn parse(text: &str) -> Result<Parsed, ParseQuantityError> {
    let parts = cut(text)?;
    let (exponent, format) = interpret(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
    let kept = is_kept(&parts, exponent, format);
    // Each digit is one byte; the value is `digits` × 10^-`places` × the suffix.
    let mut digits: Vec<u8> = parts.whole.bytes().chain(parts.fraction.bytes()).map(|digit| digit - b'0').collect();
    let mut places = i64::try_from(parts.fraction.len()).unwrap_or(i64::MAX);
    if format == Format::BinarySi {
        for _ in 0..exponent / 10 {
            multiply(&mut digits, 1024);
        }
    } else {
        places = places.saturating_sub(i64::from(exponent));
    }
    let (mut unscaled, scale) = condense(&digits, places);
    if parts.negative {
        unscaled = -unscaled;
    }
    let quantity = Quantity::from_parts(unscaled, scale, format);
    Ok(Parsed { quantity: if format == Format::BinarySi { limit_binary(quantity) } else { quantity }, kept })
}

/// Binary suffixes are capped, and mean nothing below one.
fn limit_binary(quantity: Quantity) -> Quantity {
    let most = Quantity::from_parts(BINARY_MAX, 0, Format::BinarySi);
    let one = Quantity::from_parts(1, 0, Format::BinarySi);
    let limited = quantity.min(most).max(-most);
    let is_fraction = limited < one && limited > -one && !limited.is_zero();
    if is_fraction { limited.with_format(Format::DecimalSi) } else { limited }
}

fn cut(text: &str) -> Result<Parts<'_>, ParseQuantityError> {
    if text.is_empty() {
        return Err(ParseQuantityError::Format);
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let rest = rest.trim_start_matches('0');
    let (whole, rest) = split_digits(rest);
    let whole = if whole.is_empty() { "0" } else { whole };
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    // Letters, one sign, digits; whether they make sense is another question.
    let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseQuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// The power a suffix stands for.
fn interpret(suffix: &str) -> Option<(i32, Format)> {
    if let Some((_, power, format)) = SUFFIXES.iter().find(|(known, ..)| *known == suffix) {
        return Some((*power, *format));
    }
    let digits = suffix.strip_prefix(['e', 'E'])?;
    Some((digits.parse().ok()?, Format::DecimalExponent))
}

/// Whether upstream would take the text for canonical.
fn is_kept(parts: &Parts<'_>, exponent: i32, format: Format) -> bool {
    let (whole, fraction) = (parts.whole.len(), parts.fraction.len());
    if format == Format::BinarySi {
        // Three decimal digits per ten bits, and the product has to be one that surely fits.
        let used = whole + usize::try_from(exponent / 10 * 3).unwrap_or(usize::MAX);
        return fraction == 0 && used < 15 && parts.whole.parse::<u64>().is_ok_and(|value| value % 8 != 0);
    }
    let Ok(fraction) = i32::try_from(fraction) else { return false };
    let scale = exponent.saturating_sub(fraction);
    let all = format!("{}{}", parts.whole, parts.fraction);
    all.len() <= QUICK_DIGITS && scale >= NANO && scale % 3 == 0 && !all.ends_with("000") && !all.starts_with('0')
}

/// Multiplies a row of digits.
fn multiply(digits: &mut Vec<u8>, factor: u32) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        carry += u32::from(*digit) * factor;
        *digit = u8::try_from(carry % 10).expect("a remainder of ten");
        carry /= 10;
    }
    let mut front = Vec::new();
    while carry > 0 {
        front.push(u8::try_from(carry % 10).expect("a remainder of ten"));
        carry /= 10;
    }
    digits.splice(0..0, front.into_iter().rev());
}

/// Rounds a row of digits, with so many of them after the point, to what a quantity holds.
fn condense(digits: &[u8], places: i64) -> (i128, i32) {
    let start = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len());
    let digits = &digits[start..];
    let surplus = digits.len().saturating_sub(DIGITS_MAX as usize);
    // Digits beyond a nano-unit are cut here too: left to later, they would be rounded a second time.
    let below_nano = usize::try_from(places.saturating_add(i64::from(NANO))).unwrap_or(0);
    let cut = surplus.max(below_nano);
    let (kept, dropped) = digits.split_at(digits.len().saturating_sub(cut));
    let mut unscaled = kept.iter().fold(0_i128, |value, digit| value * 10 + i128::from(*digit));
    if dropped.iter().any(|digit| *digit != 0) {
        unscaled += 1;
    }
    if unscaled == 0 {
        return (0, 0);
    }
    let scale = i64::try_from(cut).unwrap_or(i64::MAX).saturating_sub(places);
    // A cut always ends at or above a nano-unit, so that only the upper end can be out of reach.
    (unscaled, i32::try_from(scale).unwrap_or(if scale < 0 { i32::MIN } else { i32::MAX }))
}
