//! Moments and spans.

use jiff::Zoned;

use super::{Answer, Function, Meter, mismatch, other};
use crate::cost::Price;
use crate::functions::strings::text;
use crate::time;
use crate::types::Pattern as P;
use crate::value::Value as V;

const NANOS: i64 = 1_000_000_000;

type Run = for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>;

const fn row(name: &'static str, member: bool, args: &'static [P], result: P, run: Run) -> Function {
    Function { name, member, args, result, price: if member { Price::One } else { Price::First }, size: |_| 1, run }
}

/// Each part of a moment in UTC and, with a second argument, in a zone.
macro_rules! parts {
    ($($name:literal => $part:expr),* $(,)?) => {
        &[$(
            row($name, true, &[P::Timestamp], P::Int, |_, args| part(args, $part)),
            row($name, true, &[P::Timestamp, P::Text], P::Int, |_, args| part(args, $part)),
        )*]
    };
}

pub(super) static PARTS: &[Function] = parts!(
    "getFullYear" => |moment| moment.year().into(),
    "getMonth" => |moment| i64::from(moment.month()) - 1,
    "getDate" => |moment| moment.day().into(),
    "getDayOfMonth" => |moment| i64::from(moment.day()) - 1,
    "getDayOfWeek" => |moment| moment.weekday().to_sunday_zero_offset().into(),
    "getDayOfYear" => |moment| i64::from(moment.day_of_year()) - 1,
    "getHours" => |moment| moment.hour().into(),
    "getMinutes" => |moment| moment.minute().into(),
    "getSeconds" => |moment| moment.second().into(),
    "getMilliseconds" => |moment| moment.millisecond().into(),
);

pub(super) static FUNCTIONS: &[Function] = &[
    row("getHours", true, &[P::Duration], P::Int, |_, args| span(args, 3600 * NANOS)),
    row("getMinutes", true, &[P::Duration], P::Int, |_, args| span(args, 60 * NANOS)),
    row("getSeconds", true, &[P::Duration], P::Int, |_, args| span(args, NANOS)),
    row("getMilliseconds", true, &[P::Duration], P::Int, |_, args| span(args, NANOS / 1000)),
    row("timestamp", false, &[P::Timestamp], P::Timestamp, |_, args| Ok(args[0].clone())),
    row("timestamp", false, &[P::Text], P::Timestamp, |_, args| {
        let text = text(&args[0])?;
        match time::parse(text) {
            Some(moment) => Ok(V::Timestamp(moment)),
            None => other(format!("type conversion error from 'string' to 'google.protobuf.Timestamp': {text:?}")),
        }
    }),
    row("timestamp", false, &[P::Int], P::Timestamp, |_, args| match &args[0] {
        V::Int(seconds) => match jiff::Timestamp::from_second(*seconds) {
            Ok(moment) => Ok(V::Timestamp(moment)),
            Err(_) => other("timestamp overflow"),
        },
        _ => mismatch(),
    }),
    row("duration", false, &[P::Duration], P::Duration, |_, args| Ok(args[0].clone())),
    row("duration", false, &[P::Text], P::Duration, |_, args| {
        let text = text(&args[0])?;
        match time::parse_duration(text) {
            Some(nanos) => Ok(V::Duration(nanos)),
            None => other(format!("type conversion error from 'string' to 'google.protobuf.Duration': {text:?}")),
        }
    }),
];

fn part<'v>(args: &[V<'v>], of: fn(&Zoned) -> i64) -> Answer<'v> {
    let V::Timestamp(moment) = &args[0] else { return mismatch() };
    let zone = args.get(1).map_or(Ok(""), text)?;
    match time::in_zone(*moment, zone) {
        Some(moment) => Ok(V::Int(of(&moment))),
        None => other(format!("unknown time zone {zone}")),
    }
}

fn span<'v>(args: &[V<'v>], unit: i64) -> Answer<'v> {
    match &args[0] {
        V::Duration(nanos) => Ok(V::Int(nanos / unit)),
        _ => mismatch(),
    }
}
