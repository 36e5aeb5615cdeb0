use std::time::SystemTime;

use k3sd_kine::SqliteOptions;

use super::*;
use crate::cli::flags::DEFAULT_INSPECT_SOCKET;

fn environment(vars: &[(&str, &str)]) -> Environment {
    let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
    environment.cwd = "/srv".into();
    environment.vars.extend(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    environment
}

fn parse(words: &[&str], vars: &[(&str, &str)]) -> Result<KineOptions, String> {
    let words = ["kine"].iter().chain(words);
    let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
    read(&matches, &environment(vars), false).map_err(|error| error.to_string())
}

fn sqlite(kine: &KineConfig) -> &SqliteOptions {
    match &kine.store {
        StoreConfig::Sqlite(options) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_those_of_kine() {
    let options = parse(&[], &[]).expect("nothing is needed");
    assert_eq!(sqlite(&options.kine).path, PathBuf::from("/srv/./db/state.db"));
    assert_eq!(sqlite(&options.kine).retained_revisions_min, 1000);
    assert_eq!(options.kine.compact.interval, Duration::from_secs(300));
    assert_eq!(options.kine.progress_interval, Duration::from_secs(5));
    assert_eq!(options.listen, "0.0.0.0:2379".parse().expect("an address"));
    assert_eq!(options.inspect.socket, PathBuf::from(DEFAULT_INSPECT_SOCKET));
    assert!(options.warnings.is_empty() && !options.inspect.actor_control && !options.log.debug);
}

#[test]
fn a_flag_wins_over_its_variable() {
    let vars = [("KINE_COMPACT_INTERVAL", "1h"), ("KINE_COMPACT_MIN_RETAIN", "7"), ("KINE_DEBUG", "true")];
    let words = [
        "--endpoint",
        "sqlite:///x.db?_journal_mode=WAL",
        "--listen-address",
        "unix://k",
        "--compact-interval=0",
        "--log-format=json",
        "--debug-actor-control",
    ];
    let options = parse(&words, &vars).expect("all of it is fine");
    assert_eq!(options.kine.compact.interval, Duration::ZERO);
    assert_eq!(sqlite(&options.kine).retained_revisions_min, 7);
    assert_eq!(sqlite(&options.kine).path, PathBuf::from("/x.db"));
    assert_eq!(options.listen, ListenAddress::Unix("/srv/k".into()));
    assert_eq!((options.log.format, options.log.debug), (LogFormat::Json, true));
    assert!(options.inspect.actor_control);
}

#[test]
fn tls_for_clients() {
    let vars = [("KINE_SERVER_CERT_FILE", "c"), ("KINE_SERVER_KEY_FILE", "/k")];
    let options = parse(&["--listen-address=unixs://kine.sock"], &vars).expect("all of it is fine");
    assert_eq!(options.listen, ListenAddress::Unix("/srv/kine.sock".into()));
    assert_eq!(options.tls, Some(ServerTls { cert: "/srv/c".into(), key: "/k".into(), client_ca: None }));
}

#[test]
fn numbers_are_served_unless_that_is_switched_off() {
    let metrics = |words: &[&str]| parse(words, &[]).expect("all of it is fine").metrics;
    let usual = metrics(&[]).expect("they are served");
    assert_eq!((usual.address, usual.demanded), ("0.0.0.0:8080".parse().expect("an address"), false));
    assert_eq!(metrics(&["--metrics-bind-address=0"]), None);
    let files = ["--server-cert-file=/c", "--server-key-file=/k", "--metrics-bind-address=[::1]:1"];
    let safe = metrics(&files).expect("they are served");
    assert!(safe.demanded && safe.tls.is_some());
    let open = metrics(&[&files[..], &["--metrics-ignore-tls-config"]].concat()).expect("they are served");
    assert_eq!(open.tls, None);
}

#[test]
fn a_server_gets_its_files_and_its_pool() {
    let words = ["--endpoint=postgres://db/", "--ca-file=ca.crt", "--datastore-max-open-connections=3"];
    let options = parse(&words, &[("KINE_SKIP_VERIFY", "0")]).expect("all of it is fine");
    let StoreConfig::Postgres(postgres) = options.kine.store else { panic!("{:?}", options.kine.store) };
    assert_eq!((postgres.tls.ca, postgres.readers), (Some("/srv/ca.crt".into()), 2));
    for (words, store) in [(["--endpoint=memory://"], "memory"), (["--endpoint=litestream://x"], "sqlite")] {
        assert_eq!(parse(&words, &[]).expect("it is one").kine.store.word(), store);
    }
}

#[test]
fn the_history_of_an_etcd_cluster_is_not_dropped_unasked() {
    let interval = |words: &[&str]| parse(words, &[]).expect("all of it is fine").kine.compact.interval;
    assert_eq!(interval(&["--endpoint=http://a:2379"]), Duration::ZERO);
    assert_eq!(interval(&["--endpoint=http://a:2379", "--compact-interval=5m"]), Duration::from_secs(300));
}

#[test]
fn a_server_of_kubernetes_takes_the_variables_but_for_compaction() {
    let vars = [("KINE_COMPACT_INTERVAL", "1h"), ("KINE_COMPACT_MIN_RETAIN", "7"), ("KINE_ENDPOINT", "memory://")];
    let server = |vars: &[_]| for_server("sqlite://x.db", StoreTls::default(), &environment(vars));
    let (kine, warnings) = server(&vars).expect("all of it is fine");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((kine.compact.interval, sqlite(&kine).retained_revisions_min), (Duration::ZERO, 7));
    assert_eq!(sqlite(&kine).path, PathBuf::from("/srv/x.db"));
    let (_, warnings) = server(&[("KINE_POLL_BATCH_SIZE", "100")]).expect("it is accepted");
    assert!(warnings[0].starts_with("environment variable KINE_POLL_BATCH_SIZE has no effect: "), "{warnings:?}");
    for (name, value) in [("KINE_S3_BUCKET", "b"), ("KINE_COMPACT_MIN_RETAIN", "many"), ("KINE_SKIP_VERIFY", "x")] {
        let error = server(&[(name, value)]).expect_err(name).to_string();
        assert!(error.starts_with(&format!("environment variable {name}: ")), "{error}");
    }
}

#[test]
fn what_has_no_effect_is_said_and_what_can_not_be_had_is_refused() {
    let vars = [("KINE_POLL_BATCH_SIZE", "100"), ("KINE_COMPACT_TIMEOUT", "5s")];
    let options = parse(&[], &vars).expect("it is accepted");
    assert_eq!(options.warnings.len(), 1, "{:?}", options.warnings);
    assert!(options.warnings[0].starts_with("--poll-batch-size has no effect: "), "{:?}", options.warnings);
    for (words, vars, flag) in [
        (["--identity-provider=aws"].as_slice(), [].as_slice(), "--identity-provider: "),
        (&[], &[("KINE_S3_BUCKET", "b")], "--s3-bucket: "),
        (&["--compact-interval-jitter", "101"], &[], "--compact-interval-jitter: "),
        (&["--listen-address", "ftp://x"], &[], "--listen-address: "),
        (&["--log-format", "xml"], &[], "--log-format: "),
        (&["--skip-verify=perhaps"], &[], "--skip-verify: "),
        (&["--listen-address", "https://:2379"], &[], "--listen-address: "),
        (&["--metrics-bind-address=unix:///x"], &[], "--metrics-bind-address: "),
        (&["--metrics-bind-address=1"], &[], "--metrics-bind-address: "),
        (&["--metrics-enable-profiling"], &[], "--metrics-enable-profiling: "),
        (&["--server-cert-file=c"], &[], "--server-cert-file: "),
        (&["--trusted-ca-file=c"], &[("KINE_SERVER_KEY_FILE", "k")], "--server-key-file: "),
        (&["--trusted-ca-file=c"], &[], "--trusted-ca-file: "),
        (&["--endpoint", "root:hunter2"], &[], "--endpoint: "),
        (&["--endpoint", "mysql://hunter2"], &[], "--endpoint: "),
    ] {
        let error = parse(words, vars).expect_err(flag);
        assert!(error.starts_with(flag) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn help_names_every_flag_that_can_be_used() {
    let help = command().render_long_help().to_string();
    // The one for details is the whole program's, and its name begins another's.
    for row in ROWS.iter().filter(|row| row.name != "debug") {
        let shown = !matches!(row.effect, Effect::Refused(_));
        assert_eq!(help.contains(&format!("--{}", row.name)), shown, "{}", row.name);
    }
}
