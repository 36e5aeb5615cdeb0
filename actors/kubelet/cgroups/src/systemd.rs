//! Slices of systemd. It writes the limits that it knows of over whatever stands in the cgroups of its units, whenever it
//! has a reason to look at them, so it has to know those of pods; and it keeps units whose cgroups are gone, so it has to
//! be told of their end.
//!
//! It is spoken to in D-Bus over a socket of its own, which needs no bus and no names on one. A connection lives for one
//! question, because nothing here keeps state.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::CgroupError;

/// Where it listens, for root alone.
pub(crate) const SOCKET: &str = "/run/systemd/private";

/// How long it is waited for. It answers at once, unless it reads all units again.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer to these questions is nearly as long.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Messages of other matters that may come first.
const OTHERS_MAX: usize = 1000;
const LINE_BYTES_MAX: usize = 1000;
/// What it reads at once before a connection is made, and looks at only when more comes.
const SWALLOWED_BYTES: usize = 256;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PEER: &str = "org.freedesktop.DBus.Peer";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// How systemd spells "no limit".
pub(crate) const INFINITY: u64 = u64::MAX;

/// The init system, by its socket.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    socket: PathBuf,
}

/// A property of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    /// A number.
    Number(&'static str, u64),
    /// Yes or no.
    Flag(&'static str, bool),
    /// A text.
    Text(&'static str, &'a str),
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// With what was begun, where something was.
    Done(String),
    /// The error's name.
    Refused(String),
}

impl Systemd {
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Starts a slice with these limits, or sets those of one that is there. Does nothing where systemd doesn't run.
    pub(crate) fn limit(&self, slice: &str, limits: &[Property<'_>]) -> Result<(), CgroupError> {
        self.ask(slice, |connection| {
            let fixed = [
                Property::Text("Description", slice.trim_end_matches(".slice")),
                Property::Flag("DefaultDependencies", false),
                Property::Flag("CPUAccounting", true),
                Property::Flag("MemoryAccounting", true),
                Property::Flag("TasksAccounting", true),
            ];
            let mut body = Writer::default();
            body.text(slice);
            body.text("replace");
            body.properties(&[&fixed[..], limits].concat());
            // Other units to start with it: none.
            body.list(8, |_| ());
            match connection.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)? {
                Answer::Refused(name) if name == UNIT_EXISTS => {}
                // Until then it may take controllers away from the slice that nobody uses yet.
                Answer::Done(job) => return connection.wait_for(job),
                answer @ Answer::Refused(_) => return Ok(answer),
            }
            let mut body = Writer::default();
            body.text(slice);
            // For the life of the machine, as the unit itself.
            body.flag(true);
            body.properties(limits);
            connection.call("SetUnitProperties", "sba(sv)", &body)
        })
    }

    /// Stops a slice, and forgets it. One that isn't there is all right.
    pub(crate) fn stop(&self, slice: &str) -> Result<(), CgroupError> {
        self.ask(slice, |connection| {
            let mut body = Writer::default();
            body.text(slice);
            body.text("replace");
            match connection.call("StopUnit", "ss", &body)? {
                Answer::Refused(name) if name == NO_SUCH_UNIT => Ok(Answer::Done(String::new())),
                answer => Ok(answer),
            }
        })
    }

    fn ask(&self, slice: &str, ask: impl FnOnce(&mut Connection) -> io::Result<Answer>) -> Result<(), CgroupError> {
        let failed = |source| CgroupError::Systemd { slice: slice.to_owned(), source };
        let mut connection = match Connection::open(&self.socket) {
            Ok(connection) => connection,
            // Nobody there: cgroups with such names are nobody's, and the kernel's files are all there is.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        match ask(&mut connection).map_err(failed)? {
            Answer::Done(_) => Ok(()),
            Answer::Refused(name) => Err(failed(io::Error::other(name))),
        }
    }
}

struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self { stream, serial: 0 };
        // In this handshake a user is the hexadecimal form of the digits of its number.
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        connection.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let line = connection.line()?;
        if !line.starts_with("OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, line));
        }
        connection.stream.write_all(b"BEGIN\r\n")?;
        // A short call would wait for the next one, where it comes early enough to be read together with the line above.
        let mut body = Writer::default();
        body.text(&" ".repeat(SWALLOWED_BYTES));
        connection.serial += 1;
        connection.stream.write_all(&message(connection.serial, PEER, "Ping", "s", &body))?;
        Ok(connection)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
            if line.len() > LINE_BYTES_MAX {
                return Err(nonsense("an endless line"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn call(&mut self, member: &str, signature: &str, body: &Writer) -> io::Result<Answer> {
        self.serial += 1;
        self.stream.write_all(&message(self.serial, MANAGER, member, signature, body))?;
        let serial = self.serial;
        self.expect(|message| match message.kind {
            Kind::Answer if message.fields.reply_to == Some(serial) => Some(Answer::Done(message.text(0))),
            Kind::Error if message.fields.reply_to == Some(serial) => Some(Answer::Refused(message.fields.error)),
            _ => None,
        })
    }

    /// Waits until a job is done, or has failed: whoever uses the slice will be told.
    fn wait_for(&mut self, job: String) -> io::Result<Answer> {
        self.expect(|message| {
            // Its body begins with the number of the job, and then its name.
            let is_it = message.kind == Kind::Signal && message.fields.member == "JobRemoved" && message.text(4) == job;
            is_it.then(|| Answer::Done(job.clone()))
        })
    }

    fn expect<T>(&mut self, is_it: impl Fn(Message) -> Option<T>) -> io::Result<T> {
        for _ in 0..OTHERS_MAX {
            if let Some(found) = is_it(self.message()?) {
                return Ok(found);
            }
        }
        Err(nonsense("no answer among many messages"))
    }

    fn message(&mut self) -> io::Result<Message> {
        let mut start = [0; 16];
        self.stream.read_exact(&mut start)?;
        // Whoever answers speaks as the processor does.
        let is_big = start[0] == b'B';
        let length = |at: usize| number(&start, at, is_big).map_or(usize::MAX, |length| length as usize);
        let (body, fields) = (length(4), length(12));
        if body.saturating_add(fields) > ANSWER_BYTES_MAX {
            return Err(nonsense("a message of a size that none has"));
        }
        let mut header = vec![0; fields.next_multiple_of(8)];
        self.stream.read_exact(&mut header)?;
        let fields = Fields::read(header.get(..fields).unwrap_or_default(), is_big);
        let mut body = vec![0; body];
        self.stream.read_exact(&mut body)?;
        let kind = match start[1] {
            2 => Kind::Answer,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        Ok(Message { kind, fields, body, is_big })
    }
}

/// A message that came.
#[derive(Debug)]
struct Message {
    kind: Kind,
    fields: Fields,
    body: Vec<u8>,
    is_big: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Answer,
    Error,
    Signal,
    Other,
}

impl Message {
    /// The text at this place of the body; empty where there is none.
    fn text(&self, at: usize) -> String {
        let length = number(&self.body, at, self.is_big).map_or(0, |length| length as usize);
        let text = self.body.get(at + 4..(at + 4).saturating_add(length)).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }
}

fn number(bytes: &[u8], at: usize, is_big: bool) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What of an answer's header counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    reply_to: Option<u32>,
    member: String,
    error: String,
}

impl Fields {
    /// Header fields are a number, the signature of one type, and a value of it; only texts and numbers occur.
    fn read(bytes: &[u8], is_big: bool) -> Self {
        let (mut found, mut at) = (Self::default(), 0);
        while let Some([code, 1, kind, 0]) = bytes.get(at..at + 4).and_then(|head| <[u8; 4]>::try_from(head).ok()) {
            at += 4;
            match kind {
                b'u' => {
                    if code == 5 {
                        found.reply_to = number(bytes, at, is_big);
                    }
                    at += 4;
                }
                b's' | b'o' => {
                    let Some(length) = number(bytes, at, is_big).map(|length| length as usize) else { break };
                    let text = bytes.get(at + 4..(at + 4).saturating_add(length)).unwrap_or_default();
                    let text = String::from_utf8_lossy(text).into_owned();
                    match code {
                        3 => found.member = text,
                        4 => found.error = text,
                        _ => {}
                    }
                    at = at.saturating_add(4 + 1).saturating_add(length);
                }
                b'g' => at += 2 + usize::from(bytes.get(at).copied().unwrap_or(0)),
                _ => break,
            }
            at = at.next_multiple_of(8);
        }
        found
    }
}

/// A call.
fn message(serial: u32, interface: &str, member: &str, signature: &str, body: &Writer) -> Vec<u8> {
    let mut header = Writer::default();
    // Little-endian, a call, nothing special, the first version of all this.
    header.bytes.extend([b'l', 1, 0, 1]);
    header.number(u32::try_from(body.bytes.len()).unwrap_or(u32::MAX));
    header.number(serial);
    header.list(8, |header| {
        for (code, kind, text) in [
            (1, "o", "/org/freedesktop/systemd1"),
            (2, "s", interface),
            (3, "s", member),
            (6, "s", "org.freedesktop.systemd1"),
        ] {
            header.align(8);
            header.bytes.push(code);
            header.signature(kind);
            header.text(text);
        }
        header.align(8);
        header.bytes.push(8);
        header.signature("g");
        header.signature(signature);
    });
    header.align(8);
    header.bytes.extend(&body.bytes);
    header.bytes
}

/// Writes values, each aligned as it has to be. A body begins where everything is aligned, so it can be written alone.
#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.align(8);
        self.bytes.extend(number.to_le_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.number(u32::from(flag));
    }

    fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// A list of what has this alignment; its length is that of its elements, without the padding before the first.
    fn list(&mut self, align: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let at = self.bytes.len() - 4;
        self.align(align);
        let begins = self.bytes.len();
        elements(self);
        let length = u32::try_from(self.bytes.len() - begins).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn properties(&mut self, properties: &[Property<'_>]) {
        self.list(8, |list| {
            for property in properties {
                list.align(8);
                match property {
                    Property::Number(name, number) => {
                        list.text(name);
                        list.signature("t");
                        list.long(*number);
                    }
                    Property::Flag(name, flag) => {
                        list.text(name);
                        list.signature("b");
                        list.flag(*flag);
                    }
                    Property::Text(name, text) => {
                        list.text(name);
                        list.signature("s");
                        list.text(text);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Who answers in these tests: takes one connection, and answers each call with the next of these errors, or without.
    fn serve(listener: &UnixListener, answers: &[Option<&str>]) -> Vec<Vec<u8>> {
        let (stream, _) = listener.accept().unwrap();
        let mut peer = Connection { stream, serial: 0 };
        let mut zero = [1];
        peer.stream.read_exact(&mut zero).unwrap();
        assert_eq!(zero, [0]);
        assert!(peer.line().unwrap().starts_with("AUTH EXTERNAL 3"));
        peer.stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        assert_eq!(peer.line().unwrap(), "BEGIN");
        let mut calls = Vec::new();
        // The first call is for nothing, and whether it is answered doesn't matter.
        for (serial, answer) in (1..).zip([&None].into_iter().chain(answers)) {
            let mut start = [0; 16];
            peer.stream.read_exact(&mut start).unwrap();
            let number = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap());
            assert_eq!(number(8), serial);
            let mut rest = vec![0; (number(12).next_multiple_of(8) + number(4)) as usize];
            peer.stream.read_exact(&mut rest).unwrap();
            if serial == 1 {
                assert!(rest.len() > SWALLOWED_BYTES);
            } else {
                calls.push([&start[..], &rest].concat());
            }
            let mut job = Writer::default();
            job.text("/job/1");
            let mut others = Writer::default();
            others.number(2);
            others.text("/job/2");
            let mut removed = Writer::default();
            removed.number(1);
            removed.text("/job/1");
            // Between them what nobody asked for: the answer to another, and another's end.
            for (kind, reply_to, error, body) in [
                (4, None, None, &others),
                (2, Some(77), None, &job),
                (if answer.is_some() { 3 } else { 2 }, Some(serial), *answer, &job),
                (4, None, None, &others),
                (4, None, None, &removed),
            ] {
                let mut message = Writer::default();
                message.bytes.extend([b'l', kind, 0, 1]);
                message.number(u32::try_from(body.bytes.len()).unwrap());
                message.number(9);
                message.list(8, |fields| {
                    if let Some(error) = error {
                        fields.bytes.push(4);
                        fields.signature("s");
                        fields.text(error);
                        fields.align(8);
                    }
                    if kind == 4 {
                        fields.bytes.push(3);
                        fields.signature("s");
                        fields.text("JobRemoved");
                    }
                    if let Some(reply_to) = reply_to {
                        fields.bytes.push(5);
                        fields.signature("u");
                        fields.number(reply_to);
                    }
                });
                message.align(8);
                message.bytes.extend(&body.bytes);
                // Whoever has what he wants doesn't wait for the rest.
                peer.stream.write_all(&message.bytes).ok();
            }
        }
        calls
    }

    fn with_peer(
        answers: &[Option<&str>],
        ask: impl FnOnce(&Systemd) -> Result<(), CgroupError>,
    ) -> (Result<(), CgroupError>, Vec<Vec<u8>>) {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("private");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| serve(&listener, answers));
            (ask(&Systemd::at(&socket)), peer.join().unwrap())
        })
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_slice_is_started_or_set() {
        let limits = [Property::Number("CPUWeight", 39), Property::Number("MemoryMax", INFINITY)];
        let (outcome, calls) = with_peer(&[None], |systemd| systemd.limit("kubepods.slice", &limits));
        outcome.unwrap();
        assert!(holds(&calls[0], "StartTransientUnit") && holds(&calls[0], "ssa(sv)a(sa(sv))"));
        assert!(holds(&calls[0], "DefaultDependencies") && holds(&calls[0], "CPUWeight"));

        let (outcome, calls) =
            with_peer(&[Some(UNIT_EXISTS), None], |systemd| systemd.limit("kubepods.slice", &limits));
        outcome.unwrap();
        assert!(holds(&calls[1], "SetUnitProperties") && holds(&calls[1], "sba(sv)"));
        // These can't be changed any more.
        assert!(!holds(&calls[1], "DefaultDependencies") && holds(&calls[1], "MemoryMax"));

        let (outcome, _) = with_peer(&[Some("org.example.No")], |systemd| systemd.limit("kubepods.slice", &limits));
        let CgroupError::Systemd { slice, source } = outcome.unwrap_err() else { panic!("another error") };
        assert_eq!((slice.as_str(), source.to_string().as_str()), ("kubepods.slice", "org.example.No"));
    }

    #[test]
    fn a_slice_that_is_gone_can_be_stopped() {
        for answer in [None, Some(NO_SUCH_UNIT)] {
            let (outcome, calls) = with_peer(&[answer], |systemd| systemd.stop("kubepods-podx.slice"));
            outcome.unwrap();
            assert!(holds(&calls[0], "StopUnit") && holds(&calls[0], "kubepods-podx.slice"));
        }
    }

    #[test]
    fn without_systemd_nobody_is_asked() {
        let home = tempfile::tempdir().unwrap();
        let systemd = Systemd::at(&home.path().join("private"));
        systemd.limit("kubepods.slice", &[]).unwrap();
        systemd.stop("kubepods.slice").unwrap();
    }

    #[test]
    fn values_are_aligned() {
        let mut body = Writer::default();
        body.text("a");
        body.flag(true);
        body.properties(&[Property::Number("n", 7)]);
        body.list(8, |_| ());
        let wanted: &[u8] = b"\x01\0\0\0a\0\0\0\x01\0\0\0\x18\0\0\0\x01\0\0\0n\0\x01t\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(body.bytes, wanted);
    }

    #[test]
    fn headers_that_are_cut_off_say_nothing() {
        let mut fields = Writer::default();
        fields.bytes.push(4);
        fields.signature("s");
        fields.text("org.example.No");
        fields.align(8);
        fields.bytes.push(5);
        fields.signature("u");
        fields.number(3);
        let whole = Fields { reply_to: Some(3), member: String::new(), error: "org.example.No".to_owned() };
        assert_eq!(Fields::read(&fields.bytes, false), whole);
        for end in 0..fields.bytes.len() {
            assert_eq!(Fields::read(&fields.bytes[..end], false).reply_to, None, "{end}");
        }
    }
}
