use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use k3sd_client::api::Connect;
use k3sd_kubelet_base::{PodView, PodsSnapshot};
use k3sd_runtime::{Clock, Spec, Strategy, System, task};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tonic::codegen::Service;

use zbus::message::Message;
use zbus::{Fd, Variant};

use super::bus::{Daemon, PATIENCE, Service as Peer, member};
use super::login::{Login, LoginError};
use super::*;
use crate::eviction::{Evict, Eviction};

const MANAGER: &str = "org.freedesktop.login1.Manager";

/// An API that is away: events wait for it.
#[derive(Clone)]
struct NoApi;

impl Service<hyper::Request<kube::client::Body>> for NoApi {
    type Response = hyper::Response<kube::client::Body>;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: hyper::Request<kube::client::Body>) -> Self::Future {
        std::future::ready(Err(std::io::ErrorKind::ConnectionRefused.into()))
    }
}

/// Says who has to end; pods of the name "stays" never do.
#[derive(Debug)]
struct Ender(mpsc::Sender<Eviction>);

impl Evict for Ender {
    fn evict(&self, eviction: Eviction) -> BoxFuture<'static, bool> {
        let stays = eviction.uid == "stays";
        self.0.try_send(eviction).unwrap();
        Box::pin(async move {
            if stays {
                std::future::pending::<()>().await;
            }
            true
        })
    }
}

/// logind, and the systemd beside it.
struct Logind {
    service: Peer,
    systemd: Peer,
    /// The other ends of inhibitors.
    locks: Vec<std::os::unix::net::UnixStream>,
    microseconds: u64,
}

impl Logind {
    async fn start(socket: &Path) -> Self {
        let service = Peer::open(socket, "org.freedesktop.login1").await;
        let systemd = Peer::open(socket, "org.freedesktop.systemd1").await;
        Self { service, systemd, locks: Vec::new(), microseconds: 5_000_000 }
    }

    /// Answers calls until it has been asked for so many inhibitors.
    async fn serve_until(&mut self, locks: usize) {
        while self.locks.len() < locks {
            tokio::select! {
                called = self.service.called() => self.answer(&called).await,
                called = self.systemd.called() => {
                    assert_eq!(member(&called), "KillUnit");
                    let hangup = ("systemd-logind.service".to_owned(), "all".to_owned(), 1);
                    assert_eq!(called.body().deserialize::<(String, String, i32)>().unwrap(), hangup);
                    self.microseconds = 9_000_000;
                    self.systemd.connection.reply(&called.header(), &()).await.unwrap();
                }
            }
        }
    }

    async fn answer(&mut self, called: &Message) {
        let (to, body) = (called.header(), called.body());
        match member(called).as_str() {
            "Get" => {
                let value = match body.deserialize::<(String, String)>().unwrap() {
                    (of, name) if of == MANAGER && name == "InhibitDelayMaxUSec" => Variant::from(self.microseconds),
                    (of, name) if of == MANAGER && name == "PreparingForShutdown" => Variant::from(false),
                    other => panic!("{other:?} is asked for"),
                };
                self.service.connection.reply(&to, &value).await.unwrap();
            }
            "Inhibit" => {
                let why = "Kubelet needs time to handle node shutdown";
                let asked: (String, String, String, String) = body.deserialize().unwrap();
                let wanted = ["shutdown", "kubelet", why, "delay"];
                assert_eq!(<[String; 4]>::from(asked), wanted);
                let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
                here.set_nonblocking(true).unwrap();
                self.locks.push(here);
                self.service.connection.reply(&to, &Fd::from(&there)).await.unwrap();
            }
            other => panic!("{other} is called"),
        }
    }

    async fn tell(&self, is_ending: bool) {
        let (path, none) = ("/org/freedesktop/login1", None::<&str>);
        self.service.connection.emit_signal(none, path, MANAGER, "PrepareForShutdown", &is_ending).await.unwrap();
    }

    fn holds(&self, lock: usize) -> bool {
        std::io::Read::read(&mut &self.locks[lock], &mut [0]).is_err()
    }

    async fn released(&self, lock: usize) {
        let released = async {
            while self.holds(lock) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, released).await.expect("the machine isn't held up for ever");
    }
}

fn view(uid: &str, priority: i32, phase: &str) -> (String, Arc<PodView>) {
    let pod = json!({"metadata": {"name": uid, "uid": uid}, "status": {"phase": phase},
        "spec": {"containers": [], "priority": priority, "terminationGracePeriodSeconds": 30}});
    let view = PodView {
        pod: Arc::new(serde_json::from_value(pod).unwrap()),
        uid: uid.to_owned(),
        sandbox: None,
        addresses: Vec::new(),
        cgroup: None,
        containers: Vec::new(),
    };
    (uid.to_owned(), Arc::new(view))
}

