//! Everyday work with `etcdctl`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k3sd_runtime::Signal;

use crate::support::{Server, etcdctl, lines, pause, wait_until};

#[test]
fn keys_ranges_and_deletes() {
    let server = Server::start();
    for (key, value) in [("a/1", "one"), ("a/2", "two"), ("a/3", "three"), ("b", "four")] {
        assert_eq!(server.ok(&["put", key, value]), ["OK"]);
    }
    assert_eq!(server.ok(&["get", "a/1"]), ["a/1", "one"]);
    assert_eq!(server.ok(&["get", "--prefix", "a/", "--print-value-only"]), ["one", "two", "three"]);
    assert_eq!(server.ok(&["get", "--prefix", "a/", "--limit", "2", "--keys-only"]), ["a/1", "", "a/2", ""]);
    assert_eq!(server.ok(&["get", "a/2", "b", "--print-value-only"]), ["two", "three"]);
    assert_eq!(server.ok(&["get", "--from-key", "a/3", "--print-value-only"]), ["three", "four"]);
    let sorted = ["get", "--prefix", "", "--print-value-only", "--sort-by", "modify", "--order", "descend"];
    assert_eq!(server.ok(&sorted), ["four", "three", "two", "one"]);
    let json = server.ok(&["get", "--prefix", "a/", "--limit", "1", "-w", "json"]).join("");
    assert!(json.contains("\"more\":true") && json.contains("\"count\":3"), "{json}");

    let before = server.revision();
    assert_eq!(server.ok(&["put", "--prev-kv", "b", "five"]), ["OK", "b", "four"]);
    assert_eq!(server.ok(&["get", "b", "--rev", &before.to_string()]), ["b", "four"]);
    assert_eq!(server.ok(&["del", "--prev-kv", "b"]), ["1", "b", "five"]);
    assert_eq!(server.ok(&["del", "b"]), ["0"]);
    assert_eq!(server.ok(&["del", "--prefix", "a/"]), ["3"]);
    assert!(server.ok(&["get", "--prefix", ""]).is_empty());
    let future = server.fails(&["get", "b", "--rev", "99999"]);
    assert!(future.contains("etcdserver: mvcc: required revision is a future revision"), "{future}");
    assert!(server.ok(&["endpoint", "status"]).join("").contains("3.6.14"));
    server.ok(&["endpoint", "health"]);
    assert!(server.ok(&["member", "list"]).join("").contains("kine"));
    server.ok(&["defrag"]);
    let refused = server.fails(&["snapshot", "save", &server.folder.path().join("x").display().to_string()]);
    assert!(refused.contains("back up the database"), "{refused}");
    assert!(server.fails(&["move-leader", "1"]).contains("MoveLeader is not supported"));
}

