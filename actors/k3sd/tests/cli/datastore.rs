//! The datastore inside `k3sd server`, as its API server will use it: over its socket, by etcd's protocol.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::Shell;
use super::daemon::Daemon;
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
    assert_eq!(
        (mode(&socket), mode(&shell.at("data/server")), mode(&shell.at("data/server/db"))),
        (0o600, 0o700, 0o700)
    );

    assert_eq!(etcdctl(&socket, &["put", "/registry/a", "one"]), "OK\n");
    for victim in ["server/kine/store", "server/kine/listener-0", "server/kine", "server"] {
        daemon.actors(&shell, &["kill", victim]);
        assert_eq!(etcdctl(&socket, &["get", "/registry/a"]), "/registry/a\none\n", "after killing {victim}");
    }
    assert_eq!(etcdctl(&socket, &["put", "/registry/b", "two"]), "OK\n");
    assert!(daemon.actors(&shell, &["tree"]).contains("kine"));
    let pid = daemon.pid();
    assert!(daemon.end_with(Signal::TERM, pid).success(), "{}", shell.log());
    assert!(!socket.exists(), "the socket goes with the daemon");

    let daemon = server(&shell);
    assert_eq!(etcdctl(&socket, &["get", "/registry/", "--prefix", "--print-value-only"]), "one\ntwo\n");
    let pid = daemon.pid();
    assert!(!daemon.end_with(Signal::KILL, pid).success());
    // Killed, it leaves its socket, which is in nobody's way.
    let daemon = server(&shell);
    assert_eq!(etcdctl(&socket, &["get", "/registry/b", "--print-value-only"]), "two\n");
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
