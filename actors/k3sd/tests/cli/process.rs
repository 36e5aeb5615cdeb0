//! What the rest of the machine sees of a daemon, and what a daemon does for the rest of a container.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::Shell;
use super::daemon::until;

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The arguments of a process, as everybody can read them.
fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn the_process_list_shows_no_secrets() {
    let shell = Shell::new();
    let endpoint = format!("--datastore-endpoint=sqlite://{}?hush", shell.at("k.db").display());
    let daemon = shell.start(&["server", "--disable-agent", "--data-dir=data", &endpoint]);
    assert_eq!(arguments(daemon.pid()), [env!("CARGO_BIN_EXE_k3sd"), "server"]);
    let environ = fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap();
    assert!(!String::from_utf8(environ).unwrap().contains("hush"), "nor do the variables");
    for descriptor in fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap() {
        let path = descriptor.unwrap().path();
        if fs::read_link(&path).is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:")) {
            assert_eq!(fs::metadata(&path).unwrap().len(), 0, "what was handed over is gone");
        }
    }
    assert!(shell.at("k.db").exists(), "the endpoint arrived");
    let pid = daemon.pid();
    assert!(daemon.end_with(Signal::TERM, pid).success(), "{}", shell.log());

    let listen = format!("--listen-address=unix://{}", shell.at("kine.sock").display());
    let endpoint = "--endpoint=postgres://me:hush@127.0.0.1:1/k";
    let daemon = shell.spawn(&["kine", endpoint, &listen, "--metrics-bind-address=0"]);
    until("the other process", || arguments(daemon.pid()).len() == 2);
    assert_eq!(arguments(daemon.pid())[1], "kine");
    drop(daemon);

    // Without a secret there is nothing to hide, and the arguments help whoever looks.
    let daemon = shell.start(&["server", "--disable-agent", "--data-dir=data"]);
    assert!(arguments(daemon.pid()).contains(&"--data-dir=data".to_owned()));
}

#[test]
fn the_first_process_of_a_container_buries_the_orphans() {
    let shell = Shell::new();
    // A namespace of process ids, and two orphans that die a moment later. Only root may make one without another kind.
    let user: &[&str] = if rustix::process::getuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let mut container = Command::new("unshare");
    container.args(user).args(["--pid", "--fork", "--kill-child", "sh", "-c"]);
    container.args(["(sleep 1 &) ; (sleep 1 &) ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_k3sd")]);
    let endpoint = format!("--datastore-endpoint=sqlite://{}?hush", shell.at("k.db").display());
    let daemon = shell.start_by(&mut container, &["server", "--disable-agent", "--data-dir=data", &endpoint]);
    let [first] = children(daemon.pid())[..] else { panic!("the container has one first process") };
    until("the dead are buried", || children(first).len() == 1);
    let program = children(first)[0];
    for pid in [first, program] {
        assert_eq!(arguments(pid), [env!("CARGO_BIN_EXE_k3sd"), "server"], "neither shows the secret");
    }
    assert!(daemon.end_with(Signal::TERM, first).success(), "{}", shell.log());
    assert!(!shell.at("data/server/kine.sock").exists(), "the program has ended in good order");

    // Its end is that of the container, however it comes.
    let mut container = Command::new("unshare");
    container.args(user).args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_k3sd")]);
    let daemon = shell.start_by(&mut container, &["server", "--disable-agent", "--data-dir=data"]);
    let [first] = children(daemon.pid())[..] else { panic!("the container has one first process") };
    let program = children(first)[0];
    assert_eq!(daemon.end_with(Signal::KILL, program).code(), Some(128 + 9));
}
