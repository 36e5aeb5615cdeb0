//! Tables, chains, rules, sets and elements on the wire.

use super::expression::Expression;
use super::model::{Chain, ChainBase, ChainKind, Change, Contents, Data, DataKind, Element, Family, Hook, Rule, Set};
use super::model::{TypeId, Verdict};
use crate::error::NetlinkError;
use crate::wire::{Message, attributes, be, find, flags, string};

/// The number of nftables among the parts of netfilter, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const BATCH_GENERATION: u16 = 1;

const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
pub(super) const GET_SET: u16 = 10;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
pub(super) const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
pub(super) const GET_GENERATION: u16 = 16;

/// Bytes of `struct nfgenmsg`.
pub(super) const HEADER_BYTES: usize = 4;
/// A table is the first attribute of everything that is in one.
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// It belongs to the socket that made it.
const TABLE_OWNER: u32 = 0x2;
const LIST_ELEMENT: u16 = 1;

const SET_MAP: u32 = 0x8;
/// Its elements time out, and come from packets.
const SET_FROM_PACKETS: u32 = 0x10 | 0x20;
const SET_DESCRIPTION: u16 = 9;
const DESCRIPTION_SIZE: u16 = 1;
const DATA_VERDICT: u32 = 0xffff_ff00;
/// nft's number for a comment among what it keeps with an element.
const USERDATA_COMMENT: u8 = 0;
/// The kernel keeps 256 bytes with an element.
const COMMENT_BYTES_MAX: usize = 250;
/// Elements in one message: an attribute holds 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 128;
/// Longer names are refused.
const NAME_BYTES_MAX: usize = 255;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const CONTINUE: u32 = u32::MAX;
const JUMP: u32 = u32::MAX - 2;
const GOTO: u32 = u32::MAX - 3;
const RETURN: u32 = u32::MAX - 4;

pub(super) fn message(kind: u16, extra: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, extra).raw(&[family, 0, 0, 0])
}

/// A question about what is in one table.
pub(super) fn about(kind: u16, family: Family, table: &str) -> Message {
    let mut message = message(kind, 0, family.number());
    message.text(TABLE, table);
    message
}

/// The kind of a message within nftables.
pub(super) fn kind(kind: u16) -> Option<u16> {
    (kind >> 8 == SUBSYSTEM).then_some(kind & 0xff)
}

pub(super) fn begin(generation: Option<u32>) -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let mut message = Message::new(BATCH_BEGIN, flags::REQUEST).raw(&[0, 0, high, low]);
    if let Some(generation) = generation {
        message.be32(BATCH_GENERATION, generation);
    }
    message
}

pub(super) fn end() -> Message {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Message::new(BATCH_END, flags::REQUEST).raw(&[0, 0, high, low])
}

fn check_name(name: &str) -> Result<(), NetlinkError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(NetlinkError::Invalid(format!("{name:?} is not a name in nftables")));
    }
    Ok(())
}

/// The messages that a change is made of.
pub(super) fn change(family: Family, table: &str, change: &Change, place: u32) -> Result<Vec<Message>, NetlinkError> {
    check_name(table)?;
    let new = |kind, extra| {
        let mut message = message(kind, flags::REQUEST | extra, family.number());
        message.text(TABLE, table);
        message
    };
    let named = |kind, attribute, name: &str| {
        check_name(name)?;
        let mut message = new(kind, 0);
        message.text(attribute, name);
        Ok::<_, NetlinkError>(vec![message])
    };
    match change {
        Change::AddTable => Ok(vec![new(NEW_TABLE, flags::CREATE)]),
        Change::OwnTable => {
            let mut message = new(NEW_TABLE, flags::CREATE);
            message.be32(TABLE_FLAGS, TABLE_OWNER);
            Ok(vec![message])
        }
        Change::DeleteTable => Ok(vec![new(DELETE_TABLE, 0)]),
        Change::AddSet(set) => {
            check_name(&set.name)?;
            let mut message = new(NEW_SET, flags::CREATE);
            put_set(&mut message, set, place);
            Ok(vec![message])
        }
        Change::DeleteSet(name) => named(DELETE_SET, 2, name),
        Change::AddChain { name, base } => {
            check_name(name)?;
            let mut message = new(NEW_CHAIN, flags::CREATE);
            put_chain(&mut message, name, *base);
            Ok(vec![message])
        }
        Change::FlushChain(name) => named(DELETE_RULE, 2, name),
        Change::DeleteChain(name) => named(DELETE_CHAIN, 3, name),
        Change::AddRule { chain, rule } => {
            check_name(chain)?;
            let mut message = new(NEW_RULE, flags::CREATE | flags::APPEND);
            message.text(2, chain);
            message.nest(4, |list| {
                for expression in &rule.expressions {
                    list.nest(LIST_ELEMENT, |element| expression.put(element));
                }
            });
            Ok(vec![message])
        }
        Change::AddElements { set, elements } => put_elements(|| new(NEW_ELEMENT, flags::CREATE), set, elements),
        Change::DeleteElements { set, elements } => put_elements(|| new(DELETE_ELEMENT, 0), set, elements),
    }
}

