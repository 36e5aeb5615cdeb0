//! Addresses, their blocks, and URLs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::{Answer, Function, Meter, mismatch, other};
use crate::cost::Price;
use crate::error::EvalError;
use crate::functions::strings::text;
use crate::types::{Opaque, Pattern as P};
use crate::url::Url;
use crate::value::{Key, Value as V};

type Run = for<'v> fn(&mut Meter<'_>, &[V<'v>]) -> Answer<'v>;

const IP: P = P::Opaque(Opaque::Ip);
const CIDR: P = P::Opaque(Opaque::Cidr);
const URL: P = P::Opaque(Opaque::Url);

const fn global(name: &'static str, args: &'static [P], result: P, run: Run) -> Function {
    Function { name, member: false, args, result, price: Price::First, size: |sizes| sizes[0], run }
}

/// A function that reads a text of which only a good one is short.
const fn parser(name: &'static str, result: P, run: Run) -> Function {
    Function { name, member: false, args: &[P::Text], result, price: Price::Parse, size: |sizes| sizes[0], run }
}

const fn method(name: &'static str, args: &'static [P], result: P, run: Run) -> Function {
    Function { name, member: true, args, result, price: Price::One, size: |_| crate::types::UNKNOWN, run }
}

pub(super) static FUNCTIONS: &[Function] = &[
    parser("ip", IP, |_, args| ip(text(&args[0])?).map(V::Ip)),
    parser("isIP", P::Bool, |_, args| Ok(V::Bool(ip(text(&args[0])?).is_ok()))),
    parser("ip.isCanonical", P::Bool, |_, args| {
        let text = text(&args[0])?;
        Ok(V::Bool(ip(text)?.to_string() == text))
    }),
    method("family", &[IP], P::Int, |_, args| with(args, |ip| V::Int(if ip.is_ipv4() { 4 } else { 6 }))),
    method("isUnspecified", &[IP], P::Bool, |_, args| with(args, |ip| V::Bool(ip.is_unspecified()))),
    method("isLoopback", &[IP], P::Bool, |_, args| with(args, |ip| V::Bool(ip.is_loopback()))),
    method("isLinkLocalMulticast", &[IP], P::Bool, |_, args| {
        with(args, |ip| {
            V::Bool(match ip {
                IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
                IpAddr::V6(ip) => ip.octets()[0] == 0xff && ip.octets()[1] & 0x0f == 2,
            })
        })
    }),
    method("isLinkLocalUnicast", &[IP], P::Bool, |_, args| {
        with(args, |ip| {
            V::Bool(match ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.octets()[0] == 0xfe && ip.octets()[1] & 0xc0 == 0x80,
            })
        })
    }),
    method("isGlobalUnicast", &[IP], P::Bool, |_, args| {
        with(args, |ip| {
            let local = match ip {
                IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
                IpAddr::V6(ip) => ip.octets()[0] == 0xfe && ip.octets()[1] & 0xc0 == 0x80,
            };
            V::Bool(!(local || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()))
        })
    }),
    global("string", &[IP], P::Text, |_, args| with(args, |ip| V::text(ip.to_string()))),
    parser("cidr", CIDR, |_, args| cidr(text(&args[0])?).map(|(ip, bits)| V::Cidr(ip, bits))),
    parser("isCIDR", P::Bool, |_, args| Ok(V::Bool(cidr(text(&args[0])?).is_ok()))),
    global("string", &[CIDR], P::Text, |_, args| match &args[0] {
        V::Cidr(ip, bits) => Ok(V::text(format!("{ip}/{bits}"))),
        _ => mismatch(),
    }),
    method("ip", &[CIDR], IP, |_, args| match &args[0] {
        V::Cidr(ip, _) => Ok(V::Ip(*ip)),
        _ => mismatch(),
    }),
    method("prefixLength", &[CIDR], P::Int, |_, args| match &args[0] {
        V::Cidr(_, bits) => Ok(V::Int((*bits).into())),
        _ => mismatch(),
    }),
    method("masked", &[CIDR], CIDR, |_, args| match &args[0] {
        V::Cidr(ip, bits) => Ok(V::Cidr(masked(*ip, *bits), *bits)),
        _ => mismatch(),
    }),
    Function { price: Price::Address, ..method("containsIP", &[CIDR, IP], P::Bool, contains_ip) },
    Function { price: Price::Address, ..method("containsIP", &[CIDR, P::Text], P::Bool, contains_ip) },
    Function { price: Price::Address, ..method("containsCIDR", &[CIDR, CIDR], P::Bool, contains_cidr) },
    Function { price: Price::Address, ..method("containsCIDR", &[CIDR, P::Text], P::Bool, contains_cidr) },
    global("url", &[P::Text], URL, |_, args| match Url::parse(text(&args[0])?) {
        Some(url) => Ok(V::Url(Rc::new(url))),
        None => other(format!("URL parse error during conversion from string: {}", text(&args[0])?)),
    }),
    parser("isURL", P::Bool, |_, args| Ok(V::Bool(Url::parse(text(&args[0])?).is_some()))),
    method("getScheme", &[URL], P::Text, |_, args| part(args, |url| V::text(url.scheme.as_str()))),
    method("getHost", &[URL], P::Text, |_, args| part(args, |url| V::text(url.host.as_str()))),
    method("getHostname", &[URL], P::Text, |_, args| part(args, |url| V::text(url.host_name()))),
    method("getPort", &[URL], P::Text, |_, args| part(args, |url| V::text(url.port()))),
    method("getEscapedPath", &[URL], P::Text, |_, args| part(args, |url| V::text(url.escaped_path()))),
    method("getQuery", &[URL], P::Map(&P::Text, &P::List(&P::Text)), |meter, args| {
        let V::Url(url) = &args[0] else { return mismatch() };
        meter.spend(crate::cost::traverse(url.text().len() as u64))?;
        let mut values: BTreeMap<Key, Vec<V<'_>>> = BTreeMap::new();
        for (name, value) in url.pairs() {
            values.entry(Key::Text(name.into())).or_default().push(V::text(value));
        }
        let values = values.into_iter().map(|(name, list)| (name, V::list(list))).collect();
        Ok(V::Map(crate::value::Map::Made(Rc::new(values))))
    }),
];

