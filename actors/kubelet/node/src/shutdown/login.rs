//! What is asked of logind.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k3sd_runtime::Clock;
use rustix::process::Signal;
use thiserror::Error;

use super::bus::{Bus, BusError, Object, Value};
use super::core::login_settings;

const MANAGER: Object<'static> = Object {
    destination: "org.freedesktop.login1",
    path: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
};
const SYSTEMD: Object<'static> = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const RULE: &str = "type='signal',sender='org.freedesktop.login1',path='/org/freedesktop/login1',\
    interface='org.freedesktop.login1.Manager',member='PrepareForShutdown'";
/// The file of settings; upstream's.
const SETTINGS: &str = "99-kubelet.conf";
/// How often it is looked whether logind has read new settings, and how long in between.
const LOOKS: usize = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Why the machine's end can't be waited for.
#[derive(Debug, Error)]
pub(super) enum LoginError {
    /// The bus, or logind on it.
    #[error(transparent)]
    Bus(#[from] BusError),
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

/// logind, listened to.
#[derive(Debug)]
pub(super) struct Login {
    bus: Bus,
}

impl Login {
    /// Connects, and sees to it that logind would wait for as long as `wanted`.
    pub(super) async fn open(
        clock: &Clock,
        socket: &Path,
        settings: &Path,
        wanted: Duration,
    ) -> Result<Self, LoginError> {
        let mut login = Self { bus: Bus::open(socket).await? };
        login.bus.listen(RULE).await?;
        let mut delay = login.delay().await?;
        if delay < wanted {
            write(settings, wanted)?;
            let hangup = Value::Int(Signal::HUP.as_raw());
            let whom = vec!["systemd-logind.service".into(), "all".into(), hangup];
            login.bus.call(SYSTEMD, "KillUnit", whom).await?;
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

    async fn delay(&mut self) -> Result<Duration, LoginError> {
        match self.bus.property(MANAGER, "InhibitDelayMaxUSec").await? {
            Some(Value::Long(microseconds)) => Ok(Duration::from_micros(microseconds)),
            _ => Err(LoginError::Answer("InhibitDelayMaxUSec")),
        }
    }

    /// Whether the machine is already going down.
    pub(super) async fn is_ending(&mut self) -> Result<bool, LoginError> {
        Ok(self.bus.property(MANAGER, "PreparingForShutdown").await? == Some(Value::Bool(true)))
    }

    /// Has logind wait until the descriptor is closed, or its patience is over.
    pub(super) async fn inhibit(&mut self) -> Result<OwnedFd, LoginError> {
        let why = "Kubelet needs time to handle node shutdown";
        let asked = ["shutdown", "kubelet", why, "delay"].map(Value::from).into();
        let answer = self.bus.call(MANAGER, "Inhibit", asked).await?;
        answer.descriptors.into_iter().next().ok_or(LoginError::Answer("Inhibit"))
    }

    /// Waits until the machine is about to go down, or no longer is. Nothing is lost when the future is dropped.
    pub(super) async fn prepares(&mut self) -> Result<bool, LoginError> {
        loop {
            let signal = self.bus.signal().await?;
            if (signal.interface.as_str(), signal.member.as_str()) == (MANAGER.interface, "PrepareForShutdown")
                && let Some(Value::Bool(is_ending)) = signal.body.first()
            {
                return Ok(*is_ending);
            }
        }
    }
}

fn write(folder: &Path, wanted: Duration) -> Result<(), LoginError> {
    let path = folder.join(SETTINGS);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, login_settings(wanted)));
    written.map_err(|source| LoginError::Settings { path, source })
}