fn put_set(message: &mut Message, set: &Set, place: u32) {
    message.text(2, &set.name);
    let map = if set.data.is_some() { SET_MAP } else { 0 };
    let from_packets = if set.from_packets.is_some() { SET_FROM_PACKETS } else { 0 };
    message.be32(3, map | from_packets);
    message.be32(4, set.key_type.0);
    message.be32(5, set.key_bytes);
    match set.data {
        Some(DataKind::Value { type_id, bytes }) => {
            message.be32(6, type_id.0);
            message.be32(7, bytes);
        }
        Some(DataKind::Verdict) => message.be32(6, DATA_VERDICT),
        None => {}
    }
    if let Some(size) = set.from_packets {
        message.nest(SET_DESCRIPTION, |description| description.be32(DESCRIPTION_SIZE, size));
    }
    message.be32(10, place);
}

fn put_chain(message: &mut Message, name: &str, base: Option<ChainBase>) {
    message.text(3, name);
    if let Some(base) = base {
        message.nest(4, |hook| {
            hook.be32(1, base.hook.number());
            hook.be32(2, base.priority.cast_unsigned());
        });
        message.be32(5, if base.drops { DROP } else { ACCEPT });
        message.text(7, base.kind.word());
    }
}

fn put_elements(new: impl Fn() -> Message, set: &str, elements: &Contents) -> Result<Vec<Message>, NetlinkError> {
    check_name(set)?;
    let long = elements.values().filter_map(|element| element.comment.as_ref());
    if let Some(comment) = long.into_iter().find(|comment| comment.len() > COMMENT_BYTES_MAX) {
        return Err(NetlinkError::Invalid(format!("a comment of {} bytes is too long", comment.len())));
    }
    let all: Vec<_> = elements.iter().collect();
    let message = |some: &[(&Vec<u8>, &Element)]| {
        let mut message = new();
        message.text(2, set);
        message.nest(3, |list| {
            for (key, element) in some {
                list.nest(LIST_ELEMENT, |one| put_element(one, key, element));
            }
        });
        message
    };
    Ok(all.chunks(ELEMENTS_PER_MESSAGE).map(message).collect())
}

