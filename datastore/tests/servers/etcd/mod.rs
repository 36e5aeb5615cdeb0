//! What is etcd's alone: clusters whose members die, leases, certificates and logins, other programs on the same keys.

mod agreement;
mod load;
mod others;
mod proxy;
mod server;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k3sd_datastore::{AnyBackend, Backend, Etcd, EtcdOptions, EtcdTls, KeyRange, Remedy, StoreError, Ttl, WatchEnd};
use tokio::net::TcpListener;

use self::load::Load;
use self::server::{EtcdCluster, Setup, quiet_port};
use crate::runner::{Runner, Trial};
use crate::subject::{Subject, count, create, delete, events, get, message, put, revision, text, update, value, watch};

/// The members of the trial that is running. A cluster has one set of keys, so each trial has a cluster.
static CLUSTER: Mutex<Option<EtcdCluster>> = Mutex::new(None);

pub(crate) fn run(runner: &mut Runner) {
    let plain = super::contract(|| Box::pin(async { contract_subject(Setup::single()).await }));
    let secured =
        super::contract(|| Box::pin(async { contract_subject(Setup { tls: true, ..Setup::single() }).await }));
    runner.run_group("etcd", plain, server::available);
    runner.run_group("etcd_tls", secured, server::available);
    *lock() = None;
    let mut trials = vec![
        Trial::new("it_agrees_with_the_store_in_memory", agreement::it_agrees_with_the_store_in_memory),
        Trial::new("a_member_that_is_away_or_silent_is_passed_by", a_member_that_is_away_or_silent_is_passed_by),
        Trial::new("a_socket_will_do", a_socket_will_do),
        Trial::new("certificates_are_demanded_and_checked", certificates_are_demanded_and_checked),
        Trial::new("a_login_is_made_and_renewed", a_login_is_made_and_renewed),
        Trial::new("a_full_store_says_so_and_can_be_read", a_full_store_says_so_and_can_be_read),
        Trial::new("what_is_too_large_is_refused", what_is_too_large_is_refused),
        Trial::new("large_events_come_whole", large_events_come_whole),
        Trial::new("a_restart_in_the_middle_of_load_loses_nothing", a_restart_in_the_middle_of_load_loses_nothing),
        Trial::new("members_die_in_the_middle_of_load", members_die_in_the_middle_of_load),
        Trial::new("a_member_that_freezes_is_left", a_member_that_freezes_is_left),
        Trial::new("without_a_cluster_the_patience_ends", without_a_cluster_the_patience_ends),
        Trial::new("a_cluster_that_begins_anew_ends_watches", a_cluster_that_begins_anew_ends_watches),
        Trial::new("without_its_background_a_store_is_closed", without_its_background_a_store_is_closed),
    ];
    trials.extend(others::trials());
    runner.run_group("etcd", trials, server::available);
}

