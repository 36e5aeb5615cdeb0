//! A bus of Debian's, and a logind that says what it is told to.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

use super::*;

/// Longer than anything takes here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>"#;

/// A message bus of the test's own.
pub(crate) struct Daemon {
    child: Child,
    place: TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    /// None where there is no `dbus-daemon`; says so.
    pub(crate) async fn start() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("bus");
        let config = place.path().join("config");
        std::fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg(format!("--config-file={}", config.display())).stdin(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("ignored: dbus-daemon is needed");
            return None;
        };
        let daemon = Self { child, place };
        let opened = async {
            while UnixStream::connect(daemon.socket()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.expect("there is a bus");
        Some(daemon)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.path().join("bus")
    }
}

async fn open(socket: &Path) -> Bus {
    tokio::time::timeout(PATIENCE, Bus::open(socket)).await.expect("the bus answers").unwrap()
}

/// What somebody called.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) member: String,
    pub(crate) body: Vec<Value>,
    message: Message,
}

/// Somebody on the bus who answers calls.
pub(crate) struct Service {
    bus: Bus,
}

impl Service {
    pub(crate) async fn open(socket: &Path, name: &str) -> Self {
        let mut bus = open(socket).await;
        let answer = bus.call(BUS, "RequestName", vec![name.into(), Value::Count(0)]).await.unwrap();
        assert_eq!(answer.body, [Value::Count(1)], "it is the owner");
        Self { bus }
    }

    /// The next call.
    pub(crate) async fn called(&mut self) -> Called {
        loop {
            let (message, _) = self.bus.message().await.unwrap();
            if message.kind == Kind::Call {
                return Called { member: message.member.clone(), body: message.body.clone(), message };
            }
        }
    }

    /// Answers a call, with descriptors.
    pub(crate) async fn answer(&mut self, called: &Called, body: Vec<Value>, descriptors: &[OwnedFd]) {
        let mut message = Message {
            serial: 1000,
            reply_to: called.message.serial,
            destination: called.message.sender.clone(),
            body,
            ..Message::new(Kind::Return)
        };
        message.descriptors = u32::try_from(descriptors.len()).unwrap();
        let bytes = wire::encode(&message);
        let own: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !own.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&own)));
        }
        self.bus.stream.writable().await.unwrap();
        let sent = sendmsg(&self.bus.stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// Tells everybody.
    pub(crate) async fn tell(&mut self, of: Object<'_>, member: &str, body: Vec<Value>) {
        let mut message = Message {
            path: of.path.to_owned(),
            interface: of.interface.to_owned(),
            member: member.to_owned(),
            body,
            ..Message::new(Kind::Signal)
        };
        self.bus.send(&mut message).await.unwrap();
    }
}

const SOMEBODY: Object<'static> =
    Object { destination: "org.example.Somebody", path: "/org/example", interface: "org.example.Interface" };

#[tokio::test]
async fn calls_signals_and_descriptors_pass_a_real_bus() {
    let Some(daemon) = Daemon::start().await else { return };
    let mut service = Service::open(&daemon.socket(), SOMEBODY.destination).await;
    let mut bus = open(&daemon.socket()).await;
    bus.listen("type='signal',interface='org.example.Interface'").await.unwrap();
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let serve = async {
        let called = service.called().await;
        assert_eq!((called.member.as_str(), called.body.as_slice()), ("Do", &["it".into(), Value::Int(-3)][..]));
        service.tell(SOMEBODY, "Before", vec![Value::Bool(true)]).await;
        service.answer(&called, vec![Value::Handle(0)], &[there.into()]).await;
        service
    };
    let called = bus.call(SOMEBODY, "Do", vec!["it".into(), Value::Int(-3)]);
    let (mut service, answer) = tokio::join!(serve, called);
    let answer = answer.unwrap();
    assert_eq!((answer.body, answer.descriptors.len()), (vec![Value::Handle(0)], 1));
    // It is open until the answer is dropped.
    here.set_nonblocking(true).unwrap();
    let end = || std::io::Read::read(&mut &here, &mut [0]);
    assert!(end().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    drop(answer.descriptors);
    // The bus may have a copy for a moment longer.
    let closed = async {
        while end().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("nobody else has it");
    // What came before the answer isn't lost.
    let signal = bus.signal().await.unwrap();
    assert_eq!((signal.member.as_str(), signal.body), ("Before", vec![Value::Bool(true)]));

    let serve = async {
        let called = service.called().await;
        assert_eq!(called.body, ["org.example.Interface".into(), "Length".into()]);
        service.answer(&called, vec![Value::Variant(Box::new(Value::Long(5_000_000)))], &[]).await;
    };
    let ((), value) = tokio::join!(serve, bus.property(SOMEBODY, "Length"));
    assert_eq!(value.unwrap(), Some(Value::Long(5_000_000)));

    let nobody = Object { destination: "org.example.Nobody", ..SOMEBODY };
    let refused = bus.call(nobody, "Do", Vec::new()).await.unwrap_err();
    assert!(matches!(&refused, BusError::Refused { name, .. } if name == "org.freedesktop.DBus.Error.ServiceUnknown"));
    drop(daemon);
    assert!(bus.signal().await.is_err(), "the bus is gone");
}

#[tokio::test]
async fn without_a_bus_it_says_so() {
    let error = Bus::open(Path::new("/nowhere/bus")).await.unwrap_err();
    assert!(matches!(error, BusError::Socket(_)), "{error}");
}
