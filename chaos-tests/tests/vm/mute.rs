//! A systemd that answers nothing holds up those pods that need it, and nobody else.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::guest::Guest;
use crate::kubectl::holds;

/// Serves while everything below happens.
const SERVER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, 'mkdir /web && echo here >/web/index.html && exec httpd -f -p 80 -h /web']
    readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
";
/// Where systemd is asked about its units.
const SOCKET: &str = "/run/systemd/private";
/// Takes connections there and says nothing.
const MUTE: &str = "use IO::Socket::UNIX; \
    my $socket = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 200) or die; \
    my @all; while (my $one = $socket->accept) { push @all, $one }";
/// How many pods come meanwhile, and how many go.
const COUNT: usize = 6;
/// A question to systemd is given up after twice this time, and a thread that waited for it would answer nobody for as long.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long it is silent: longer than several questions wait.
const SILENCE: Duration = Duration::from_secs(60);
/// Actors that are killed beside those of single pods.
const KILLED: [&str; 3] = ["agent/kubelet/pods/manager", "agent/kubelet/follow/classes", "agent/kubelet/pods/workers"];

pub(crate) fn mute() {
    let Some(guest) = Guest::boot() else { return };
    guest.install("server --kubelet-arg=cgroup-driver=systemd --debug-actor-control");
    guest.node_ready();
    guest.apply(&format!("{SERVER}{}", pods("old")));
    let address = guest.ready("server")["status"]["podIP"].as_str().expect("an address").to_owned();
    let old: Vec<String> = names("old").collect();
    for name in &old {
        guest.ready(name);
    }
    let life = guest.life("server");
    let daemon = guest.told("systemctl show k3s --property MainPID");
    let web = format!("exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && tail -n 1 <&3");

    guest.told(&format!("mv {SOCKET} {SOCKET}.real"));
    let silent = format!("nohup perl -e '{MUTE}' {SOCKET} </dev/null >/dev/null 2>&1 & echo $!");
    let silent = guest.told(&silent).trim().to_owned();
    guest.until("it listens", &format!("test -S {SOCKET}"), |said| said.code == 0);
    guest.apply(&pods("new"));
    let mut delete = vec!["delete", "pod", "--wait=false"];
    delete.extend(old.iter().map(String::as_str));
    guest.asked(&delete);

    let (began, mut rounds) = (Instant::now(), Vec::new());
    while began.elapsed() < SILENCE {
        let asked = Instant::now();
        guest.asked(&["get", "--raw", "/readyz"]);
        rounds.push(asked.elapsed());
        assert_eq!(guest.told(&web), "here\n", "traffic flows");
        kill_one(&guest, rounds.len());
    }
    rounds.sort();
    let (middle, slowest) = (rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    println!("while systemd was silent: {} times ready, in {middle:?}, {slowest:?} at most", rounds.len());
    assert!(slowest < ANSWER_LIMIT, "{rounds:?}");
    let all = guest.get(&["pods"]);
    let waiting = |pod: &&Value| pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("new"));
    let waiting: Vec<&Value> = items(&all).iter().filter(waiting).collect();
    assert_eq!(waiting.len(), COUNT);
    assert!(waiting.iter().all(|pod| !holds(pod, "Ready")), "they need systemd: {all:#}");

    guest.told(&format!("kill {silent} && mv {SOCKET}.real {SOCKET}"));
    for name in names("new") {
        let pod = guest.ready(&name);
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{pod:#}");
    }
    guest.wait("the others are gone", &["pods"], |list| items(list).len() == COUNT + 1);
    assert_eq!(guest.life("server"), life, "nothing happened to it");
    assert_eq!(guest.told("systemctl show k3s --property MainPID"), daemon);
    let count = "find /sys/fs/cgroup -name '*pod[0-9a-f]*.slice' -path '*kubepods*' | wc -l; \
        systemctl list-units --plain --no-legend --type=slice '*kubepods*pod*' | wc -l";
    let own = format!("{0}\n{0}\n", COUNT + 1);
    guest.until("only those that run have slices", count, |said| said.out == own);
}

/// Kills, in turn, the actor of one pod or one of those that look after all. It may be gone, or dead at the moment.
fn kill_one(guest: &Guest, round: usize) {
    let all = guest.get(&["pods"]);
    let mut paths: Vec<String> = items(&all)
        .iter()
        .filter_map(|pod| Some(format!("agent/kubelet/pods/workers/{}", pod["metadata"]["uid"].as_str()?)))
        .collect();
    paths.extend(KILLED.map(str::to_owned));
    let said = guest.run(&format!("k3sd actors kill {}", paths[round % paths.len()]));
    println!("{}{}", said.out.trim(), said.err.trim());
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn names(of: &str) -> impl Iterator<Item = String> {
    (0..COUNT).map(move |number| format!("{of}-{number}"))
}

fn pods(of: &str) -> String {
    names(of).fold(String::new(), |mut text, name| {
        let spec =
            "{terminationGracePeriodSeconds: 1, containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]}";
        write!(text, "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n").expect("memory");
        text
    })
}
