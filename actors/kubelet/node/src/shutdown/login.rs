//! What is asked of logind.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use k3sd_runtime::Clock;
use rustix::process::Signal;
use thiserror::Error;
use tokio::net::UnixStream;
use zbus::connection::{Builder, Connection};
use zbus::message::Type;
use zbus::{MatchRule, MessageStream, OwnedVariant, Variant};

use super::core::login_settings;
use super::socket::BusSocket;

const LOGIN: &str = "org.freedesktop.login1";
const LOGIN_PATH: &str = "/org/freedesktop/login1";
const LOGIN_MANAGER: &str = "org.freedesktop.login1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const SYSTEMD_MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long any call may take, that which zbus makes by itself when nobody listens any more included.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// The file of settings; upstream's.
const SETTINGS: &str = "99-kubelet.conf";
/// How often it is looked whether logind has read new settings, and how long in between.
const LOOKS: usize = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Why the machine's end can't be waited for.
#[derive(Debug, Error)]
pub(super) enum LoginError {
    /// The bus's socket.
    #[error("the system's message bus")]
    Socket(#[source] io::Error),
    /// The bus closed the connection.
    #[error("the system's message bus closed the connection")]
    Closed,
    /// What came is no message, or whoever was called said no.
    #[error("the system's message bus: {0}")]
    Bus(zbus::Error),
    /// It answered something else than what it is known to answer.
    #[error("logind's answer to {0} is not understood")]
    Answer(&'static str),
    /// Its settings can't be written.
    #[error("writing {}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It doesn't wait as long as pods may take, whatever it is told.
    #[error("logind waits for {delay:?} at most (InhibitDelayMaxSec), and pods have {wanted:?} (shutdownGracePeriod)")]
    TooShort {
        /// How long it waits.
        delay: Duration,
        /// How long it has to.
        wanted: Duration,
    },
    /// It said nothing in time.
    #[error("logind says nothing")]
    Late,
}

impl From<zbus::Error> for LoginError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::InputOutput(error) => Self::Socket(io::Error::new(error.kind(), error.to_string())),
            error => Self::Bus(error),
        }
    }
}

/// logind, listened to.
#[derive(Debug)]
pub(super) struct Login {
    connection: Connection,
    signals: MessageStream,
}

impl Login {
    /// Connects, and sees to it that logind would wait for as long as `wanted`.
    pub(super) async fn open(
        clock: &Clock,
        socket: &Path,
        settings: &Path,
        wanted: Duration,
    ) -> Result<Self, LoginError> {
        let stream = UnixStream::connect(socket).await.map_err(LoginError::Socket)?;
        let connection = Builder::socket(BusSocket(stream)).method_timeout(CALL_LIMIT).build().await?;
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(LOGIN).path(LOGIN_PATH).interface(LOGIN_MANAGER);
        let rule = rule.member("PrepareForShutdown").build()?;
        // Of these alone: a stream of everything would keep the answer that the inhibitor came with.
        let signals = MessageStream::for_match_rule(rule, &connection, None).await?;
        let login = Self { connection, signals };
        let mut delay = login.delay().await?;
        if delay < wanted {
            write(settings, wanted)?;
            let whom = ("systemd-logind.service", "all", Signal::HUP.as_raw());
            let manager = Some(SYSTEMD_MANAGER);
            login.connection.call_method(Some(SYSTEMD), SYSTEMD_PATH, manager, "KillUnit", &whom).await?;
            for _ in 0..LOOKS {
                delay = login.delay().await?;
                if delay >= wanted {
                    return Ok(login);
                }
                clock.sleep_until(clock.now() + LOOK_PAUSE).await;
            }
            return Err(LoginError::TooShort { delay, wanted });
        }
        Ok(login)
    }

    async fn property(&self, name: &str) -> Result<OwnedVariant, LoginError> {
        let asked = (LOGIN_MANAGER, name);
        let answer = self.connection.call_method(Some(LOGIN), LOGIN_PATH, Some(PROPERTIES), "Get", &asked).await?;
        Ok(answer.body().deserialize()?)
    }

    async fn delay(&self) -> Result<Duration, LoginError> {
        match *self.property("InhibitDelayMaxUSec").await? {
            Variant::U64(microseconds) => Ok(Duration::from_micros(microseconds)),
            _ => Err(LoginError::Answer("InhibitDelayMaxUSec")),
        }
    }

    /// Whether the machine is already going down.
    pub(super) async fn is_ending(&self) -> Result<bool, LoginError> {
        Ok(*self.property("PreparingForShutdown").await? == Variant::Bool(true))
    }

    /// Has logind wait until the descriptor is closed, or its patience is over.
    pub(super) async fn inhibit(&self) -> Result<OwnedFd, LoginError> {
        let asked = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay");
        let manager = Some(LOGIN_MANAGER);
        let answer = self.connection.call_method(Some(LOGIN), LOGIN_PATH, manager, "Inhibit", &asked).await?;
        let lock: zbus::OwnedFd = answer.body().deserialize().map_err(|_| LoginError::Answer("Inhibit"))?;
        Ok(lock.into())
    }

    /// Waits until the machine is about to go down, or no longer is. Nothing is lost when the future is dropped.
    pub(super) async fn prepares(&mut self) -> Result<bool, LoginError> {
        while let Some(signal) = self.signals.next().await {
            if let Ok(is_ending) = signal?.body().deserialize() {
                return Ok(is_ending);
            }
        }
        Err(LoginError::Closed)
    }
}

fn write(folder: &Path, wanted: Duration) -> Result<(), LoginError> {
    let path = folder.join(SETTINGS);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, login_settings(wanted)));
    written.map_err(|source| LoginError::Settings { path, source })
}