/// It sends the path of the socket as the authority of its requests, which HTTP/2 forbids.
#[test]
fn a_unix_socket_is_as_good() {
    let server = Server::start();
    let ok = |args: &[&str]| {
        let output = etcdctl(&server.local, args).output().expect("etcdctl runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "etcdctl {args:?}: {said}");
        lines(&output.stdout)
    };
    let long = "x".repeat(300_000);
    assert_eq!(ok(&["put", "a", &long[..100_000]]), ["OK"]);
    assert_eq!(ok(&["get", "a", "--print-value-only"]), [&long[..100_000]]);
    let granted = ok(&["lease", "grant", "60"]).join("");
    let id = granted.split(' ').nth(1).expect("lease ID granted ...").to_owned();
    ok(&["put", "--lease", &id, "b", "2"]);
    assert_eq!(ok(&["del", "--prefix", ""]), ["2"]);
    assert!(ok(&["member", "list"]).join("").contains("kine.sock"));
}

#[test]
fn transactions() {
    let server = Server::start();
    let create = "create(\"k\") = \"0\"\n\nput k 1\nget k\n\nget k\n\n";
    assert_eq!(server.stdin(&["txn"], create), ["SUCCESS", "", "OK", "", "k", "1"]);
    assert_eq!(server.stdin(&["txn"], create), ["FAILURE", "", "k", "1"]);
    assert_eq!(server.stdin(&["txn"], "value(\"k\") = \"1\"\n\ndel k\n\n\n"), ["SUCCESS", "", "1"]);
}

#[test]
fn compaction_is_told_to_readers_and_watchers() {
    let server = Server::start();
    for value in ["1", "2", "3", "4"] {
        server.ok(&["put", "k", value]);
    }
    let now = server.revision();
    let target = now - 1;
    server.ok(&["compaction", &target.to_string()]);
    assert_eq!(server.ok(&["get", "k", "--rev", &target.to_string(), "--print-value-only"]), ["3"]);
    let words = "etcdserver: mvcc: required revision has been compacted";
    for args in [vec!["get", "k", "--rev", "1"], vec!["compaction", "1"], vec!["watch", "k", "--rev", "1"]] {
        let said = server.fails(&args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let future = server.fails(&["compaction", "99999"]);
    assert!(future.contains("required revision is a future revision"), "{future}");
}

#[test]
fn a_lease_ends_its_key() {
    let server = Server::start();
    let granted = server.ok(&["lease", "grant", "2"]).join("");
    let id = granted.split(' ').nth(1).expect("lease ID granted ...").to_owned();
    server.ok(&["put", "--lease", &id, "k", "v"]);
    assert_eq!(server.ok(&["get", "k", "--print-value-only"]), ["v"]);
    wait_until("the key ends", || server.ok(&["get", "k"]).is_empty());
}

#[test]
fn leases_are_kept_alive_revoked_and_told_about() {
    let server = Server::start();
    let grant = || server.ok(&["lease", "grant", "2"]).join("").split(' ').nth(1).expect("a number").to_owned();
    let (kept, revoked) = (grant(), grant());
    assert_ne!(kept, revoked);
    let (mut keeper, _) = server.watch("keeper", &["lease", "keep-alive", &kept]);
    for key in ["kept", "rewritten"] {
        server.ok(&["put", "--lease", &kept, key, "v"]);
    }
    server.ok(&["put", "--lease", &revoked, "revoked", "v"]);
    server.ok(&["put", "--lease", &revoked, "freed", "v"]);
    server.ok(&["put", "freed", "for ever"]);
    let told = server.ok(&["lease", "timetolive", "--keys", &kept]).join("");
    assert!(told.contains("granted with TTL(2s)") && told.contains("[kept rewritten]"), "{told}");
    assert_eq!(server.ok(&["lease", "list"]).len(), 3, "a line that counts, and one for each");
    server.ok(&["lease", "revoke", &revoked]);
    assert_eq!(server.ok(&["get", "--prefix", "", "--keys-only"]), ["freed", "", "kept", "", "rewritten", ""]);
    assert!(server.fails(&["lease", "revoke", &revoked]).contains("requested lease not found"));
    pause(Duration::from_millis(4500));
    assert_eq!(server.ok(&["get", "--prefix", "", "--keys-only"]), ["freed", "", "kept", "", "rewritten", ""]);
    keeper.kill().expect("it runs");
    keeper.wait().expect("it ends");
    wait_until("the lease ends", || server.ok(&["get", "--prefix", "", "--keys-only"]) == ["freed", ""]);
}

#[test]
fn a_write_may_keep_what_is_there() {
    let server = Server::start();
    let granted = server.ok(&["lease", "grant", "60"]).join("");
    let id = granted.split(' ').nth(1).expect("lease ID granted ...").to_owned();
    assert!(server.fails(&["put", "k", "v", "--ignore-lease"]).contains("etcdserver: key not found"));
    server.ok(&["put", "k", "one", "--lease", &id]);
    server.ok(&["put", "k", "two", "--ignore-lease"]);
    assert!(server.ok(&["lease", "timetolive", "--keys", &id]).join("").contains("[k]"));
    let lease = |server: &Server| server.ok(&["get", "k", "-w", "json"]).join("").contains("\"lease\":60");
    assert!(lease(&server));
    server.ok(&["put", "k", "--ignore-value"]);
    assert_eq!(server.ok(&["get", "k"]), ["k", "two"]);
    assert!(!lease(&server), "it was written without a lease");
}

#[test]
fn leases_survive_the_actor_that_keeps_them() {
    let server = Server::start();
    let granted = server.ok(&["lease", "grant", "3"]).join("");
    let id = granted.split(' ').nth(1).expect("lease ID granted ...").to_owned();
    server.ok(&["put", "--lease", &id, "k", "v"]);
    assert!(server.tree.system().signal("kine/expiry", Signal::Kill));
    wait_until("the lease is told about", || {
        let told = server.run(&["lease", "timetolive", "--keys", &id]).stdout;
        String::from_utf8_lossy(&told).contains("granted with TTL(3s)")
    });
    let told = server.ok(&["lease", "timetolive", "--keys", &id]).join("");
    assert!(told.contains("[k]"), "{told}");
    server.ok(&["lease", "revoke", &id]);
    assert!(server.ok(&["get", "k"]).is_empty(), "it went with its lease");
}

#[test]
fn an_election_has_one_winner() {
    let server = Server::start();
    let (mut first, path) = server.watch("first", &["elect", "e", "one"]);
    let told = |path: &PathBuf| lines(&std::fs::read(path).expect("the output")).join(" ");
    wait_until("the first is elected", || told(&path).contains("one"));
    let (mut second, waiting) = server.watch("second", &["elect", "e", "two"]);
    // Names are those of leases, so their order means nothing.
    let candidates = ["get", "--prefix", "e/", "--print-value-only", "--sort-by", "create"];
    wait_until("the second stands for election", || server.ok(&candidates) == ["one", "two"]);
    pause(Duration::from_millis(200));
    assert!(told(&waiting).is_empty(), "there is a leader already");
    for child in [&mut first, &mut second] {
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
}

#[test]
fn hashes_tell_whether_keys_differ() {
    let server = Server::start();
    let hash = || server.ok(&["endpoint", "hashkv"]).join("");
    server.ok(&["put", "a", "1"]);
    let before = hash();
    assert_eq!(hash(), before);
    server.ok(&["put", "a", "2"]);
    assert_ne!(hash(), before);
    assert_eq!(server.ok(&["endpoint", "hashkv", &format!("--rev={}", server.revision() - 1)]).join(""), before);
}

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    let server = Server::start();
    let (mut first, path) = server.watch("first", &["lock", "--ttl", "3", "l"]);
    let told = |path: &PathBuf| lines(&std::fs::read(path).expect("the output"));
    wait_until("the lock is taken", || !told(&path).is_empty());
    let (mut second, waiting) = server.watch("second", &["lock", "--ttl", "3", "l"]);
    pause(Duration::from_millis(4500));
    assert!(told(&waiting).is_empty(), "the first holds it still, beyond its time to live");
    // Killed, so that it can't give the lock back: its lease ends by itself.
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    wait_until("the second has it", || !told(&waiting).is_empty());
    second.kill().expect("it runs");
    second.wait().expect("it ends");
}

#[test]
fn a_watch_begins_in_the_past_and_goes_on() {
    let server = Server::start();
    server.ok(&["put", "p/a", "1"]);
    let first = server.revision();
    server.ok(&["put", "p/b", "2"]);
    let (mut child, path) =
        server.watch("past", &["watch", "--prefix", "p/", "--prev-kv", "--rev", &first.to_string()]);
    let read = || lines(&std::fs::read(&path).expect("the output"));
    wait_until("the past", || read().len() >= 6);
    server.ok(&["put", "p/a", "3"]);
    server.ok(&["del", "p/b"]);
    server.ok(&["put", "q", "elsewhere"]);
    let wanted = "PUT p/a 1 PUT p/b 2 PUT p/a 1 p/a 3 DELETE p/b 2 p/b";
    let told = || read().into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    wait_until("the present", || told() == wanted);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

/// Each actor is killed again and again while two write and one watches.
#[test]
fn kills_lose_no_acknowledged_write_and_no_event() {
    const KILLS: usize = 18;
    let server = Server::start();
    server.ok(&["put", "w/start", "0"]);
    let (mut child, path) = server.watch("kills", &["watch", "--prefix", "w/"]);
    let told = || lines(&std::fs::read(&path).expect("the output"));
    // Only what happens after the watch has begun is its business.
    wait_until("the watch begins", || {
        server.ok(&["put", "w/start", "1"]);
        !told().is_empty()
    });
    let actors = ["store", "compactor", "expiry", "connections", "progress", "listener-0"];
    let done = AtomicBool::new(false);
    let endpoint = server.endpoint.as_str();
    let write = |writer: char| {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if done.load(Ordering::Relaxed) {
                return acknowledged;
            }
            let name = format!("w/{writer}{number:05}");
            let put = etcdctl(endpoint, &["put", &name, "x", "--command-timeout", "5s"]).output();
            if put.expect("etcdctl runs").status.success() {
                acknowledged.push(name);
            }
        }
        unreachable!("numbers do not end")
    };
    let acknowledged = std::thread::scope(|scope| {
        let writers = ['a', 'b'].map(|writer| scope.spawn(move || write(writer)));
        for kill in 0..KILLS {
            let actor = actors[kill % actors.len()];
            // It may be between two lives.
            for _ in 0..200 {
                if server.tree.system().signal(&format!("kine/{actor}"), Signal::Kill) {
                    break;
                }
                pause(Duration::from_millis(20));
            }
            pause(Duration::from_millis(150));
        }
        done.store(true, Ordering::Relaxed);
        writers.map(|writer| writer.join().expect("it wrote")).concat()
    });
    assert!(acknowledged.len() > KILLS, "writes get through between the kills: {}", acknowledged.len());
    let is_ours = |line: &String| line.starts_with("w/a") || line.starts_with("w/b");
    let stored: Vec<_> = server.ok(&["get", "--prefix", "w/", "--keys-only"]).into_iter().filter(is_ours).collect();
    for name in &acknowledged {
        assert!(stored.contains(name), "{name} was acknowledged and is gone");
    }
    // The watch has told every key that is stored, once, and those of a writer in their order.
    let seen = || told().into_iter().filter(is_ours).collect::<Vec<_>>();
    wait_until("the watch has caught up", || seen().len() >= stored.len());
    let mut seen = seen();
    for writer in ["w/a", "w/b"] {
        assert!(seen.iter().filter(|name| name.starts_with(writer)).is_sorted(), "{seen:?}");
    }
    seen.sort_unstable();
    assert_eq!(seen, stored);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}
