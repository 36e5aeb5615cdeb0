//! The bars of the runtime, each measured in this one run and printed as a table.
//! `cargo bench -p k3sd-runtime --bench figures`.

use std::fs;
use std::time::{Duration, Instant};

use k3sd_runtime::{Clock, Spec, Strategy, System, subtree, worker};

mod common;
#[path = "../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;
use common::{Echo, EchoMsg, LIMIT, PeerActor, PeerEcho, one_restart, restartable, runtime};
use table::{Row, Spread};

/// Rounds of each paired measurement; medians of them are reported.
const ROUNDS: usize = 41;

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("procfs is mounted");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("statm has pages") * 4096
}

/// Voluntary and involuntary switches of all threads.
fn context_switches() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("procfs is mounted");
    let statuses = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let lines: Vec<String> = statuses.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let switches = lines.iter().filter(|line| line.contains("ctxt_switches"));
    switches.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
}

fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/schedstat").expect("the kernel counts run time");
    let threads = fs::read_dir("/proc/self/task").expect("procfs is mounted").flatten();
    let times = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    let nanos: u64 = times.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum();
    Duration::from_nanos(if nanos == 0 {
        stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    } else {
        nanos
    })
}

/// Microseconds per call, of ours and of the peer's, with new actors for each round: on two threads it matters which of
/// them an actor happens to live on.
async fn one_round(calls: u32) -> (f64, f64) {
    let micros = |took: Duration| took.as_secs_f64() / f64::from(calls) * 1e6;
    let system = System::new(Clock::system());
    let tree = system.start(Spec::new(Strategy::OneForOne).child(worker::<Echo>("echo", ())));
    tree.ready().await.expect("the tree starts");
    let echo = system.address::<EchoMsg>("echo").expect("the type fits");
    let began = Instant::now();
    for value in 0..u64::from(calls) {
        echo.call(LIMIT, |reply| EchoMsg::Echo { value, reply }).await.expect("it answers");
    }
    let ours = micros(began.elapsed());
    tree.stop();
    tree.ended().await;
    let peer = PeerEcho::start().await;
    let began = Instant::now();
    for value in 0..u64::from(calls) {
        peer.echo(value).await;
    }
    let theirs = micros(began.elapsed());
    peer.0.stop(None);
    (ours, theirs)
}

async fn call_ratio(threads: &str, name: &'static str) {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let round = tokio::spawn(one_round(10_000));
        let (our, their) = round.await.expect("the round ends");
        ours.push(our);
        theirs.push(their);
        ratios.push(our / their);
    }
    let (ours, theirs, ratio) = (Spread::of(ours), Spread::of(theirs), Spread::of(ratios));
    let row = Row::at_most(format!("call round trip beside a bare ractor call, {threads}"), 1.3, "x", ratio.median);
    let micros = |spread: Spread| format!("{:.2} µs", spread.median);
    Row { ours: micros(ours), other: micros(theirs), ratio: format!("{ratio} x"), ..row }.named(name).print();
}

async fn restart_time() {
    let system = System::new(Clock::system());
    let (tree, echo) = restartable(&system).await;
    let mut micros = Vec::new();
    for _ in 0..2_000 {
        let began = Instant::now();
        one_restart(&system, &echo).await;
        micros.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let micros = Spread::of(micros);
    let row = Row::at_most("death to ready again, backoff off, median", 200.0, "µs", micros.median);
    Row { ours: format!("{micros} µs"), ..row }.named("restart").print();
    tree.stop();
    tree.ended().await;
}

/// The least that is resident within two seconds: freed memory goes back when each thread's allocator comes to it.
async fn settled_bytes() -> usize {
    let mut least = resident_bytes();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        least = least.min(resident_bytes());
    }
    least
}

