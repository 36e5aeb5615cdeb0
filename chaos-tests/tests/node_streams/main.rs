//! Logs, exec and port-forward through API server, node's server and containerd, with `kubectl`: over SPDY, as old ones
//! speak, and over WebSockets.

mod kube_rs;
mod pki;
mod runtime;
mod world;

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use self::world::{LIMIT, World};

/// All of it in one world, which takes a second to make.
#[tokio::test(flavor = "multi_thread")]
async fn containers_are_spoken_to() {
    if let Some(why) = runtime::missing() {
        println!("ignored: {why}");
        return;
    }
    let world = World::start().await;
    logs(&world).await;
    for web_sockets in [false, true] {
        commands(&world, web_sockets).await;
        attached(&world, web_sockets).await;
        ports(&world, web_sockets).await;
    }
    for web_sockets in [false, true] {
        terminals(&world, web_sockets).await;
    }
    kube_rs::speaks(&world).await;
    old_web_sockets(&world).await;
    refusals(&world).await;
    absent(&world).await;
    proxies(&world).await;
    pages(&world).await;
    follow(&world).await;
    world.stop().await;
}

async fn logs(world: &World) {
    let (code, out, err) = world.admin(true, &["logs", "p"]).await;
    assert_eq!((code, out.as_str()), (0, "one\ntwo\nthree\n"), "{err}");
    let (_, out, _) = world.admin(true, &["logs", "p", "--tail=1"]).await;
    assert_eq!(out, "three\n");
    let (_, out, _) = world.admin(true, &["logs", "p", "--limit-bytes=5"]).await;
    assert_eq!(out, "one\nt");
    let (_, out, _) = world.admin(true, &["logs", "p", "--timestamps"]).await;
    assert!(out.lines().count() == 3 && out.lines().all(|line| line.contains("Z ")), "{out}");
    let (code, _, err) = world.admin(true, &["logs", "p", "--previous"]).await;
    let wanted = "previous terminated container \"c\" in pod \"p\" not found";
    assert!(code == 1 && err.contains(wanted), "{err}");
    let (code, _, err) = world.admin(true, &["logs", "p", "-c", "x"]).await;
    assert!(code == 1 && err.contains("container x is not valid for pod p"), "{err}");
}

async fn commands(world: &World, web_sockets: bool) {
    let how = if web_sockets { "WebSockets" } else { "SPDY" };
    let (code, out, err) =
        world.admin(web_sockets, &["exec", "p", "--", "sh", "-c", "echo a; echo b >&2; exit 7"]).await;
    assert_eq!((code, out.as_str()), (7, "a\n"), "{how}: {err}");
    assert!(err.starts_with("b\n") && err.contains("command terminated with exit code 7"), "{how}: {err}");
    // The end of the input is the end of the command.
    let command = world.kubectl("admin-token", web_sockets, &["exec", "-i", "p", "--", "cat"]);
    let input = vec![b'x'; 3 << 20];
    let (code, out, err) = world.ran(command, &input).await;
    assert!(code == 0 && out.as_bytes() == input, "{how}: {} bytes of {}: {err}", out.len(), input.len());
    let (code, out, err) =
        world.admin(web_sockets, &["exec", "p", "--", "dd", "if=/dev/zero", "bs=1000", "count=2000"]).await;
    assert!(code == 0 && out.len() == 2_000_000, "{how}: {} bytes: {err}", out.len());
    let (code, _, err) = world.admin(web_sockets, &["exec", "p", "--", "absent"]).await;
    assert!(code != 0 && err.contains("absent"), "{how}: {err}");
    let (code, _, err) = world.admin(web_sockets, &["exec", "p", "-c", "x", "--", "sh"]).await;
    assert!(code != 0 && err.contains("container x is not valid for pod p"), "{how}: {err}");
}

/// What a container says while somebody listens.
async fn attached(world: &World, web_sockets: bool) {
    let mut child =
        world.kubectl("admin-token", web_sockets, &["attach", "ticker"]).spawn().expect("kubectl is installed");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for _ in 0..3 {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("in time").expect("text");
        assert_eq!(line.as_deref(), Some("tick"), "web sockets {web_sockets}");
    }
    child.kill().await.expect("it runs");
}

/// Asks busybox's httpd, which runs within, through a port of ours.
async fn ports(world: &World, web_sockets: bool) {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let inner = free.local_addr().expect("bound").port().to_string();
    drop(free);
    let httpd = ["exec", "p", "--", "httpd", "-p", &format!("127.0.0.1:{inner}"), "-h", "/www"];
    let (code, _, err) = world.admin(web_sockets, &httpd).await;
    assert_eq!(code, 0, "{err}");
    let mut command = world.kubectl("admin-token", web_sockets, &["port-forward", "p", &format!(":{inner}")]);
    let mut child = command.spawn().expect("kubectl is installed");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let first = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("in time").expect("text");
    let Some(first) = first else {
        let output = child.wait_with_output().await.expect("it ended");
        panic!("web sockets {web_sockets}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let port: u16 = first
        .split(['>', ' '])
        .find_map(|word| word.rsplit_once(':'))
        .and_then(|(_, port)| port.parse().ok())
        .expect("a port");
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.expect("it is taken");
        let mut page = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut page)).await.expect("in time").expect("text");
        assert!(page.ends_with("hello from within\n"), "web sockets {web_sockets}: {page}");
    }
    child.kill().await.expect("it runs");
}

