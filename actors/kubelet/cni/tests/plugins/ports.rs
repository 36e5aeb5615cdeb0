//! Ports of the host, and limits, measured with real connections.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Host, Pod, Space};

const PATIENCE: Duration = Duration::from_secs(3);

/// Who is seen by the pod's server when somebody connects from `from`.
fn seen(from: &Space, to: &str, server: &TcpListener) -> Option<String> {
    let to: std::net::SocketAddr = to.parse().unwrap();
    let client = from.inside(|| TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
    let (_, who) = server.accept().unwrap();
    drop(client);
    Some(who.ip().to_string())
}

fn serve(pod: &Pod, address: &str) -> TcpListener {
    pod.space.inside(|| TcpListener::bind(address).unwrap())
}

/// Somebody beside the host, who knows only the host.
fn outside(host: &Host) -> Space {
    let outside = Space::new().unwrap();
    host.space.run(&["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", &outside.name]);
    for (space, link, last) in [(&host.space, "up0", 1), (&outside, "up1", 2)] {
        space.run(&["ip", "addr", "add", &format!("192.0.2.{last}/24"), "dev", link]);
        space.run(&["ip", "-6", "addr", "add", &format!("2001:db8::{last}/64"), "dev", link, "nodad"]);
        space.run(&["ip", "link", "set", link, "up"]);
    }
    host.space.run(&["ip", "addr", "add", "192.0.2.9/24", "dev", "up0"]);
    host.space.run(&["ip", "link", "set", "lo", "up"]);
    outside
}

pub(crate) fn host_ports(host: &Host) {
    let outside = outside(host);
    let mapping = |host_port: u16, port: u16, protocol: &str, ip: &str| json!({"hostPort": host_port, "containerPort": port, "protocol": protocol, "hostIP": ip});
    let ports = json!({"portMappings": [
        mapping(8080, 80, "tcp", ""), mapping(8081, 80, "tcp", "192.0.2.9"), mapping(5353, 53, "udp", ""), mapping(0, 99, "tcp", ""),
    ]});
    let (pod, other) = (host.add("served", &ports), host.add("other", &json!({})));
    let (v4, v6) = (serve(&pod, "0.0.0.0:80"), serve(&pod, "[::]:81"));
    assert_eq!(seen(&outside, "192.0.2.1:8080", &v4).as_deref(), Some("192.0.2.2"), "the client is seen");
    assert_eq!(seen(&outside, "192.0.2.9:8081", &v4).as_deref(), Some("192.0.2.2"));
    assert_eq!(seen(&outside, "192.0.2.1:8081", &v4), None, "bound to the other address");
    assert!(seen(&host.space, "127.0.0.1:8080", &v4).is_some(), "by loopback");
    assert!(seen(&host.space, "192.0.2.1:8080", &v4).is_some(), "by the host's own address");
    assert_eq!(seen(&other.space, "192.0.2.1:8080", &v4).as_deref(), Some("10.42.1.1"), "a pod beside it");
    assert_eq!(seen(&pod.space, "192.0.2.1:8080", &v4).as_deref(), Some("10.42.1.1"), "the pod itself");
    drop((v4, v6));
    let v6 = serve(&pod, "[::]:80");
    assert_eq!(seen(&outside, "[2001:db8::1]:8080", &v6).as_deref(), Some("2001:db8::2"));
    drop(v6);
    let client = datagrams(&outside, &pod);
    host.each("CHECK", &pod, &ports, &pod.space.path()).unwrap();

    // Another takes the port over; deleting the one that had it takes nothing from the other.
    let taken = json!({"portMappings": [mapping(8080, 80, "tcp", ""), mapping(5353, 53, "udp", "")]});
    let taker = host.add("taker", &taken);
    // The client goes on as before, and the kernel no longer remembers whom it talked to.
    let resolver = taker.space.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"again", "192.0.2.1:5353").unwrap();
    assert_eq!(resolver.recv_from(&mut [0; 16]).unwrap().0, 5);
    assert!(host.each("CHECK", &pod, &ports, &pod.space.path()).is_err());
    let server = serve(&taker, "0.0.0.0:80");
    host.delete(&pod, &ports);
    assert_eq!(seen(&outside, "192.0.2.1:8080", &server).as_deref(), Some("192.0.2.2"));
    host.delete(&taker, &taken);
    assert_eq!(seen(&outside, "192.0.2.1:8080", &server), None);
    host.delete(&other, &json!({}));
    host.assert_clean();
}

/// UDP has no connections to end, so those that the kernel remembers have to be forgotten.
fn datagrams(outside: &Space, pod: &Pod) -> UdpSocket {
    let server = pod.space.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    let client = outside.inside(|| UdpSocket::bind("0.0.0.0:40000").unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"ask", "192.0.2.1:5353").unwrap();
    let mut buffer = [0; 16];
    let (_, who) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", who).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"answer"[..], "192.0.2.1:5353"));
    client
}

/// How long it takes to send so many bytes from one to the other.
#[expect(clippy::disallowed_methods, reason = "real packets take real time")]
fn transfer(from: &Space, to: &Space, address: &str, bytes: usize) -> Duration {
    let server = to.inside(|| TcpListener::bind((address, 7000)).unwrap());
    let mut client = from.inside(|| TcpStream::connect((address, 7000)).unwrap());
    let (mut accepted, _) = server.accept().unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || client.write_all(&vec![0; bytes]).unwrap());
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), bytes);
    });
    began.elapsed()
}

pub(crate) fn limits(host: &Host) {
    const MEGABYTE: usize = 1 << 20;
    let free = host.add("free", &json!({}));
    assert!(transfer(&host.space, &free.space, &free.address(false), 8 * MEGABYTE) < Duration::from_secs(2));
    // Two megabytes a second, and a tenth of one at once.
    let bandwidth = |direction: &str| {
        json!({"bandwidth": {
        format!("{direction}Rate"): 16_000_000, format!("{direction}Burst"): 800_000}})
    };
    let slow = Duration::from_millis(800);
    let quick = Duration::from_millis(500);
    let (ingress, egress) = (bandwidth("ingress"), bandwidth("egress"));
    let receives = host.add("receives", &ingress);
    let sends = host.add("sends", &egress);
    let took = transfer(&host.space, &receives.space, &receives.address(false), 2 * MEGABYTE);
    assert!(took > slow, "it received 2 MiB in {took:?}");
    let took = transfer(&sends.space, &host.space, "10.42.1.1", 2 * MEGABYTE);
    assert!(took > slow, "it sent 2 MiB in {took:?}");
    let took = transfer(&host.space, &sends.space, &sends.address(false), 2 * MEGABYTE);
    assert!(took < quick, "only what it sends is limited: {took:?}");
    host.each("CHECK", &receives, &ingress, &receives.space.path()).unwrap();
    host.each("CHECK", &sends, &egress, &sends.space.path()).unwrap();
    host.delete(&receives, &ingress);
    host.delete(&sends, &egress);
    host.delete(&free, &json!({}));
    host.assert_clean();
}
