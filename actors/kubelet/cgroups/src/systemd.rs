//! Slices of systemd. It writes the limits that it knows of over whatever stands in the cgroups of its units, whenever it
//! has a reason to look at them, so it has to know those of pods; and it keeps units whose cgroups are gone, so it has to
//! be told of their end.
//!
//! It is spoken to in D-Bus over a socket of its own, which needs no bus and no names on one. A connection lives for one
//! question, because nothing here keeps state.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::UnixStream;
use zbus::connection::{Builder, Connection};
use zbus::message::{Flags, Message, Type};
use zbus::{Error, MatchRule, MessageStream, OwnedObjectPath, Variant};

use crate::error::CgroupError;
use crate::socket::PrivateSocket;

/// Where it listens, for root alone.
pub(crate) const SOCKET: &str = "/run/systemd/private";

/// How long it is waited for. It answers at once, unless it reads all units again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Jobs of others that may end between a question and its answer; one more, and the answer is never read.
const JOBS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
/// What it reads at once before a connection is made, and looks at only when more comes.
const SWALLOWED_BYTES: usize = 256;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PEER: &str = "org.freedesktop.DBus.Peer";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// How systemd spells "no limit".
pub(crate) const INFINITY: u64 = u64::MAX;

/// A limit, by its name among the properties of a unit.
pub(crate) type Limit = (&'static str, u64);

/// The init system, by its socket.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    socket: PathBuf,
}

impl Systemd {
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Starts a slice with these limits, or sets those of one that is there. Does nothing where systemd doesn't run.
    pub(crate) async fn limit(&self, slice: &str, limits: &[Limit]) -> Result<(), CgroupError> {
        patiently(slice, async {
            let Some(connection) = self.connect().await? else { return Ok(()) };
            match start(&connection, slice, limits).await {
                Err(error) if is(&error, UNIT_EXISTS) => set(&connection, slice, limits).await,
                outcome => outcome,
            }
        })
        .await
    }