fn lock() -> std::sync::MutexGuard<'static, Option<EtcdCluster>> {
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or(String::new(), |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

async fn try_open(endpoints: Vec<String>, tls: EtcdTls) -> Result<AnyBackend, StoreError> {
    let options = EtcdOptions { tls, ..EtcdOptions::new(endpoints) };
    Ok(AnyBackend::new(Etcd::open(options).await?))
}

async fn open(cluster: &EtcdCluster) -> AnyBackend {
    let opened = try_open(cluster.endpoints(), cluster.tls()).await;
    opened.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// A store on a cluster that lives until the next trial.
async fn contract_subject(setup: Setup) -> Subject {
    *lock() = None;
    let cluster = EtcdCluster::start(setup).unwrap();
    let store = open(&cluster).await;
    *lock() = Some(cluster);
    Subject { store, directory: None }
}

fn single() -> EtcdCluster {
    EtcdCluster::start(Setup::single()).unwrap()
}

async fn a_member_that_is_away_or_silent_is_passed_by() {
    let cluster = single();
    // Nobody listens at the first. At the second somebody takes the connection and says nothing.
    let away = format!("http://127.0.0.1:{}", quiet_port().unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let store = try_open(vec![away, silent, cluster.endpoint(0)], EtcdTls::default()).await.unwrap();
    create(&store, "a", "1").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let began = Instant::now();
    for number in 0..20 {
        put(&store, "a", &number.to_string()).await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the member that answers is remembered: {:?}", began.elapsed());
}

async fn a_socket_will_do() {
    let cluster = EtcdCluster::start(Setup { unix: true, ..Setup::single() }).unwrap();
    let store = try_open(vec![cluster.socket()], EtcdTls::default()).await.unwrap();
    let mut watcher = watch(&store, "", None).await;
    create(&store, "a", "1").await;
    assert_eq!(events(&mut watcher, 1).await.len(), 1);
}

async fn certificates_are_demanded_and_checked() {
    let cluster = EtcdCluster::start(Setup { tls: true, ..Setup::single() }).unwrap();
    // Once it is there, whatever is wrong is wrong with us.
    create(&open(&cluster).await, "a", "1").await;
    let right = cluster.tls();
    let wrong_authority = EtcdTls { ca: Some(cluster.path("stranger.crt")), ..right.clone() };
    let machines_authorities = EtcdTls { ca: None, ..right.clone() };
    let no_certificate = EtcdTls { cert: None, key: None, ..right.clone() };
    let no_file = EtcdTls { ca: Some(cluster.path("nothing.crt")), ..right.clone() };
    let no_key = EtcdTls { key: None, ..right.clone() };
    for (tls, word) in [
        (wrong_authority, "certificate"),
        (machines_authorities, "certificate"),
        (no_certificate, "certificate"),
        (no_file, "nothing.crt"),
        (no_key, "together"),
    ] {
        let began = Instant::now();
        let error = try_open(cluster.endpoints(), tls.clone()).await.expect_err("it must not open");
        assert!(began.elapsed() < Duration::from_secs(2), "at once: {:?}", began.elapsed());
        let text = chain(&error).to_lowercase();
        assert!(text.contains(word) && matches!(error, StoreError::Database { .. }), "{tls:?}: {text}");
    }
    let blind = EtcdTls { ca: None, skip_verify: true, ..right };
    assert_eq!(text(&try_open(cluster.endpoints(), blind).await.unwrap(), "a", None).await.as_deref(), Some("1"));
}

async fn a_login_is_made_and_renewed() {
    let mut cluster = single();
    drop(open(&cluster).await);
    for arguments in [
        &["user", "add", "root:p@ss"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "some:where"],
        &["role", "add", "some"],
        &["role", "grant-permission", "some", "readwrite", "/some/", "/some0"],
        &["user", "grant-role", "some", "some"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl(arguments, "").unwrap();
    }
    let endpoint = cluster.endpoint(0);
    let with = |login: &str| vec![endpoint.replace("://", &format!("://{login}@"))];
    let store = try_open(with("root:p%40ss"), EtcdTls::default()).await.unwrap();
    let mut watcher = watch(&store, "", None).await;
    create(&store, "a", "1").await;
    // A token does not outlive the member that gave it.
    cluster.kill(0);
    cluster.resume(0);
    let last = put(&store, "a", "2").await;
    assert_eq!(events(&mut watcher, 2).await[1].revision(), last);
    // The right to some keys is not enough.
    for login in ["root:hunter2", "some:where"] {
        let began = Instant::now();
        let error = try_open(with(login), EtcdTls::default()).await.expect_err(login);
        assert!(began.elapsed() < Duration::from_secs(2), "at once: {:?}", began.elapsed());
        let text = chain(&error);
        assert!(matches!(error, StoreError::Database { .. }) && !text.contains("hunter2"), "{login}: {text}");
    }
    let error = try_open(vec![endpoint], EtcdTls::default()).await.expect_err("nobody");
    assert!(matches!(error, StoreError::Database { .. }), "{}", chain(&error));
}

async fn a_full_store_says_so_and_can_be_read() {
    let cluster = EtcdCluster::start(Setup { quota_bytes: Some(16 << 20), ..Setup::single() }).unwrap();
    let store = open(&cluster).await;
    let big = "x".repeat(1 << 20);
    let mut written = 0;
    let error = loop {
        match store.create(format!("k{written}").into(), value(&big), Ttl::NONE).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 40, "more than there is room for");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{}", chain(&error));
    assert_eq!(error.remedy(), Remedy::Retry);
    let leased = store.create("leased".into(), value(""), Ttl::seconds(60)).await;
    assert!(matches!(leased, Err(StoreError::Full { .. })), "{leased:?}");
    // The one with which it became full was applied before etcd compared sizes, or was refused at the door; those after it
    // were refused.
    let was_applied = get(&store, &format!("k{written}"), None).await.is_some();
    assert_eq!(count(&store, KeyRange::all(), None).await, if was_applied { written + 1 } else { written });
    assert_eq!(get(&store, "leased", None).await, None);
    assert!(store.status().await.unwrap().size_bytes > 8 << 20);
    delete(&store, "k0").await;
}

async fn what_is_too_large_is_refused() {
    let cluster = single();
    let store = open(&cluster).await;
    for megabytes in [2, 5] {
        let error = store.create("a".into(), vec![7; megabytes << 20].into(), Ttl::NONE).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::Correct, "{megabytes} MiB: {}", chain(&error));
    }
    assert_eq!(get(&store, "a", None).await, None);
}

/// Answers that etcd sends in parts, and that are greater than what gRPC takes by default.
async fn large_events_come_whole() {
    const COUNT: usize = 24;
    let cluster = single();
    let store = open(&cluster).await;
    let start = revision(&store).await;
    let mut live = watch(&store, "", Some(start.next())).await;
    let big = "x".repeat(1_000_000);
    for number in 0..COUNT {
        put(&store, "a", &format!("{number}{big}")).await;
    }
    let live = events(&mut live, COUNT).await;
    let past = events(&mut watch(&store, "", Some(start.next())).await, COUNT).await;
    assert!(live == past && live.len() == COUNT);
    for (number, event) in live.iter().enumerate() {
        assert!(event.kv.value.starts_with(number.to_string().as_bytes()) && event.kv.value.len() > big.len());
        assert_eq!(event.prev.is_some(), number > 0);
    }
    for number in 0..12 {
        create(&store, &format!("/l/{number:02}"), &big).await;
    }
    let listed = store.list(k3sd_datastore::ListRequest::new(KeyRange::prefix("/l/"))).await.unwrap();
    assert_eq!((listed.kvs.len(), listed.more), (12, false));
}

async fn a_restart_in_the_middle_of_load_loses_nothing() {
    let mut cluster = single();
    let store = open(&cluster).await;
    let mut load = Load::start(&store).await;
    for _ in 0..3 {
        load.more(400).await;
        cluster.kill(0);
        cluster.resume(0);
    }
    load.more(400).await;
    let (written, unknown) = load.check().await;
    println!("three restarts: {written} writes, {unknown} unknown outcomes");
}

async fn members_die_in_the_middle_of_load() {
    let mut cluster = EtcdCluster::start(Setup { members: 3, ..Setup::default() }).unwrap();
    let store = open(&cluster).await;
    let mut load = Load::start(&store).await;
    load.more(200).await;
    // The one we talk to first, whatever it is; then whoever leads; then it again.
    let mut longest = Duration::ZERO;
    for round in 0..3 {
        let victim = if round == 0 { 0 } else { leader(&cluster).await };
        cluster.kill(victim);
        let began = Instant::now();
        load.more(1).await;
        longest = longest.max(began.elapsed());
        load.more(200).await;
        cluster.resume(victim);
        load.more(200).await;
    }
    let (written, unknown) = load.check().await;
    println!("three deaths: {written} writes, {unknown} unknown outcomes, the next one after {longest:?} at most");
}

async fn a_member_that_freezes_is_left() {
    let cluster = EtcdCluster::start(Setup { members: 3, ..Setup::default() }).unwrap();
    let store = open(&cluster).await;
    let mut load = Load::start(&store).await;
    load.more(200).await;
    // The one that calls and events go to, and the leader if that is another one.
    let leader = leader(&cluster).await;
    cluster.freeze(0, true);
    let began = Instant::now();
    load.more(200).await;
    let pause = began.elapsed();
    cluster.freeze(0, false);
    load.more(200).await;
    let (written, unknown) = load.check().await;
    println!("member 0 froze (leader {leader}): {written} writes, {unknown} unknown, 200 more in {pause:?}");
    assert!(pause < Duration::from_secs(20), "{pause:?}");
}

async fn leader(cluster: &EtcdCluster) -> usize {
    loop {
        // A member that has just come back may not answer yet.
        if let Some(leader) = cluster.leader() {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn without_a_cluster_the_patience_ends() {
    let mut cluster = single();
    let patience = Duration::from_secs(1);
    let options = EtcdOptions { patience, ..EtcdOptions::new(cluster.endpoints()) };
    drop(open(&cluster).await);
    let store = Etcd::open(options.clone()).await.unwrap();
    create(&store, "a", "1").await;
    cluster.kill(0);
    let mut failures = Vec::new();
    for _ in 0..2 {
        failures.push(store.create("b".into(), value("1"), Ttl::NONE).await.map(drop));
    }
    failures.push(store.status().await.map(drop));
    failures.push(Etcd::open(options).await.map(drop));
    for failure in failures {
        // What was sent to a member that was about to vanish is honestly unknown.
        assert!(matches!(failure, Err(StoreError::Unreachable { .. } | StoreError::Unknown { .. })), "{failure:?}");
    }
    cluster.resume(0);
    let opened = open(&cluster).await;
    assert_eq!(text(&opened, "a", None).await.as_deref(), Some("1"));
    put(&store, "a", "2").await;
}

async fn a_cluster_that_begins_anew_ends_watches() {
    let mut cluster = single();
    let store = open(&cluster).await;
    let mut watcher = watch(&store, "", None).await;
    for number in 0..5 {
        put(&store, "a", &number.to_string()).await;
    }
    let last = events(&mut watcher, 5).await[4].revision();
    store.compact(last).await.unwrap();
    cluster.kill(0);
    cluster.wipe(0);
    cluster.resume(0);
    let end = message(&mut watcher).await.unwrap_err();
    assert!(matches!(end, WatchEnd::Closed { .. }), "{end:?}");
    assert_eq!(store.status().await.unwrap().compacted.get(), 0, "it has its whole, short history");
    assert_eq!(count(&store, KeyRange::all(), None).await, 0);
    let mut watcher = watch(&store, "", None).await;
    let created = create(&store, "a", "1").await;
    assert_eq!(created.get(), 2);
    assert_eq!(events(&mut watcher, 1).await[0].revision(), created);
}

async fn without_its_background_a_store_is_closed() {
    let cluster = single();
    drop(open(&cluster).await);
    let (store, background) = Etcd::assemble(EtcdOptions::new(cluster.endpoints())).await.unwrap();
    let running = tokio::spawn(background.run());
    let created = create(&store, "a", "1").await;
    let mut watcher = watch(&store, "", None).await;
    running.abort();
    assert!(matches!(message(&mut watcher).await, Err(WatchEnd::Closed { .. })));
    let updated = store.update("a".into(), created, value("2"), Ttl::NONE).await;
    assert!(matches!(updated, Err(StoreError::Closed | StoreError::Unknown { .. })), "{updated:?}");
    assert!(matches!(store.status().await, Err(StoreError::Closed)));
    assert_eq!(text(&open(&cluster).await, "a", None).await.as_deref(), Some("1"));
    update(&open(&cluster).await, "a", created, "2").await;
}
