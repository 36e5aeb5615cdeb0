//! The datastore inside `k3sd server`, as its API server will use it: over its socket, by etcd's protocol.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::panic;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::Shell;
use super::daemon::{Daemon, until};
use super::server::forward;

/// etcd's own client, through a server's socket. Debian's sends the socket's path as the name of the server, which HTTP/2
/// has no such name for; a port does not have that trouble.
#[track_caller]
fn etcdctl(socket: &Path, args: &[&str]) -> String {
    let output = forward(socket, |port| {
        let mut command = Command::new("etcdctl");
        command.env_clear().env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{port}")).args(args);
        command.output().expect("Debian's etcd-client is installed")
    });
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The arguments of a server whose state is in the shell's directory.
fn server(shell: &Shell) -> Daemon {
    shell.start(&["server", "--disable-agent", "--data-dir=data"])
}

#[test]
fn what_is_written_through_the_socket_survives_kills_and_restarts() {
    let shell = Shell::new();
    let daemon = server(&shell);
    let socket = shell.at("data/server/kine.sock");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(mode(&shell.at("data")), 0o755);
    assert_eq!(
        (mode(&socket), mode(&shell.at("data/server")), mode(&shell.at("data/server/db"))),
        (0o600, 0o700, 0o700)
    );

    assert_eq!(etcdctl(&socket, &["put", "/test/a", "one"]), "OK\n");
    for victim in ["server/kine/store", "server/kine/listener-0", "server/kine", "server"] {
        daemon.actors(&shell, &["kill", victim]);
        assert_eq!(etcdctl(&socket, &["get", "/test/a"]), "/test/a\none\n", "after killing {victim}");
    }
    assert_eq!(etcdctl(&socket, &["put", "/test/b", "two"]), "OK\n");
    assert!(daemon.actors(&shell, &["tree"]).contains("kine"));
    let pid = daemon.pid();
    assert!(daemon.end_with(Signal::TERM, pid).success(), "{}", shell.log());
    assert!(!socket.exists(), "the socket goes with the daemon");

    let daemon = server(&shell);
    assert_eq!(etcdctl(&socket, &["get", "/test/", "--prefix", "--print-value-only"]), "one\ntwo\n");
    let pid = daemon.pid();
    assert!(!daemon.end_with(Signal::KILL, pid).success());
    // Killed, it leaves its socket, which is in nobody's way.
    let daemon = server(&shell);
    assert_eq!(etcdctl(&socket, &["get", "/test/b", "--print-value-only"]), "two\n");
    drop(daemon);
}

#[test]
fn a_database_elsewhere_and_kines_variables_are_heeded() {
    let mut shell = Shell::new();
    shell.set("KINE_COMPACT_MIN_RETAIN", "7");
    shell.set("KINE_POLL_BATCH_SIZE", "100");
    let config = format!("datastore-endpoint: sqlite://{}\n", shell.at("elsewhere/k.db").display());
    shell.file("config.yaml", &config);
    let daemon = shell.start(&["server", "--disable-agent", "--data-dir=data", "--config=config.yaml"]);
    assert!(shell.at("elsewhere/k.db").exists() && !shell.at("data/server/db").exists());
    assert!(shell.log().contains("environment variable KINE_POLL_BATCH_SIZE has no effect"), "{}", shell.log());
    let second = shell.run(&["server", "--disable-agent", "--data-dir=data", "--inspect-socket=other.sock"]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains("kine.sock"), "it says which socket is taken: {}", second.err);
    assert!(shell.at("data/server/kine.sock").exists() && !shell.at("other.sock").exists());
    drop(daemon);

    shell.set("KINE_COMPACT_MIN_RETAIN", "many");
    let line = shell.refused(&["server", "--disable-agent", "--data-dir=other"]);
    assert!(line.starts_with("environment variable KINE_COMPACT_MIN_RETAIN: "), "{line}");
}

#[test]
fn a_database_that_is_away_holds_up_the_start_but_not_the_end() {
    let shell = Shell::new();
    let endpoint = "--datastore-endpoint=postgres://me:hush@127.0.0.1:1/k";
    let daemon = shell.spawn(&["server", "--disable-agent", "--data-dir=data", endpoint]);
    until("a word about the database", || shell.log().contains("postgres can't be reached; trying again"));
    assert!(daemon.actors(&shell, &["tree"]).contains("starting"), "the tree can be looked at meanwhile");
    let pid = daemon.pid();
    assert!(daemon.end_with(Signal::TERM, pid).success(), "{}", shell.log());
    let log = shell.log();
    assert!(!log.contains("hush") && log.matches("trying again").count() < 30, "it waited for more: {log}");
}

#[test]
fn an_external_etcd_is_asked_without_a_socket_in_front() {
    let shell = Shell::new();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (clients, peers) = (format!("http://{}", free()), format!("http://{}", free()));
    let mut etcd = Command::new("etcd");
    etcd.arg("--data-dir").arg(shell.at("etcd")).args(["--listen-client-urls", &clients]);
    etcd.args(["--advertise-client-urls", &clients, "--listen-peer-urls", &peers, "--unsafe-no-fsync"]);
    etcd.args(["--initial-advertise-peer-urls", &peers, "--initial-cluster", &format!("default={peers}")]);
    let etcd = etcd.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut etcd = etcd.expect("Debian's etcd-server is installed");
    let endpoint = format!("--datastore-endpoint={clients}");
    let outcome = panic::catch_unwind(|| {
        let daemon = shell.start(&["server", "--disable-agent", "--data-dir=data", &endpoint]);
        let tree = daemon.actors(&shell, &["tree"]);
        assert!(tree.contains("store") && !tree.contains("listener-0"), "{tree}");
        assert!(!shell.at("data/server/kine.sock").exists());
        let pid = daemon.pid();
        assert!(daemon.end_with(Signal::TERM, pid).success(), "{}", shell.log());
    });
    etcd.kill().unwrap();
    etcd.wait().unwrap();
    outcome.unwrap_or_else(|reason| panic::resume_unwind(reason));
}
