//! A message bus of Debian's, and somebody on it who says what he is told to.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio::net::UnixStream;
use zbus::connection::{Builder, Connection};
use zbus::message::{Message, Type};
use zbus::{MatchRule, MessageStream};

/// Longer than anything takes here.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>"#;

/// A message bus of the test's own.
pub(super) struct Daemon {
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
    pub(super) async fn start() -> Option<Self> {
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

    pub(super) fn socket(&self) -> PathBuf {
        self.place.path().join("bus")
    }
}

/// Somebody on the bus who answers calls.
pub(super) struct Service {
    pub(super) connection: Connection,
    calls: MessageStream,
}

impl Service {
    pub(super) async fn open(socket: &Path, name: &str) -> Self {
        // Descriptors are sent here, which our own socket doesn't.
        let stream = UnixStream::connect(socket).await.unwrap().into_std().unwrap();
        let connection = Builder::unix_stream(stream).build().await.unwrap();
        let rule = MatchRule::builder().msg_type(Type::MethodCall).build().unwrap();
        let calls = MessageStream::for_match_rule(rule, &connection, None).await.unwrap();
        connection.request_name(name).await.unwrap();
        Self { connection, calls }
    }

    /// The next call.
    pub(super) async fn called(&mut self) -> Message {
        self.calls.next().await.unwrap().unwrap()
    }
}

/// The name of what is called.
pub(super) fn member(called: &Message) -> String {
    called.header().member().unwrap().to_string()
}