async fn dynamic_children() {
    let system = System::new(Clock::system());
    let tree = system.start(Spec::new(Strategy::OneForOne).child(subtree("many", Spec::new(Strategy::Dynamic))));
    tree.ready().await.expect("the tree starts");
    let many = system.supervisor("many").expect("it is a supervisor");
    let mut per_child = Vec::new();
    let mut bytes_each = 0.0;
    let mut left = 0.0;
    for round in 0..3 {
        let before = settled_bytes().await;
        for (count, from) in [(10_000_u32, 0_u32), (90_000, 10_000)] {
            let began = Instant::now();
            for number in from..from + count {
                many.add(LIMIT, worker::<Echo>(&format!("c{number}"), ())).await.expect("it starts");
            }
            let started = began.elapsed().as_secs_f64() / f64::from(count) * 1e6;
            if round > 0 {
                per_child.push((count, started));
            }
        }
        assert_eq!(system.alive(), 100_002);
        bytes_each = f64::max(bytes_each, (resident_bytes().saturating_sub(before)) as f64 / 100_000.0);
        let began = Instant::now();
        for number in 0..100_000 {
            many.remove(LIMIT, &format!("c{number}")).await.expect("it stops");
        }
        let stopped = began.elapsed().as_secs_f64() / 100_000.0 * 1e6;
        assert_eq!(system.alive(), 2);
        if round > 0 {
            per_child.push((0, stopped));
            left = settled_bytes().await as f64 - before as f64;
        }
    }
    let of = |kind: u32| {
        Spread::of(per_child.iter().filter(|(count, _)| *count == kind).map(|(_, time)| *time).collect()).median
    };
    let (few, most, stops) = (of(10_000), of(90_000), of(0));
    let found =
        format!("{few:.2} µs each for the first 10,000, {most:.2} µs for the other 90,000, {stops:.2} µs to stop");
    Row::alone("100,000 dynamic children", "linear in number", found, most <= few * 1.5)
        .named("children-linear")
        .print();
    let row = Row::at_most("memory of each", 4096.0, "bytes", bytes_each);
    Row { ours: format!("{bytes_each:.0} bytes"), ..row }.named("children-bytes").print();
    let found = format!("{:.1} MiB more than before the round, after 2 rounds of 100,000", left / 1048576.0);
    Row::alone("given back", "all", found, left < 0.05 * 100_000.0 * bytes_each).named("children-back").print();
    tree.stop();
    tree.ended().await;
    assert_eq!(system.alive(), 0);
}

/// No bar: what the same number of actors costs on the peer, without names, counters or restarts.
async fn peer_children() {
    let supervisor = PeerEcho::start().await;
    let before = resident_bytes();
    let mut peers = Vec::with_capacity(20_000);
    for _ in 0..20_000 {
        let linked = ractor::Actor::spawn_linked(None, PeerActor, (), supervisor.0.get_cell()).await;
        peers.push(linked.expect("the peer starts").0);
    }
    let bytes = resident_bytes().saturating_sub(before) / peers.len();
    let row = Row::alone("a bare linked ractor actor, for comparison", "-", "-".to_owned(), true);
    Row { other: format!("{bytes} bytes"), holds: None, ..row }.print();
    peers.iter().for_each(|peer| peer.stop(None));
}

async fn idle() {
    let system = System::new(Clock::system());
    let mut root = Spec::new(Strategy::OneForOne);
    for group in 0..10 {
        let mut spec = Spec::new(Strategy::OneForOne);
        for number in 0..49 {
            spec = spec.child(worker::<Echo>(&format!("a{number}"), ()));
        }
        root = root.child(subtree(&format!("g{group}"), spec));
    }
    let tree = system.start(root);
    tree.ready().await.expect("the tree starts");
    tokio::time::sleep(Duration::from_secs(1)).await;
    const SECONDS: f64 = 10.0;
    let (switches, cpu) = (context_switches(), cpu_time());
    tokio::time::sleep(Duration::from_secs_f64(SECONDS)).await;
    let (switches, cpu) = (context_switches() - switches, cpu_time() - cpu);
    let rate = switches as f64 / SECONDS;
    let share = cpu.as_secs_f64() / SECONDS * 100.0;
    let found = format!("{rate:.1} context switches/s, {share:.4} % of a core");
    let what = format!("idle tree of {} actors", system.alive());
    Row::alone(what, "no measurable CPU", found, rate < 2.0 && share < 0.01).named("idle-tree").print();
    tree.stop();
    tree.ended().await;
}

/// Each part runs in a process of its own, so that none starts with another's memory.
const PARTS: [&str; 6] = ["call-one-thread", "call-two-threads", "restart", "peer", "dynamic", "idle"];

fn measure(part: &str) {
    let one_thread = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    match part {
        "call-one-thread" => one_thread().block_on(call_ratio("one thread", "call-one-thread")),
        "call-two-threads" => runtime().block_on(call_ratio("two threads", "call-two-threads")),
        part => runtime().block_on(async {
            let part = match part {
                "restart" => tokio::spawn(restart_time()),
                "peer" => tokio::spawn(peer_children()),
                "dynamic" => tokio::spawn(dynamic_children()),
                _ => tokio::spawn(idle()),
            };
            part.await.expect("the part ends");
        }),
    }
}

fn main() {
    if let Some(part) = std::env::args().skip(1).find(|argument| PARTS.contains(&argument.as_str())) {
        return measure(&part);
    }
    Row::print_head("ractor");
    for part in PARTS {
        let myself = std::env::current_exe().expect("a running bench has a path");
        let status = std::process::Command::new(myself).arg(part).status().expect("it starts again");
        assert!(status.success(), "{part} failed");
    }
}