    /// Stops a slice, and forgets it. One that isn't there is all right.
    pub(crate) async fn stop(&self, slice: &str) -> Result<(), CgroupError> {
        patiently(slice, async {
            let Some(connection) = self.connect().await? else { return Ok(()) };
            let asked = (slice, "replace");
            match connection.call_method(Some(NAME), PATH, Some(MANAGER), "StopUnit", &asked).await {
                Err(error) if !is(&error, NO_SUCH_UNIT) => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn connect(&self) -> zbus::Result<Option<Connection>> {
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            // Nobody there: cgroups with such names are nobody's, and the kernel's files are all there is.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let connection = Builder::socket(PrivateSocket(stream)).p2p().build().await?;
        // A short call would wait for the next one, where it comes early enough to be read together with the handshake.
        let ping = Message::method_call(PATH, "Ping").destination(NAME).interface(PEER);
        let ping = ping.with_flags(Flags::NO_REPLY_EXPECTED).build(&" ".repeat(SWALLOWED_BYTES))?;
        connection.send(&ping).await?;
        Ok(Some(connection))
    }
}

/// Starts a slice, and waits until that is done, or has failed: whoever uses the slice will be told.
async fn start(connection: &Connection, slice: &str, limits: &[Limit]) -> zbus::Result<()> {
    // Signals come unasked here, and maybe before the answer.
    let ends = MatchRule::builder().msg_type(Type::Signal).interface(MANAGER).member("JobRemoved").build()?;
    let mut ends = MessageStream::for_match_rule(ends, connection, Some(JOBS_MAX)).await?;
    let mut properties = vec![
        ("Description", Variant::from(slice.trim_end_matches(".slice"))),
        ("DefaultDependencies", Variant::from(false)),
        ("CPUAccounting", Variant::from(true)),
        ("MemoryAccounting", Variant::from(true)),
        ("TasksAccounting", Variant::from(true)),
    ];
    properties.extend(variants(limits));
    let others: &[(&str, Vec<(&str, Variant<'_>)>)] = &[];
    let asked = (slice, "replace", properties, others);
    let answer = connection.call_method(Some(NAME), PATH, Some(MANAGER), "StartTransientUnit", &asked).await?;
    let job: OwnedObjectPath = answer.body().deserialize()?;
    // Until then it may take controllers away from the slice that nobody uses yet.
    while let Some(end) = ends.next().await {
        let (_, ended, _, _): (u32, OwnedObjectPath, String, String) = end?.body().deserialize()?;
        if ended == job {
            return Ok(());
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

/// Limits a slice that is there, for the life of the machine, as the unit itself.
async fn set(connection: &Connection, slice: &str, limits: &[Limit]) -> zbus::Result<()> {
    let asked = (slice, true, variants(limits).collect::<Vec<_>>());
    connection.call_method(Some(NAME), PATH, Some(MANAGER), "SetUnitProperties", &asked).await.map(drop)
}

fn variants<'a>(limits: &[Limit]) -> impl Iterator<Item = (&'a str, Variant<'a>)> {
    limits.iter().map(|(name, limit)| (*name, Variant::from(*limit)))
}

fn is(error: &Error, name: &str) -> bool {
    matches!(error, Error::MethodError(found, ..) if found.as_str() == name)
}

async fn patiently(slice: &str, asked: impl Future<Output = zbus::Result<()>>) -> Result<(), CgroupError> {
    let outcome = tokio::time::timeout(PATIENCE, asked).await;
    let outcome = outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer").into()));
    outcome.map_err(|error| CgroupError::Systemd { slice: slice.to_owned(), source: plain(error) })
}

fn plain(error: Error) -> io::Error {
    match error {
        Error::InputOutput(error) => io::Error::new(error.kind(), error.to_string()),
        error => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;
    use zbus::names::UniqueName;

    use super::*;

    const SLICE: &str = "kubepods.slice";
    const GUID: &str = "0123456789abcdef0123456789abcdef";

    /// Who answers in these tests, and the place of its socket.
    struct Peer {
        home: tempfile::TempDir,
        listener: UnixListener,
    }

    impl Peer {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(home.path().join("private")).unwrap();
            Self { home, listener }
        }

        fn systemd(&self) -> Systemd {
            Systemd::at(&self.home.path().join("private"))
        }

        async fn accept(&self) -> UnixStream {
            self.listener.accept().await.unwrap().0
        }

        /// The other side of a connection, with whatever comes.
        async fn open(&self) -> (Connection, MessageStream) {
            let stream = self.accept().await.into_std().unwrap();
            let peer = Builder::unix_stream(stream).server(GUID).p2p().build().await.unwrap();
            let mut calls = MessageStream::from(&peer);
            // The first call is for nothing, and whether it is answered doesn't matter.
            let ping = calls.next().await.unwrap().unwrap();
            let words: String = ping.body().deserialize().unwrap();
            assert!(words.len() >= SWALLOWED_BYTES);
            peer.reply_error(&ping.header(), "org.example.Late", &()).await.unwrap();
            (peer, calls)
        }

        /// Takes one connection, and answers each call with the next of these errors, or without.
        async fn serve(&self, answers: &[Option<&str>]) -> Vec<Message> {
            let (peer, mut calls) = self.open().await;
            let mut taken = Vec::new();
            for answer in answers {
                let call = calls.next().await.unwrap().unwrap();
                let removed = async |id: u32| {
                    let body = (id, job(id), "any.slice", "done");
                    peer.send(&ours(Message::signal(PATH, MANAGER, "JobRemoved")).build(&body).unwrap()).await.unwrap();
                };
                // Around them what nobody asked for: another's end, the answer to another.
                removed(2).await;
                let other = Message::method_call(PATH, "Other").build(&()).unwrap();
                peer.send(&begun(&other)).await.unwrap();
                match answer {
                    Some(error) => peer.reply_error(&call.header(), *error, &"it won't").await.unwrap(),
                    None => {
                        // It may be done before it is said to have begun.
                        removed(1).await;
                        peer.send(&begun(&call)).await.unwrap();
                    }
                }
                taken.push(call);
            }
            taken
        }
    }

    fn job(id: u32) -> OwnedObjectPath {
        OwnedObjectPath::try_from(format!("/job/{id}")).unwrap()
    }

    /// As from systemd, which says its name where others have that of a connection.
    fn ours(message: zbus::message::Builder<'_>) -> zbus::message::Builder<'_> {
        message.sender(UniqueName::from_str_unchecked(NAME))
    }

    /// The answer that a job has begun.
    fn begun(call: &Message) -> Message {
        ours(Message::method_return(&call.header())).build(&job(1)).unwrap()
    }

    fn signature(call: &Message) -> String {
        call.header().signature().to_string_no_parens()
    }

    fn member(call: &Message) -> String {
        call.header().member().unwrap().to_string()
    }

    fn holds(call: &Message, text: &str) -> bool {
        call.body().data().windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn source(outcome: Result<(), CgroupError>) -> io::Error {
        let CgroupError::Systemd { slice, source } = outcome.unwrap_err() else { panic!("another error") };
        assert_eq!(slice, SLICE);
        source
    }

    #[tokio::test]
    async fn a_slice_is_started_or_set() {
        let (peer, limits) = (Peer::new(), [("CPUWeight", 39), ("MemoryMax", INFINITY)]);
        let systemd = peer.systemd();
        let (outcome, calls) = tokio::join!(systemd.limit(SLICE, &limits), peer.serve(&[None]));
        outcome.unwrap();
        assert_eq!(member(&calls[0]), "StartTransientUnit");
        assert_eq!(signature(&calls[0]), "ssa(sv)a(sa(sv))");
        assert!(holds(&calls[0], "DefaultDependencies") && holds(&calls[0], "CPUWeight"));

        let (outcome, calls) = tokio::join!(systemd.limit(SLICE, &limits), peer.serve(&[Some(UNIT_EXISTS), None]));
        outcome.unwrap();
        assert_eq!(member(&calls[1]), "SetUnitProperties");
        assert_eq!(signature(&calls[1]), "sba(sv)");
        // These can't be changed any more.
        assert!(!holds(&calls[1], "DefaultDependencies") && holds(&calls[1], "MemoryMax"));

        let (outcome, _) = tokio::join!(systemd.limit(SLICE, &limits), peer.serve(&[Some("org.example.No")]));
        assert_eq!(source(outcome).to_string(), "org.example.No: it won't");
    }

    #[tokio::test]
    async fn a_slice_that_is_gone_can_be_stopped() {
        let peer = Peer::new();
        for answer in [None, Some(NO_SUCH_UNIT)] {
            let answers = [answer];
            let systemd = peer.systemd();
            let (outcome, calls) = tokio::join!(systemd.stop("kubepods-podx.slice"), peer.serve(&answers));
            outcome.unwrap();
            assert_eq!(member(&calls[0]), "StopUnit");
            assert!(holds(&calls[0], "kubepods-podx.slice"));
        }
    }

    #[tokio::test]
    async fn without_systemd_nobody_is_asked() {
        let home = tempfile::tempdir().unwrap();
        let systemd = Systemd::at(&home.path().join("private"));
        systemd.limit(SLICE, &[]).await.unwrap();
        systemd.stop(SLICE).await.unwrap();
        // Nobody listens any more.
        drop(UnixListener::bind(home.path().join("private")).unwrap());
        systemd.stop(SLICE).await.unwrap();
    }

    /// Counts seconds while a question waits in vain, on the one thread that both have.
    async fn seconds_until_late(silent: impl Future<Output = ()>, systemd: &Systemd) -> u32 {
        let mut seconds = 0;
        let others = async {
            loop {
                tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await.ok();
                seconds += 1;
            }
        };
        tokio::select! {
            outcome = systemd.limit(SLICE, &[]) => assert_eq!(source(outcome).kind(), io::ErrorKind::TimedOut),
            () = silent => panic!("it ended"),
            () = others => {}
        }
        seconds
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_holds_up_nobody_else() {
        let peer = Peer::new();
        let systemd = peer.systemd();
        let unheard = async {
            let _stream = peer.accept().await;
            std::future::pending().await
        };
        let unanswered = async {
            let _connection = peer.open().await;
            std::future::pending().await
        };
        let endless = async {
            let (answering, mut calls) = peer.open().await;
            let call = calls.next().await.unwrap().unwrap();
            answering.send(&begun(&call)).await.unwrap();
            std::future::pending().await
        };
        for seconds in [
            seconds_until_late(unheard, &systemd).await,
            seconds_until_late(unanswered, &systemd).await,
            seconds_until_late(endless, &systemd).await,
        ] {
            assert!((9..=10).contains(&seconds), "{seconds}");
        }
    }

    #[tokio::test]
    async fn rubbish_and_sudden_ends_are_errors() {
        let peer = Peer::new();
        let systemd = peer.systemd();
        let closed = async { drop(peer.accept().await) };
        let (outcome, ()) = tokio::join!(systemd.limit(SLICE, &[]), closed);
        source(outcome);
        for (lines, answer) in [
            ("REJECTED EXTERNAL\r\n".to_owned(), &b""[..]),
            ("rubbish\r\n".to_owned(), b""),
            (format!("OK {GUID}\r\n"), b"rubbish that is no message"),
            (format!("OK {GUID}\r\n"), b""),
        ] {
            let rubbish = async {
                let mut stream = peer.accept().await;
                stream.write_all(lines.as_bytes()).await.unwrap();
                let mut taken = [0; 1024];
                while !taken.windows(4).any(|window| window == b"Ping") {
                    if stream.read(&mut taken).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                stream.write_all(answer).await.unwrap();
            };
            let (outcome, ()) = tokio::join!(systemd.limit(SLICE, &[]), rubbish);
            source(outcome);
        }
        // It ends after it has begun what was asked.
        let halfway = async {
            let (answering, mut calls) = peer.open().await;
            let call = calls.next().await.unwrap().unwrap();
            answering.send(&begun(&call)).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(systemd.limit(SLICE, &[]), halfway);
        source(outcome);
    }
}
