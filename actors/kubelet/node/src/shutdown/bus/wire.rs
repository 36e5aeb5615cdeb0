//! Messages of D-Bus, as bytes: the few types that logind speaks.

use std::fmt;

/// The largest message that is taken; those of logind are a few hundred bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What every message begins with.
pub(super) const PREFIX_BYTES: usize = 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `b`.
    Bool(bool),
    /// `i`.
    Int(i32),
    /// `u`.
    Count(u32),
    /// `t`.
    Long(u64),
    /// `s`; and `o` and `g` when they are read.
    Text(String),
    /// `h`: the place of a descriptor among those that came with the message.
    Handle(u32),
    /// `v`.
    Variant(Box<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A message. What isn't set is empty or 0, which no message has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    /// The call that this answers.
    pub(super) reply_to: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) destination: String,
    pub(super) sender: String,
    /// Descriptors that come with it.
    pub(super) descriptors: u32,
    pub(super) body: Vec<Value>,
}

impl Message {
    pub(super) fn new(kind: Kind) -> Self {
        let none = String::new;
        Self {
            kind,
            serial: 0,
            reply_to: 0,
            path: none(),
            interface: none(),
            member: none(),
            error: none(),
            destination: none(),
            sender: none(),
            descriptors: 0,
            body: Vec::new(),
        }
    }
}

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message of the bus is malformed")
    }
}

impl std::error::Error for Malformed {}

/// Writes in little-endian order; the beginning is aligned for everything.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn count(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    /// Lengths fit: messages are limited.
    fn text(&mut self, text: &str) {
        self.count(u32::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.bytes().chain([0]));
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(truth) => self.count(u32::from(*truth)),
            Value::Int(number) => self.count(number.cast_unsigned()),
            Value::Count(number) | Value::Handle(number) => self.count(*number),
            Value::Long(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Variant(inner) => {
                self.signature(&signature(std::slice::from_ref(inner)));
                self.value(inner);
            }
        }
    }
}

fn signature(values: &[Value]) -> String {
    let kind = |value: &Value| match value {
        Value::Bool(_) => 'b',
        Value::Int(_) => 'i',
        Value::Count(_) => 'u',
        Value::Long(_) => 't',
        Value::Text(_) => 's',
        Value::Handle(_) => 'h',
        Value::Variant(_) => 'v',
    };
    values.iter().map(kind).collect()
}

/// The bytes of a message.
pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut body = Writer::default();
    message.body.iter().for_each(|value| body.value(value));
    let mut fields = Writer::default();
    let types = signature(&message.body);
    let texts = [
        (1, "o", &message.path),
        (2, "s", &message.interface),
        (3, "s", &message.member),
        (4, "s", &message.error),
        (6, "s", &message.destination),
        (8, "g", &types),
    ];
    for (code, kind, text) in texts.into_iter().filter(|(.., text)| !text.is_empty()) {
        fields.align(8);
        fields.0.push(code);
        fields.signature(kind);
        if kind == "g" { fields.signature(text) } else { fields.text(text) }
    }
    for (code, number) in [(5, message.reply_to), (9, message.descriptors)].into_iter().filter(|(_, n)| *n > 0) {
        fields.align(8);
        fields.0.push(code);
        fields.signature("u");
        fields.count(number);
    }
    let mut all = Writer(vec![b'l', message.kind as u8, 0, 1]);
    all.count(u32::try_from(body.0.len()).unwrap_or(0));
    all.count(message.serial);
    all.count(u32::try_from(fields.0.len()).unwrap_or(0));
    all.0.extend(fields.0);
    all.align(8);
    all.0.extend(body.0);
    all.0
}