fn put_element(message: &mut Message, key: &[u8], element: &Element) {
    message.nest(1, |data| data.attribute(1, key));
    if let Some(data) = &element.data {
        message.nest(2, |nested| put_data(nested, data));
    }
    if let Some(comment) = &element.comment {
        let mut bytes = vec![USERDATA_COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
        bytes.extend_from_slice(comment.as_bytes());
        bytes.push(0);
        message.attribute(6, &bytes);
    }
}

pub(super) fn put_data(message: &mut Message, data: &Data) {
    match data {
        Data::Value(value) => message.attribute(1, value),
        Data::Verdict(verdict) => put_verdict(message, verdict),
    }
}

pub(super) fn put_verdict(message: &mut Message, verdict: &Verdict) {
    message.nest(2, |nested| {
        let (code, chain) = match verdict {
            Verdict::Accept => (ACCEPT, None),
            Verdict::Drop => (DROP, None),
            Verdict::Continue => (CONTINUE, None),
            Verdict::Return => (RETURN, None),
            Verdict::Jump(chain) => (JUMP, Some(chain)),
            Verdict::Goto(chain) => (GOTO, Some(chain)),
        };
        nested.be32(1, code);
        if let Some(chain) = chain {
            nested.text(2, chain);
        }
    });
}

pub(super) fn read_data(bytes: &[u8]) -> Option<Data> {
    if let Some(value) = find(bytes, 1) {
        return Some(Data::Value(value.to_vec()));
    }
    let verdict = find(bytes, 2)?;
    let chain = || find(verdict, 2).map(string);
    Some(Data::Verdict(match find(verdict, 1).and_then(be)? {
        ACCEPT => Verdict::Accept,
        DROP => Verdict::Drop,
        CONTINUE => Verdict::Continue,
        RETURN => Verdict::Return,
        JUMP => Verdict::Jump(chain()?),
        GOTO => Verdict::Goto(chain()?),
        _ => return None,
    }))
}

/// The family and the table that a message is about.
pub(super) fn table_of(payload: &[u8]) -> Option<(Family, String)> {
    let family = Family::of(*payload.first()?)?;
    Some((family, string(find(payload.get(HEADER_BYTES..)?, TABLE)?)))
}

pub(super) fn read_chain(payload: &[u8]) -> Option<Chain> {
    let rest = payload.get(HEADER_BYTES..)?;
    let name = string(find(rest, 3)?);
    let base = match find(rest, 4) {
        None => None,
        Some(hook) => {
            let number = find(hook, 1).and_then(be)?;
            let word = string(find(rest, 7)?);
            Some(ChainBase {
                kind: ChainKind::ALL.into_iter().find(|kind| kind.word() == word)?,
                hook: Hook::ALL.into_iter().find(|hook| hook.number() == number)?,
                priority: find(hook, 2).and_then(be)?.cast_signed(),
                drops: find(rest, 5).and_then(be) == Some(DROP),
            })
        }
    };
    Some(Chain { name, base, rules: Vec::new() })
}

/// A rule, with the chain that it is in.
pub(super) fn read_rule(payload: &[u8]) -> Option<(String, Rule)> {
    let rest = payload.get(HEADER_BYTES..)?;
    let chain = string(find(rest, 2)?);
    let list = attributes(find(rest, 4).unwrap_or_default()).filter(|(kind, _)| *kind == LIST_ELEMENT);
    let expressions = list.filter_map(|(_, element)| Expression::read(element)).collect();
    Some((chain, Rule { expressions }))
}

/// A set without its elements. Flags that we don't set make it differ from all of ours.
pub(super) fn read_set(payload: &[u8]) -> Option<Set> {
    let rest = payload.get(HEADER_BYTES..)?;
    let number = |kind| find(rest, kind).and_then(be);
    let flags = number(3).unwrap_or(0);
    let data = match number(6) {
        Some(DATA_VERDICT) => Some(DataKind::Verdict),
        Some(type_id) => Some(DataKind::Value { type_id: TypeId(type_id), bytes: number(7).unwrap_or(0) }),
        None => None,
    };
    let is_from_packets = flags & SET_FROM_PACKETS == SET_FROM_PACKETS;
    let known = if is_from_packets { SET_MAP | SET_FROM_PACKETS } else { SET_MAP };
    let foreign = flags & !known != 0;
    let size = || find(rest, SET_DESCRIPTION).and_then(|description| find(description, DESCRIPTION_SIZE)).and_then(be);
    Some(Set {
        name: string(find(rest, 2)?),
        key_type: TypeId(if foreign { u32::MAX } else { number(4).unwrap_or(0) }),
        key_bytes: number(5)?,
        data,
        from_packets: is_from_packets.then(|| size().unwrap_or(0)),
        elements: None,
    })
}

/// The elements in one message of a listing.
pub(super) fn read_elements(payload: &[u8]) -> Vec<(Vec<u8>, Element)> {
    let list = payload.get(HEADER_BYTES..).and_then(|rest| find(rest, 3)).unwrap_or_default();
    attributes(list).filter_map(|(_, element)| read_element(element)).collect()
}

fn read_element(bytes: &[u8]) -> Option<(Vec<u8>, Element)> {
    let key = find(find(bytes, 1)?, 1)?.to_vec();
    let userdata = find(bytes, 6).unwrap_or_default();
    let comment = match userdata {
        [USERDATA_COMMENT, length, text @ ..] => text.get(..usize::from(*length)).map(string),
        _ => None,
    };
    Some((key, Element { data: find(bytes, 2).and_then(read_data), comment }))
}
