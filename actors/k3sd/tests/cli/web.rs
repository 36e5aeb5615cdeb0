//! Config files on web servers: the real binary against real servers.

use super::server::{Certificate, http, https, page, proxy};
use super::{Ran, Shell};

/// The first line of a request.
fn first_line(request: &str) -> &str {
    request.lines().next().unwrap_or_default()
}

/// Prints the configuration read from a URL; every space run is one space.
#[track_caller]
fn printed(shell: &Shell, url: &str) -> String {
    let Ran { code, out, err } = shell.run(&["server", "-c", url, "--disable-agent", "--print-config"]);
    assert_eq!((code, err.as_str()), (0, ""), "{url}");
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_config_file_comes_from_a_web_server_and_shows_it() {
    let text = "\ndebug: true\nnode-label: [a]\n";
    let answer = |request: &str| match first_line(request) {
        "GET /c.yaml?token=hush HTTP/1.1" if request.contains("authorization: Basic bWU6aHVzaA==") => page(text),
        _ => "HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(),
    };
    let mut shell = Shell::new();
    http(answer, |port| {
        let url = format!("http://me:hush@127.0.0.1:{port}/c.yaml?token=hush");
        let shown = format!("http://127.0.0.1:{port}/c.yaml?(not shown)");
        let out = printed(&shell, &url);
        let parts = [
            format!("# config files: {shown} "),
            format!("config: \"{shown}\" # command line"),
            format!("debug: true # {shown}:2"),
            format!("- a # {shown}:3"),
        ];
        for part in parts {
            assert!(out.contains(&part), "{part}\n{out}");
        }
        assert!(!out.contains("hush"), "{out}");
        shell.set("K3S_CONFIG_FILE", &url);
        let json = shell.run(&["agent", "--server=https://x", "--token=t", "--print-config=json"]).out;
        assert!(json.contains(&format!("\"path\": \"{shown}\"")) && !json.contains("hush"), "{json}");
        assert!(json.contains("\"name\": \"K3S_CONFIG_FILE\""), "{json}");

        shell.set("K3S_CONFIG_FILE", url.replace("hush", "wrong"));
        let line = shell.refused(&["server"]);
        let start = format!("config file {shown} can't be fetched (set by the environment variable K3S_CONFIG_FILE): ");
        assert!(line.starts_with(&start) && line.contains("403 Forbidden") && !line.contains("wrong"), "{line}");
    });
}

#[test]
fn mistakes_in_a_fetched_file_are_one_line_with_url_and_line() {
    let answer = |request: &str| match first_line(request).split(' ').nth(1) {
        Some("/yaml") => page("debug: true\nb: [1, 2\n"),
        Some("/html") => page("<html>\n<p>Please log in: here</p>"),
        Some("/value") => page("https-listen-port: many\n"),
        Some("/bytes") => page("debug: true\n").replace("debug", "d\u{fffd}\u{0}g"),
        Some("/long") => "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n".to_owned(),
        Some("/loop") => "HTTP/1.1 302 Found\r\nLocation: loop\r\n\r\n".to_owned(),
        Some("/away") => "HTTP/1.1 301 Moved Permanently\r\nLocation: ftp://me:hush@h/x\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
    };
    let shell = Shell::new();
    http(answer, |port| {
        let rows = [
            ("yaml", "URL:2:4: unclosed bracket"),
            ("html", "URL:2:17: mapping values are not allowed"),
            ("value", "URL:1: https-listen-port: \"many\" is not a whole number"),
            ("bytes", "URL:1:"),
            ("absent", "config file URL can't be fetched (set by --config): the server answers 404 Not Found; check"),
            ("long", "config file URL can't be fetched (set by --config): the file is longer than 1048576 bytes; "),
            ("loop", "config file URL can't be fetched (set by --config): the server redirects more than 10 times; "),
            (
                "away",
                "config file URL can't be fetched (set by --config): the server redirects to ftp://(not shown)@h/x, ",
            ),
        ];
        for (path, start) in rows {
            let url = format!("http://127.0.0.1:{port}/{path}");
            let line = shell.refused(&["server", "--disable-agent", "--data-dir=data", "--config", &url]);
            assert!(line.replace(&url, "URL").starts_with(start), "{path}: {line}");
        }
    });
    // Nobody listens there any more, or ever did.
    let line = shell.refused(&["agent", "--config", "http://127.0.0.1:1/c.yaml"]);
    assert!(line.contains("127.0.0.1:1 can't be reached; check the host, the port and the network: "), "{line}");
    let line = shell.refused(&["server", "-c", "https://me:hush@/c.yaml"]);
    assert!(line.contains("the URL is wrong: ") && !line.contains("hush"), "{line}");
}

#[test]
fn a_file_that_moved_is_followed() {
    let answer = |request: &str| match first_line(request).split(' ').nth(1) {
        Some("/old/c.yaml") => "HTTP/1.1 307 Temporary Redirect\r\nLocation: ../new/c.yaml\r\n\r\n".to_owned(),
        Some("/new/c.yaml") => {
            "HTTP/1.1 301 Moved Permanently\r\nLocation: /c.yaml\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
        Some("/c.yaml") => page("v: 7\n"),
        _ => "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
    };
    http(answer, |port| {
        let url = format!("http://127.0.0.1:{port}/old/c.yaml");
        // Errors name the address that somebody wrote, which is the one he can change.
        assert!(printed(&Shell::new(), &url).contains(&format!("v: 7 # {url}:1")));
    });
}

#[test]
fn an_encrypted_server_has_to_be_trusted() {
    let mut shell = Shell::new();
    let certificate = Certificate::new(shell.directory.path(), "localhost");
    https(
        &certificate,
        |_| page("debug: true\n"),
        |port| {
            let url = format!("https://localhost:{port}/c.yaml");
            let untrusted = shell.refused(&["server", "-c", &url]);
            let reasons = ["no safe connection to localhost; ", "this machine has no certificate authorities; "];
            assert!(reasons.iter().any(|reason| untrusted.contains(reason)), "{untrusted}");

            shell.set("SSL_CERT_FILE", certificate.authority.display());
            assert!(printed(&shell, &url).contains(&format!("debug: true # {url}:1")));
            let line = shell.refused(&["server", "-c", &format!("https://127.0.0.1:{port}/c.yaml")]);
            assert!(
                line.contains("no safe connection to 127.0.0.1; ") && line.contains("not valid for name"),
                "{line}"
            );

            let empty = shell.file("empty.crt", "");
            shell.set("SSL_CERT_FILE", empty.display());
            let line = shell.refused(&["server", "-c", &url]);
            assert!(line.contains("this machine has no certificate authorities; install ca-certificates"), "{line}");
        },
    );
    http(
        |_| page("debug: true\n"),
        |port| {
            shell.set("SSL_CERT_FILE", certificate.authority.display());
            let line = shell.refused(&["server", "-c", &format!("https://localhost:{port}/c.yaml")]);
            assert!(line.contains("no safe connection to localhost; "), "{line}");
        },
    );
}

#[test]
fn proxies_are_asked_for_the_page_or_for_a_way_through() {
    let mut shell = Shell::new();
    let asked = |request: &str| match first_line(request) {
        "GET http://config.example/c.yaml HTTP/1.1" if request.contains("proxy-authorization: Basic bWU6aHVzaA==") => {
            page("v: 3\n")
        }
        _ => "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_owned(),
    };
    http(asked, |port| {
        shell.set("HTTP_PROXY", format!("http://me:hush@127.0.0.1:{port}"));
        assert!(printed(&shell, "http://config.example/c.yaml").contains("v: 3 # http://config.example/c.yaml:1"));
        shell.set("HTTP_PROXY", format!("127.0.0.1:{port}"));
        let line = shell.refused(&["server", "-c", "http://config.example/c.yaml"]);
        assert!(line.contains("407 Proxy Authentication Required"), "{line}");
    });

    let certificate = Certificate::new(shell.directory.path(), "config.example");
    shell.set("SSL_CERT_FILE", certificate.authority.display());
    let admits = |request: &str| {
        first_line(request) == "CONNECT config.example:443 HTTP/1.1"
            && request.contains("Proxy-Authorization: Basic bWU6aHVzaA==")
    };
    https(
        &certificate,
        |_| page("v: 4\n"),
        |server| {
            proxy(server, admits, |port| {
                shell.set("HTTPS_PROXY", format!("http://me:hush@127.0.0.1:{port}"));
                let url = "https://config.example/c.yaml";
                assert!(printed(&shell, url).contains(&format!("v: 4 # {url}:1")));
                shell.set("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
                let line = shell.refused(&["server", "-c", url]);
                assert!(
                    line.contains(&format!("the proxy 127.0.0.1:{port} refuses the connection with status 407; ")),
                    "{line}"
                );
            });
        },
    );
    shell.set("HTTPS_PROXY", "socks5://127.0.0.1:1080");
    let line = shell.refused(&["server", "-c", "https://config.example/c.yaml"]);
    assert!(line.contains("the environment variable HTTPS_PROXY names no http:// or https:// proxy; "), "{line}");
}

#[test]
fn tools_find_the_data_directory_that_a_fetched_file_names() {
    let mut shell = Shell::new();
    let data = shell.at("data");
    shell.script("data/data/current/bin/ctr", "echo the right one");
    http(
        move |_| page(&format!("data-dir: {}\n", data.display())),
        |port| {
            shell.set("K3S_CONFIG_FILE", format!("http://127.0.0.1:{port}/c.yaml"));
            assert_eq!(shell.run(&["ctr"]).out, "the right one\n");
        },
    );
}