#[tokio::test]
async fn pods_end_in_order_before_the_machine_does() {
    let Some(daemon) = Daemon::start().await else { return };
    let mut logind = Logind::start(&daemon.socket()).await;
    let settings = tempfile::tempdir().unwrap();
    let periods =
        [(0, 1), (100, 5)].map(|(priority, seconds)| Period { priority, grace: Duration::from_secs(seconds) }).to_vec();
    let config = ShutdownConfig { periods, bus: daemon.socket(), login_settings: settings.path().join("conf.d") };
    let system = System::new(Clock::system());
    let (events, recorder) = k3sd_client::events::recorder("events", Connect::over(NoApi));
    let pods =
        [view("a", 0, "Running"), view("stays", 0, "Running"), view("b", 500, "Running"), view("done", 0, "Failed")];
    let pods = PodsSnapshot { pods: BTreeMap::from(pods) };
    let (ended, mut ends) = mpsc::channel(16);
    let (is_ending, ending) = watch::channel(false);
    let args = ShutdownArgs {
        config: Arc::new(config),
        node: "one".to_owned(),
        pods: watch::channel(Arc::new(pods)).1,
        evict: Arc::new(Ender(ended)),
        recorder: recorder.component("kubelet"),
        is_ending: Arc::new(is_ending),
    };
    let guard = task("shutdown", move |handle| run(handle, args.clone()));
    let tree = system.start(Spec::new(Strategy::OneForOne).child(events).child(guard));
    tokio::time::timeout(PATIENCE, logind.serve_until(1)).await.expect("an inhibitor is asked for");
    // It waited for 5 seconds, and pods have 6.
    let written = std::fs::read_to_string(settings.path().join("conf.d/99-kubelet.conf")).unwrap();
    assert!(written.contains("InhibitDelayMaxSec=6"), "{written}");
    assert!(logind.holds(0) && !*ending.borrow());

    logind.tell(true).await;
    let mut next = async || tokio::time::timeout(PATIENCE, ends.recv()).await.expect("in time").unwrap();
    let (one, two) = (next().await, next().await);
    let shown = |one: &Eviction| (one.uid.clone(), one.reason, one.grace_seconds);
    assert_eq!(shown(&one), ("a".to_owned(), "Terminated", 1));
    assert_eq!(shown(&two), ("stays".to_owned(), "Terminated", 1));
    assert_eq!(one.message, MESSAGE);
    assert!(*ending.borrow() && logind.holds(0), "the machine waits");
    // The second group comes although one of the first never ends.
    assert_eq!(shown(&next().await), ("b".to_owned(), "Terminated", 5));
    logind.released(0).await;
    assert!(*ending.borrow());

    // It doesn't go down after all: the node takes pods, and waits for the next time.
    logind.tell(false).await;
    tokio::time::timeout(PATIENCE, logind.serve_until(2)).await.expect("another inhibitor");
    assert!(logind.holds(1) && !*ending.borrow());
    tree.stop();
    tree.ended().await;
    // It may have been on its way.
    logind.released(1).await;
}

#[tokio::test]
async fn an_inhibitor_is_held_by_its_descriptor_alone() {
    let Some(daemon) = Daemon::start().await else { return };
    let (clock, settings) = (Clock::system(), tempfile::tempdir().unwrap());
    let socket = daemon.socket();
    let open = || Login::open(&clock, &socket, settings.path(), Duration::from_secs(1));
    let nobody = open().await.unwrap_err();
    assert!(nobody.to_string().contains("org.freedesktop.DBus.Error.ServiceUnknown"), "{nobody}");

    let mut logind = Logind::start(&socket).await;
    let serve = async {
        logind.serve_until(1).await;
        logind
    };
    let ask = async {
        let login = open().await.unwrap();
        assert!(!login.is_ending().await.unwrap());
        let lock = login.inhibit().await.unwrap();
        (login, lock)
    };
    let (logind, (mut login, lock)) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(serve, ask) }).await.expect("in time");
    assert!(logind.holds(0));
    drop(lock);
    // The bus may have a copy for a moment longer.
    logind.released(0).await;

    // What comes while nobody waits isn't lost.
    logind.tell(true).await;
    logind.tell(false).await;
    assert!(login.prepares().await.unwrap() && !login.prepares().await.unwrap());
    drop(daemon);
    let gone = tokio::time::timeout(PATIENCE, login.prepares()).await.expect("it is noticed").unwrap_err();
    assert!(matches!(gone, LoginError::Socket(_) | LoginError::Closed), "{gone}");
}

#[tokio::test]
async fn without_a_bus_it_says_so() {
    let nowhere = Path::new("/nowhere/bus");
    let error = Login::open(&Clock::system(), nowhere, nowhere, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, LoginError::Socket(_)), "{error}");
}