/// Reads in the order that the message names. Alignment counts from the beginning of the header, or of the body.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn count(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed)?;
        Ok(if self.is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        self.align(8);
        let bytes = self.take(8)?.try_into().map_err(|_| Malformed)?;
        Ok(if self.is_big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn words(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Malformed)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::try_from(self.count()?).map_err(|_| Malformed)?;
        self.words(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = self.take(1)?[0].into();
        self.words(length)
    }

    /// A value of one of the types that are known here.
    fn value(&mut self, kind: u8, is_inner: bool) -> Result<Value, Malformed> {
        Ok(match kind {
            b'b' => Value::Bool(self.count()? != 0),
            b'i' => Value::Int(self.count()?.cast_signed()),
            b'u' => Value::Count(self.count()?),
            b'h' => Value::Handle(self.count()?),
            b't' => Value::Long(self.long()?),
            b's' | b'o' => Value::Text(self.text()?),
            b'g' => Value::Text(self.signature()?),
            // A variant in a variant is legal, and nobody here sends one: there is no depth to count.
            b'v' if !is_inner => match self.signature()?.as_bytes() {
                [inner] => Value::Variant(Box::new(self.value(*inner, true)?)),
                _ => return Err(Malformed),
            },
            _ => return Err(Malformed),
        })
    }
}

/// How many bytes the message has that begins like this.
///
/// # Errors
/// It is none, or longer than anything that is taken.
pub(super) fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Malformed> {
    let mut reader = Reader { bytes: prefix, at: 4, is_big: is_big(prefix[0])? };
    let body = usize::try_from(reader.count()?).map_err(|_| Malformed)?;
    reader.count()?;
    let fields = usize::try_from(reader.count()?).map_err(|_| Malformed)?;
    if body > MESSAGE_BYTES_MAX || fields > MESSAGE_BYTES_MAX {
        return Err(Malformed);
    }
    let whole = (PREFIX_BYTES + fields).next_multiple_of(8) + body;
    if whole > MESSAGE_BYTES_MAX { Err(Malformed) } else { Ok(whole) }
}

fn is_big(order: u8) -> Result<bool, Malformed> {
    match order {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(Malformed),
    }
}

/// Reads a whole message. Arguments from the first one on whose type isn't known here are left out.
///
/// # Errors
/// It is none.
pub(super) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    let prefix = bytes.first_chunk::<PREFIX_BYTES>().ok_or(Malformed)?;
    let is_big = is_big(prefix[0])?;
    let kind = match prefix[1] {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return Err(Malformed),
    };
    let mut message = Message::new(kind);
    let mut reader = Reader { bytes, at: 8, is_big };
    message.serial = reader.count()?;
    let end =
        usize::try_from(reader.count()?).ok().and_then(|fields| fields.checked_add(reader.at)).ok_or(Malformed)?;
    let mut types = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.take(1)?[0];
        let kind = reader.signature()?;
        let [kind] = kind.as_bytes() else { return Err(Malformed) };
        match (code, reader.value(*kind, true)?) {
            (1, Value::Text(text)) => message.path = text,
            (2, Value::Text(text)) => message.interface = text,
            (3, Value::Text(text)) => message.member = text,
            (4, Value::Text(text)) => message.error = text,
            (5, Value::Count(number)) => message.reply_to = number,
            (6, Value::Text(text)) => message.destination = text,
            (7, Value::Text(text)) => message.sender = text,
            (8, Value::Text(text)) => types = text,
            (9, Value::Count(number)) => message.descriptors = number,
            _ => {}
        }
    }
    let body = bytes.get(end.next_multiple_of(8)..).unwrap_or_default();
    let mut reader = Reader { bytes: body, at: 0, is_big };
    for kind in types.bytes() {
        match reader.value(kind, false) {
            Ok(value) => message.body.push(value),
            Err(Malformed) => break,
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Message {
        Message {
            serial: 7,
            reply_to: 3,
            path: "/a/b".to_owned(),
            interface: "a.B".to_owned(),
            member: "Do".to_owned(),
            destination: ":1.5".to_owned(),
            descriptors: 1,
            body: vec![
                Value::Bool(true),
                Value::Variant(Box::new(Value::Long(1 << 40))),
                "text".into(),
                Value::Int(-2),
                Value::Count(9),
                Value::Handle(0),
            ],
            ..Message::new(Kind::Return)
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let bytes = encode(&whole());
        assert_eq!(length(bytes.first_chunk().unwrap()), Ok(bytes.len()));
        assert_eq!(decode(&bytes), Ok(whole()));
        let empty = Message { serial: 1, member: "M".to_owned(), ..Message::new(Kind::Signal) };
        assert_eq!(decode(&encode(&empty)), Ok(empty));
    }

    #[test]
    fn the_other_order_of_bytes_is_read() {
        // A signal of a machine that writes the other way round, with one truth in its body.
        let mut bytes = vec![b'B', 4, 1, 1, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 0];
        bytes.extend([3, 1, b's', 0, 0, 0, 0, 1, b'M', 0, 0, 0, 0, 0, 0, 0]);
        bytes[15] = 23;
        bytes.extend([8, 1, b'g', 0, 1, b'b', 0, 0]);
        bytes.extend([0, 0, 0, 1]);
        let message = decode(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str(), message.body), (Kind::Signal, "M", vec![Value::Bool(true)]));
        assert_eq!(length(bytes.first_chunk().unwrap()), Ok(bytes.len()));
    }

    #[test]
    fn nothing_from_outside_is_believed() {
        let bytes = encode(&whole());
        for end in 0..bytes.len() {
            // Whatever is cut off: an answer, and no panic.
            decode(&bytes[..end]).ok();
        }
        for (at, value) in [(0, b'x'), (1, 9), (15, 0xff), (14, 0xff), (4, 0xff), (7, 0xff)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            decode(&wrong).ok();
            length(wrong.first_chunk().unwrap()).ok();
        }
        let mut huge = bytes.clone();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(huge.first_chunk().unwrap()), Err(Malformed));
        // A list of texts is nothing that is read here; what came before it is.
        let mut list = Message { body: vec![Value::Count(5), "as".into()], ..whole() };
        list.descriptors = 0;
        let read = decode(&encode(&list)).unwrap();
        assert_eq!(read.body, list.body);
    }
}
