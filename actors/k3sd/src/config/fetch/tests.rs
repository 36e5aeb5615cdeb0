//! Fetching from servers that misbehave. Those that behave are met by the whole program, in `tests/cli.rs`.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Takes in a request, up to the empty line at its end.
async fn request_on(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("the request is whole"));
    }
    String::from_utf8(request).expect("it is text")
}

/// Fetches from a server that says `answer` to the first request and then, unless told to close, nothing more.
async fn fetch_from(answer: &str, closes: bool) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = Url::parse(&format!("http://{}/c.yaml", listener.local_addr().expect("it is bound"))).expect("a URL");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("somebody comes");
        request_on(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.expect("it is taken");
        if !closes {
            std::future::pending::<()>().await;
        }
        drop(stream);
        std::future::pending::<()>().await;
    };
    let nothing = BTreeMap::new();
    tokio::select! {
        fetched = within_time(&url, &nothing) => {
            fetched.map(|bytes| String::from_utf8(bytes).expect("it is text")).map_err(|error| error.to_string())
        }
        () = serve => unreachable!("it serves for ever"),
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_stop_talking_are_given_up() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nd"] {
        let error = fetch_from(answer, false).await.expect_err("it never ends");
        assert_eq!(error, "no whole answer within 10 s; check the host and the network", "{answer:?}");
    }
}

#[tokio::test]
async fn answers_cut_short_or_not_in_http_are_broken() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nd";
    for answer in ["", cut, "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"] {
        let error = fetch_from(answer, true).await.expect_err(answer);
        assert!(error.starts_with("the server's answer is broken; "), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn files_of_all_framings_are_taken_whole() {
    let rows = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na: 1", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na:\r\n2\r\n 1\r\n0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\n\r\na: 1", true),
    ];
    for (answer, closes) in rows {
        assert_eq!(fetch_from(answer, closes).await.as_deref(), Ok("a: 1"), "{answer}");
    }
}

#[tokio::test]
async fn long_files_are_refused_whether_announced_or_not() {
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n";
    let error = fetch_from(announced, false).await.expect_err("it is too long");
    assert!(error.starts_with("the file is longer than 1048576 bytes; "), "{error}");
    let exact = "#".repeat(BYTES_MAX);
    assert_eq!(
        fetch_from(&format!("HTTP/1.0 200 OK\r\n\r\n{exact}"), true).await.map(|text| text.len()),
        Ok(BYTES_MAX)
    );
    let error = fetch_from(&format!("HTTP/1.0 200 OK\r\n\r\n{exact}#"), true).await.expect_err("it is too long");
    assert!(error.starts_with("the file is longer than 1048576 bytes; "), "{error}");
}

#[tokio::test]
async fn other_answers_than_a_file_name_their_status() {
    for answer in ["404 Not Found", "401 Unauthorized", "302 Found", "204 No Content", "503 Service Unavailable"] {
        let error =
            fetch_from(&format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"), false).await.expect_err(answer);
        assert_eq!(error, format!("the server answers {answer}; check the path, user and password"));
    }
}

#[test]
fn no_redirect_leads_from_safety_into_the_open() {
    let safe = Url::parse("https://host/c.yaml").expect("a URL");
    let error = moved(&safe, "http://me:hush@host/c.yaml").expect_err("it is not safe").to_string();
    assert!(error.starts_with("the server redirects from https to http://host/c.yaml, ") && !error.contains("hush"));
    let error = moved(&safe, "file://me:hush@h/etc/shadow").expect_err("it is no page").to_string();
    assert!(error.contains("file://(not shown)@h/etc/shadow") && !error.contains("hush"), "{error}");
}
