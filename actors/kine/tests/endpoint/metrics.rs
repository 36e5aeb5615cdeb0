//! The numbers, as whoever scrapes them gets them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use k3sd_runtime::Signal;

use crate::support::{Server, wait_until};

/// Asks, and answers with everything that came back.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is text");
    answer
}

/// The value of a line.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap_or_else(|error| panic!("{name} {line}: {error}")))
}

#[test]
fn operations_are_counted_under_the_names_of_kine() {
    let server = Server::start();
    for number in 0..5 {
        server.ok(&["put", "k", &number.to_string()]);
    }
    server.ok(&["get", "k"]);
    server.fails(&["get", "k", "--rev", "999"]);
    server.ok(&["compaction", "3"]);
    let answer = ask(&server.metrics, "GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("text/plain; version=0.0.4"), "{answer}");
    let number = |name| value(&answer, name).unwrap_or_else(|| panic!("{name} is missing:\n{answer}"));
    assert_eq!(number("kine_sql_total{error_code=\"\",name=\"write\"}"), 5.0);
    assert_eq!(number("kine_sql_time_seconds_count{error_code=\"\",name=\"write\"}"), 5.0);
    assert_eq!(number("kine_sql_time_seconds_bucket{error_code=\"\",name=\"write\",le=\"+Inf\"}"), 5.0);
    assert!(number("kine_sql_time_seconds_sum{error_code=\"\",name=\"write\"}") > 0.0);
    assert_eq!(number("kine_sql_total{error_code=\"future_revision\",name=\"get\"}"), 1.0);
    assert_eq!(number("kine_compact_total{result=\"success\"}"), 1.0);
    assert_eq!(number("kine_insert_errors_total{retriable=\"true\"}"), 0.0);
    assert_eq!(number("go_sql_open_connections{db_name=\"kine\"}"), 4.0);
    assert!(number("process_resident_memory_bytes") > 1e6);
    // Every name is described, once, before its values.
    for name in ["kine_sql_total", "kine_sql_time_seconds", "go_sql_max_open_connections", "process_open_fds"] {
        assert_eq!(answer.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
    }
}

#[test]
fn the_store_may_die_and_the_numbers_stay() {
    let server = Server::start();
    server.ok(&["put", "k", "v"]);
    assert!(server.tree.system().signal("kine/store", Signal::Kill));
    let written = || value(&ask(&server.metrics, "GET /metrics"), "kine_sql_total{error_code=\"\",name=\"write\"}");
    assert_eq!(written(), Some(1.0), "whether it is open or not");
    wait_until("the store is back", || server.run(&["put", "k", "w"]).status.success());
    assert!(written() >= Some(2.0));
}

#[test]
fn only_metrics_are_there_and_silence_holds_up_nobody() {
    let server = Server::start();
    let silent: Vec<_> = (0..70).map(|_| TcpStream::connect(&server.metrics).expect("it is accepted")).collect();
    // The first of them have all seats; whoever comes then is sent away, and served when there is a seat again.
    drop(silent);
    wait_until("there is a seat", || {
        let mut stream = TcpStream::connect(&server.metrics).expect("it listens");
        let mut answer = [0; 12];
        let asked = stream.write_all(b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"HTTP/1.1 200"
    });
    assert!(ask(&server.metrics, "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(&server.metrics, "POST /metrics").starts_with("HTTP/1.1 405"));
}
