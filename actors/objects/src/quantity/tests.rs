//! Tables of upstream's forms, and arithmetic against integers of any size.

use num_bigint::BigInt;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn text_prints_in_canonical_form() {
    for (text, canonical) in [
        ("0", "0"),
        ("0n", "0"),
        ("0Ki", "0"),
        ("-0", "0"),
        (".", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("007", "7"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        (".5", "500m"),
        ("5.", "5"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("10000", "10k"),
        ("1000k", "1M"),
        ("1000000000", "1G"),
        ("123456789", "123456789"),
        ("-1000m", "-1"),
        ("-1.5Gi", "-1536Mi"),
        ("1Ki", "1Ki"),
        ("1023Ki", "1023Ki"),
        ("1024Ki", "1Mi"),
        ("1000Ki", "1000Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("0.0001Ki", "102400u"),
        ("1.1Ki", "1126400m"),
        ("512Ki", "512Ki"),
        ("7Ei", "7Ei"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1e2", "100"),
        ("10e2", "1e3"),
        ("12e6", "12e6"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("100E", "100E"),
        ("1000E", "1000E"),
        ("1e30", "1e30"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.0000000001", "1000000001n"),
        ("0.0000000001Gi", "107374183n"),
        ("9223372036854775807", "9223372036854775807"),
        ("99999999999999999999", "99999999999999999999"),
    ] {
        assert_eq!(quantity(text).to_string(), canonical, "{text}");
        assert_eq!(quantity(canonical), quantity(text), "{text}");
    }
}

#[test]
fn binary_suffixes_are_capped_and_decimal_ones_are_not() {
    assert_eq!(quantity("8Ei").value(), i64::MAX);
    assert_eq!(quantity("8Ei").to_string(), "9223372036854775807");
    assert_eq!(quantity("-100Ei").value(), -i64::MAX);
    assert_eq!(quantity("1e20") + quantity("1e20"), quantity("2e20"));
    assert_eq!(quantity("1e20").value(), i64::MAX, "a conversion ends at its type's limit");
    assert_eq!(quantity("-1e20").value(), i64::MIN);
    assert_eq!(quantity("1e20").exact_value(), None);
    assert_eq!(quantity("1e2147483647").to_string(), "10e2147483646");
    assert!(quantity("1e2147483647") > quantity("9e2147483646"));
    assert_eq!(quantity("1e-2147483648"), quantity("1n"));
}

#[test]
fn what_is_no_quantity_is_refused() {
    use ParseQuantityError::{Format, Suffix};
    for (text, error) in [
        ("", Format),
        (" ", Format),
        ("1 ", Format),
        ("1.2.3", Format),
        ("--1", Suffix),
        ("1x", Format),
        ("1,5", Format),
        ("1e3.5", Format),
        ("1ki", Suffix),
        ("1kk", Suffix),
        ("1K", Suffix),
        ("1mi", Suffix),
        ("1e", Suffix),
        ("1-3", Suffix),
        ("1e99999999999999999999", Suffix),
        ("1e2147483648", Suffix),
        ("ä", Format),
        ("1ä", Format),
    ] {
        assert_eq!(text.parse::<Quantity>(), Err(error), "{text:?}");
    }
    let message = Format.to_string();
    assert_eq!(message, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
}

#[test]
fn the_api_keeps_some_texts_as_they_came() {
    for (text, wire) in [
        ("1000m", "1"),
        (" 1 ", "1"),
        ("+1", "+1"),
        ("1.500", "1.500"),
        ("1.000", "1"),
        ("0.500", "500m"),
        ("1E3", "1E3"),
        ("10e2", "1e3"),
        ("1025Mi", "1025Mi"),
        ("1024Mi", "1Gi"),
        ("0012Ki", "0012Ki"),
        ("0", "0"),
    ] {
        assert_eq!(wire_form(text).as_deref(), Ok(wire), "{text}");
    }
    assert_eq!(wire_form("x"), Err(ParseQuantityError::Format));
}

#[test]
fn json_holds_quantities_as_text_or_number() {
    for (value, text) in [
        (json!("1500m"), "1500m"),
        (json!(" 2 "), "2"),
        (json!(3), "3"),
        (json!(-3), "-3"),
        (json!(0.25), "250m"),
        (json!(1e3), "1k"),
        (json!(null), "0"),
    ] {
        assert_eq!(Quantity::from_json(&value).unwrap().to_string(), text);
    }
    for value in [json!(true), json!([]), json!({}), json!("x")] {
        assert!(Quantity::from_json(&value).is_err(), "{value}");
    }
}

#[test]
fn numbers_come_out_rounded_away_from_zero() {
    for (text, value, milli) in [
        ("1500m", 2, 1500),
        ("-1500m", -2, -1500),
        ("1n", 1, 1),
        ("2", 2, 2000),
        ("0", 0, 0),
        ("1Gi", 1 << 30, 1000 << 30),
        ("10Pi", 10 << 50, i64::MAX),
    ] {
        assert_eq!((quantity(text).value(), quantity(text).milli_value()), (value, milli), "{text}");
    }
    assert_eq!(quantity("1500m").exact_value(), None);
    assert_eq!(quantity("2000m").exact_value(), Some(2));
    assert_eq!(quantity("-9223372036854775808").exact_value(), Some(i64::MIN));
    assert!((quantity("1500m").to_f64() - 1.5).abs() < f64::EPSILON);
    assert!(quantity("1e2147483647").to_f64().is_infinite());
    assert_eq!(quantity("1234m").round_up(-2), (quantity("1.24"), false));
    assert_eq!(quantity("1230m").round_up(-2), (quantity("1.23"), true));
    assert_eq!(quantity("-1234m").round_up(0), (quantity("-2"), false));
}

#[test]
fn a_sum_prints_as_its_first_part_unless_that_is_nothing() {
    for (left, right, sum) in [
        ("1Gi", "1G", "2073741824"),
        ("1Gi", "1Gi", "2Gi"),
        ("0", "1Gi", "1Gi"),
        ("1G", "1Gi", "2073741824"),
        ("1e3", "1", "1001"),
        ("500m", "500m", "1"),
        ("1", "1n", "1000000001n"),
        ("0", "0Ki", "0"),
    ] {
        assert_eq!((quantity(left) + quantity(right)).to_string(), sum, "{left} + {right}");
    }
    assert_eq!((quantity("1Gi") - quantity("1Gi")).to_string(), "0");
    assert_eq!((quantity("1Gi") - quantity("2Gi")).to_string(), "-1Gi");
    assert_eq!(quantity("250m").times(6).to_string(), "1500m");
    assert_eq!(Quantity::from_milli(1500, Format::DecimalSi).to_string(), "1500m");
    assert_eq!(Quantity::from_scaled(5, 3, Format::DecimalSi).to_string(), "5k");
    assert_eq!(Quantity::from_scaled(5, -10, Format::DecimalSi).to_string(), "1n");
    let mut used = quantity("1");
    used += quantity("2");
    used -= quantity("500m");
    assert_eq!(used.to_string(), "2500m");
}

#[test]
fn digits_that_do_not_meet_are_rounded_away_from_zero() {
    let huge = quantity("1e40");
    let sum = huge + quantity("1n");
    assert!(sum > huge, "something was added");
    assert!(huge - quantity("1n") < huge, "something was taken away");
    let long = quantity(&"9".repeat(60));
    assert_eq!(long, quantity("1e60"), "more digits than are kept round up");
    assert_eq!(long.times(i64::MAX).signum(), 1);
}

/// The exact value in nano-units.
fn nanos(quantity: Quantity) -> BigInt {
    let exponent = u32::try_from(quantity.scale - NANO).unwrap();
    BigInt::from(quantity.unscaled) * BigInt::from(10).pow(exponent)
}

/// Texts whose sums have no more digits than a quantity keeps, down to a nano-unit.
fn any_text() -> impl Strategy<Value = String> {
    let suffix = prop::sample::select(vec![
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-6", "e12",
    ]);
    ("[+-]?[0-9]{1,9}(\\.[0-9]{0,9})?", suffix).prop_map(|(number, suffix)| format!("{number}{suffix}"))
}

/// What the text says in nano-units, by schoolbook arithmetic: number × suffix, rounded away from zero, capped if binary.
fn reference(text: &str) -> BigInt {
    let start = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(start);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits: BigInt = format!("{}{fraction}", whole.trim_start_matches(['+', '-'])).parse().unwrap();
    let ten = |exponent: usize| BigInt::from(10).pow(u32::try_from(exponent).unwrap());
    let (factor, divisor) = match suffix {
        "" => (ten(0), ten(0)),
        "n" => (ten(0), ten(9)),
        "u" | "E-6" => (ten(0), ten(6)),
        "m" => (ten(0), ten(3)),
        "k" | "e3" => (ten(3), ten(0)),
        "M" => (ten(6), ten(0)),
        "G" => (ten(9), ten(0)),
        "T" | "e12" => (ten(12), ten(0)),
        "P" => (ten(15), ten(0)),
        "E" => (ten(18), ten(0)),
        binary => {
            let step = "KMGTPE".find(&binary[..1]).unwrap() + 1;
            (BigInt::from(1024).pow(u32::try_from(step).unwrap()), ten(0))
        }
    };
    let numerator = digits * factor * ten(9);
    let denominator = ten(fraction.len()) * divisor;
    let mut value: BigInt = (&numerator + &denominator - 1) / &denominator;
    if suffix.ends_with('i') {
        value = value.min(BigInt::from(i64::MAX) * ten(9));
    }
    if negative { -value } else { value }
}

proptest! {
    #[test]
    fn a_text_has_the_value_that_it_says(text in any_text()) {
        prop_assert_eq!(nanos(quantity(&text)), reference(&text));
    }

    #[test]
    fn printing_loses_nothing_and_is_stable(text in any_text()) {
        let value = quantity(&text);
        let printed = value.to_string();
        prop_assert_eq!(quantity(&printed), value);
        prop_assert_eq!(quantity(&printed).to_string(), printed.clone());
        prop_assert!(!printed.contains('.'), "{}", printed);
        prop_assert_eq!(quantity(&wire_form(&text).unwrap()), value);
    }

    #[test]
    fn sums_and_order_are_those_of_integers(left in any_text(), right in any_text(), count: i16) {
        let (a, b) = (quantity(&left), quantity(&right));
        prop_assert_eq!(nanos(a + b), nanos(a) + nanos(b));
        prop_assert_eq!(nanos(a - b), nanos(a) - nanos(b));
        prop_assert_eq!(a.cmp(&b), nanos(a).cmp(&nanos(b)));
        prop_assert_eq!(a == b, nanos(a) == nanos(b));
        prop_assert_eq!(nanos(a.times(i64::from(count))), nanos(a) * count);
        prop_assert_eq!(a - b + b, a);
    }

    #[test]
    fn order_holds_at_any_size(left in "-?[1-9][0-9]{0,40}", right in "-?[1-9][0-9]{0,40}", by in 0_u32..60, up in 0_u32..60) {
        let (a, b) = (quantity(&format!("{left}e{by}")), quantity(&format!("{right}e{up}")));
        prop_assert_eq!(a.cmp(&b), nanos(a).cmp(&nanos(b)));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!((a + b).cmp(&a), b.cmp(&Quantity::ZERO), "however far apart the two are, the sum moved");
        prop_assert_eq!(quantity(&(a + b).to_string()), a + b);
    }

    #[test]
    fn no_text_upsets_the_parser(text in any::<String>(), like in "[-+0-9.eEinumkKMGTP]{0,60}") {
        for text in [text, like] {
            if let Ok(value) = text.parse::<Quantity>() {
                let _used = (value.to_string(), value.value(), value.milli_value(), value.to_f64(), value + value);
                prop_assert_eq!(quantity(&value.to_string()), value);
            }
            let _wire = wire_form(&text);
        }
    }
}