fn ip(text: &str) -> Result<IpAddr, EvalError> {
    let wrong =
        |why: &str| EvalError::other(format!("IP Address {text:?} parse error during conversion from string: {why}"));
    let ip: IpAddr = text.parse().map_err(|_| wrong("unable to parse IP"))?;
    match ip {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => Err(wrong("IPv4-mapped IPv6 address is not allowed")),
        ip => Ok(ip),
    }
}

fn cidr(text: &str) -> Result<(IpAddr, u8), EvalError> {
    let wrong = || EvalError::other(format!("network address parse error during conversion from string: {text:?}"));
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address = ip(address).map_err(|_| wrong())?;
    let plain = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    if bits > width(address) { Err(wrong()) } else { Ok((address, bits)) }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    let shift = u32::from(width(ip) - bits);
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into()),
    }
}

fn within(block: (IpAddr, u8), ip: IpAddr) -> bool {
    block.0.is_ipv4() == ip.is_ipv4() && masked(block.0, block.1) == masked(ip, block.1)
}

fn contains_ip<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let V::Cidr(address, bits) = &args[0] else { return mismatch() };
    let other = match &args[1] {
        V::Ip(ip) => *ip,
        given => ip(text(given)?)?,
    };
    Ok(V::Bool(within((*address, *bits), other)))
}

fn contains_cidr<'v>(_: &mut Meter<'_>, args: &[V<'v>]) -> Answer<'v> {
    let V::Cidr(address, bits) = &args[0] else { return mismatch() };
    let (other, other_bits) = match &args[1] {
        V::Cidr(ip, bits) => (*ip, *bits),
        given => cidr(text(given)?)?,
    };
    Ok(V::Bool(other_bits >= *bits && within((*address, *bits), other)))
}

fn with<'v>(args: &[V<'v>], make: fn(IpAddr) -> V<'static>) -> Answer<'v> {
    match &args[0] {
        V::Ip(ip) => Ok(make(*ip)),
        _ => mismatch(),
    }
}

fn part<'v>(args: &[V<'v>], make: for<'u> fn(&'u Url) -> V<'static>) -> Answer<'v> {
    match &args[0] {
        V::Url(url) => Ok(make(url)),
        _ => mismatch(),
    }
}