/// A terminal has the size of the client's.
async fn terminals(world: &World, web_sockets: bool) {
    let kubectl = world.kubectl("admin-token", web_sockets, &["exec", "-it", "p", "--", "sh", "-c"]);
    let kubectl = kubectl.as_std();
    let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
    let line = words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
    // The size comes a moment after the process.
    let wait = "for i in 1 2 3 4 5; do stty size; sleep 0.1; done";
    let mut command = tokio::process::Command::new("script");
    command.args(["-qec", &format!("stty rows 33 cols 77; {line} \"{wait}\""), "/dev/null"]);
    command.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("in time").expect("script is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("33 77"), "web sockets {web_sockets}: {text}");
}

/// WebSockets of before version 5 are led to the runtime as they are; those of logs end here.
async fn old_web_sockets(world: &World) {
    let at = |path: &str, protocol: &str| {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-s", "-i", "-N", "--http1.1", "--max-time", "10", "--cacert", &world.pki.path("ca.crt")]);
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned();
        let token = "Authorization: Bearer admin-token".to_owned();
        let version = "Sec-WebSocket-Version: 13".to_owned();
        let protocol = format!("Sec-WebSocket-Protocol: {protocol}");
        for header in ["Connection: Upgrade".to_owned(), "Upgrade: websocket".to_owned(), key, token, version, protocol]
        {
            command.args(["-H", &header]);
        }
        command.arg(format!("https://127.0.0.1:{}{path}", world.port));
        async move { String::from_utf8_lossy(&command.output().await.expect("curl is installed").stdout).into_owned() }
    };
    let opened = |path: &str, protocol: &str| at(&format!("/api/v1/namespaces/default/pods/p/{path}"), protocol);
    let said = opened("exec?command=echo&command=old&stdout=true&stderr=true", "v4.channel.k8s.io").await;
    assert!(said.starts_with("HTTP/1.1 101 ") && said.contains("\u{1}old\n"), "{said}");
    assert!(said.contains("\u{3}{\"metadata\":{},\"status\":\"Success\"}"), "{said}");
    // A token among the protocols is for the API server, and nobody else is shown it.
    let secret = "base64url.bearer.authorization.k8s.io.YWRtaW4tdG9rZW4, v4.channel.k8s.io";
    let said = opened("exec?command=echo&command=old&stdout=true", secret).await;
    assert!(said.contains("\u{1}old\n") && !said.contains("bearer"), "{said}");
    // Past the pod, through the proxy of its node.
    let past = "/api/v1/nodes/n/proxy/exec/default/p/c?command=echo&command=past&output=1";
    let said = at(past, "v4.channel.k8s.io").await;
    assert!(said.starts_with("HTTP/1.1 101 ") && said.contains("\u{1}past\n"), "{said}");
    let said = opened("log", "base64.binary.k8s.io").await;
    assert!(said.starts_with("HTTP/1.1 101 ") && said.contains("b25lCnR3bwp0aHJlZQo="), "{said}");
    let said = opened("exec?command=echo&stdout=true", "nonsense").await;
    assert!(!said.starts_with("HTTP/1.1 101 "), "{said}");
}

/// A node that is not there.
async fn absent(world: &World) {
    for web_sockets in [false, true] {
        let (code, _, err) = world.admin(web_sockets, &["exec", "lost", "--", "sh"]).await;
        assert!(
            code == 1 && err.contains("dialing backend: dial tcp 127.0.0.1:1: connect: connection refused"),
            "{err}"
        );
    }
    let (code, _, err) = world.admin(true, &["logs", "lost"]).await;
    let wanted =
        "Get \"https://127.0.0.1:1/containerLogs/default/lost/c?\": dial tcp 127.0.0.1:1: connect: connection refused";
    assert!(code == 1 && err.contains(wanted), "{err}");
    let (code, _, err) = world.admin(true, &["get", "--raw", "/api/v1/nodes/lost/proxy/pods"]).await;
    assert!(code == 1 && err.contains("error trying to reach service: dial tcp 127.0.0.1:1"), "{err}");
    // Nor is anything said to a server that isn't the node's, except by whoever doesn't care.
    let (code, _, err) = world.admin(true, &["get", "--raw", "/api/v1/nodes/false/proxy/healthz"]).await;
    assert!(code == 1 && err.contains("tls: invalid peer certificate"), "{err}");
    let (code, _, err) = world.admin(true, &["logs", "twin"]).await;
    assert!(code == 1 && err.contains("tls: invalid peer certificate"), "{err}");
    let (code, _, err) = world.admin(true, &["logs", "twin", "--insecure-skip-tls-verify-backend"]).await;
    assert!(code == 1 && err.contains("pod \"twin\" does not exist"), "{err}");
    // A pod without a node has written nothing, and nobody can speak to it.
    let (code, out, err) = world.admin(true, &["logs", "waiting"]).await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let (code, _, err) = world.admin(true, &["exec", "waiting", "--", "sh"]).await;
    assert!(code == 1 && err.contains("pod waiting does not have a host assigned"), "{err}");
}

/// Pages of a pod and of a service, at an address that isn't this machine's alone.
async fn pages(world: &World) {
    let Some(address) = world.address().await else {
        println!("ignored: proxies of pods, the machine has no address");
        return;
    };
    let httpd = ["exec", "p", "--", "httpd", "-p", &format!("{address}:{}", world.page_port), "-h", "/www"];
    assert_eq!(world.admin(false, &httpd).await.0, 0);
    for place in [format!("pods/p:{}", world.page_port), "services/s:web".to_owned(), "services/s:80".to_owned()] {
        let before = format!("/api/v1/namespaces/default/{place}/proxy");
        let raw = |path: &'static str| {
            let path = format!("{before}{path}");
            async move { world.admin(true, &["get", "--raw", &path]).await }
        };
        let (code, out, err) = raw("/index.html").await;
        assert_eq!((code, out.as_str()), (0, "hello from within\n"), "{place}: {err}");
        assert_eq!(raw("/link.html").await.1, format!("<a href=\"{before}/rewriteme\">test</a>\n"));
        // Followed to where it leads, through the proxy again.
        assert_eq!(raw("").await.1, "hello from within\n", "{place}");
        assert_eq!(raw("/absent").await.0, 1);
    }
    let (code, _, err) =
        world.admin(true, &["get", "--raw", "/api/v1/namespaces/default/services/s:other/proxy/"]).await;
    assert!(code == 1 && err.contains("no endpoints available for service \"s\""), "{err}");
}

async fn refusals(world: &World) {
    for web_sockets in [false, true] {
        let command = world.kubectl("ann-token", web_sockets, &["exec", "p", "--", "sh"]);
        let (code, _, err) = world.ran(command, b"").await;
        assert!(code != 0 && err.contains("orbidden"), "{err}");
    }
    // Nobody comes past the API server without a right of his own.
    let get = |args: &'static [&'static str]| async move {
        let mut command = tokio::process::Command::new("curl");
        let url = format!("https://127.0.0.1:{}", world.kubelet_port);
        let show = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &world.pki.path("ca.crt")];
        command.args(show).args(args).arg(format!("{url}/pods"));
        String::from_utf8(command.output().await.expect("curl is installed").stdout).expect("text")
    };
    assert_eq!(get(&[]).await, "401");
    assert_eq!(get(&["-H", "Authorization: Bearer nonsense"]).await, "401");
    assert_eq!(get(&["-H", "Authorization: Bearer ann-token"]).await, "403");
    assert_eq!(get(&["-H", "Authorization: Bearer admin-token"]).await, "200");
}

async fn proxies(world: &World) {
    let raw = |path: &str| {
        let path = format!("/api/v1/nodes/{path}");
        async move { world.admin(true, &["get", "--raw", &path]).await }
    };
    assert_eq!(raw("n/proxy/healthz").await.1, "ok");
    assert!(raw("n/proxy/pods").await.1.contains("\"kind\":\"PodList\""));
    assert!(raw("n/proxy/stats/summary").await.1.contains("\"nodeName\":\"n\""));
    assert!(raw("n/proxy/metrics/resource").await.1.contains("node_cpu_usage_seconds_total 1"));
    assert!(raw("n/proxy/metrics").await.1.contains("kubelet_running_pods 2"));
    assert!(raw("n/proxy/configz").await.1.contains("KubeletConfiguration"));
    let (code, _, err) = raw("n/proxy/absent").await;
    assert!(code == 1 && err.contains("404") || err.contains("could not find"), "{err}");
    let (code, _, err) = raw("absent/proxy/").await;
    assert!(code == 1 && err.contains("nodes \"absent\" not found"), "{err}");
}

async fn follow(world: &World) {
    let mut command = world.kubectl("admin-token", true, &["logs", "-f", "p", "--tail=1"]);
    let mut child = command.spawn().expect("kubectl is installed");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = async || tokio::time::timeout(LIMIT, lines.next_line()).await.expect("in time").expect("text");
    assert_eq!(next().await.as_deref(), Some("three"));
    for number in 0..3 {
        world.runtime.write_log(&format!("line {number}"));
        assert_eq!(next().await, Some(format!("line {number}")));
    }
    world.runtime.write_log("last");
    world.end_container();
    assert_eq!(next().await.as_deref(), Some("last"));
    assert_eq!(next().await, None);
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    assert!(ended.expect("in time").expect("it ran").success());
}
