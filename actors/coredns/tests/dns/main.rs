//! The DNS on a real network, asked by real clients. Each test has a network namespace of its own.

mod api;
mod hostile;
mod resolvers;
mod space;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k3sd_runtime::{Rng, Signal};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::api::Api;
use crate::resolvers::{Found, Library, look_up};
use crate::space::{DNS, Dns, dig, dig_all, eventually, inside, output, run};
use crate::upstream::{Manner, upstream};

fn shop() -> Api {
    let api = Api::new();
    api.service("web", json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}]}));
    api.service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
    api.service("out", json!({"type": "ExternalName", "externalName": "www.example.net"}));
    api.slice("db-1", "db", &["10.42.0.5", "10.42.0.6"]);
    api
}

const WEB: &str = "web.shop.svc.cluster.local";

async fn answers(name: &str, expected: &str) {
    eventually(&format!("{name} is {expected}"), || async { dig(&[name]).await == expected }).await;
}

#[test]
fn names_are_answered_and_changes_followed() {
    inside(|| async {
        let api = shop();
        let dns = Dns::start(&api, "").await;
        answers(WEB, "10.43.1.1").await;
        assert_eq!(dig(&["+tcp", WEB]).await, "10.43.1.1");
        assert_eq!(dig(&["db.shop.svc.cluster.local"]).await, "10.42.0.5 10.42.0.6");
        assert_eq!(dig(&["-t", "SRV", "_http._tcp.web.shop.svc.cluster.local"]).await, format!("0 100 80 {WEB}."));
        assert_eq!(dig(&["-x", "10.43.1.1"]).await, format!("{WEB}."));
        assert_eq!(dig(&["-t", "TXT", "dns-version.cluster.local"]).await, "\"1.1.0\"");
        let full = dig_all(&["gone.shop.svc.cluster.local"]).await;
        assert!(
            full.contains("status: NXDOMAIN") && full.contains("SOA") && !full.contains("recursion requested"),
            "{full}"
        );
        assert!(dig_all(&["WeB.sHop.svc.cluster.local"]).await.contains("WeB.sHop.svc.cluster.local. 5\tIN"));
        // What comes and goes.
        api.service("late", json!({"clusterIP": "10.43.1.9", "ports": [{"port": 80}]}));
        answers("late.shop.svc.cluster.local", "10.43.1.9").await;
        api.delete("/api/v1/services", "/late");
        answers("late.shop.svc.cluster.local", "").await;
        api.config_map(
            "coredns-custom",
            &[("a.override", "hosts {\n 192.0.2.9 extra.example\n fallthrough\n}\ntemplate IN A\n")],
        );
        answers("extra.example", "192.0.2.9").await;
        api.until(|state| state.events.iter().any(|text| text.contains("--dns coredns"))).await;
        // A Corefile that is none changes nothing but what people are told.
        api.config_map("coredns", &[("Corefile", ".:53 {\n")]);
        api.until(|state| state.events.iter().any(|text| text.contains("never closed"))).await;
        assert_eq!(dig(&[WEB]).await, "10.43.1.1");
        // Every actor dies; nobody who asks notices.
        for path in ["keeper", "resolver", "addresses", "servers/udp-0", "servers/udp-1", "servers/tcp-0"] {
            assert!(dns.system.signal(path, Signal::Kill), "{path}");
            assert_eq!(dig(&[WEB]).await, "10.43.1.1", "{path}");
        }
        assert_eq!(dig(&["+tcp", WEB]).await, "10.43.1.1");
    });
}

#[test]
fn the_address_is_the_hosts_own_and_stays() {
    inside(|| async {
        let api = shop();
        let dns = Dns::start(&api, "").await;
        answers(WEB, "10.43.1.1").await;
        let cidr = format!("{DNS}/32");
        assert!(run("ip", &["addr", "show", "dev", "lo"]).await.contains(&cidr));
        run("ip", &["addr", "del", &cidr, "dev", "lo"]).await;
        eventually("the address is back", || async { run("ip", &["addr", "show", "dev", "lo"]).await.contains(&cidr) })
            .await;
        assert_eq!(dig(&[WEB]).await, "10.43.1.1");
        dns.stop().await;
        assert!(run("ip", &["addr", "show", "dev", "lo"]).await.contains(&cidr), "it stays for the next life");
        let system = k3sd_runtime::System::new(k3sd_runtime::Clock::system());
        let absent = k3sd_coredns::absent(&[DNS.parse().unwrap()]);
        let _tree = system.start(k3sd_runtime::Spec::new(k3sd_runtime::Strategy::OneForOne).child(absent));
        eventually("the address is gone", || async {
            !run("ip", &["addr", "show", "dev", "lo"]).await.contains(&cidr)
        })
        .await;
    });
}

#[test]
fn resolvers_of_pods_find_names() {
    inside(|| async {
        let api = shop();
        let dns = Dns::start(&api, "nameserver 127.0.0.9\n").await;
        let _upstream = upstream("127.0.0.9:53", Manner::Honest).await;
        answers(WEB, "10.43.1.1").await;
        let conf = dns.client_conf("ndots:5");
        // A mount namespace of its own, so that the host keeps its file.
        let within = |command: &str| format!("mount --bind {conf} /etc/resolv.conf && {command}");
        for (command, expected) in [
            ("getent ahostsv4 web", "10.43.1.1"),
            ("getent ahostsv4 web.shop", "10.43.1.1"),
            ("getent ahostsv4 www.example.net", "192.0.2.80"),
            ("getent ahostsv4 out", "192.0.2.80"),
            ("getent hosts 10.43.1.1", WEB),
            ("busybox nslookup web.shop.svc.cluster.local", "Address: 10.43.1.1"),
            ("busybox nslookup www.example.net", "Address: 192.0.2.80"),
        ] {
            let (succeeded, text) = output("unshare", &["-m", "sh", "-c", &within(command)]).await;
            assert!(text.contains(expected), "{command}: {succeeded} {text}");
        }
        let (found, text) = output("unshare", &["-m", "sh", "-c", &within("getent ahostsv4 gone")]).await;
        assert!(!found && text.is_empty(), "{text}");
    });
}

#[test]
fn resolvers_that_ask_for_both_families_at_once_find_names() {
    inside(|| async {
        let api = shop();
        let many: Vec<String> = (1..=100).map(|last| format!("10.42.7.{last}")).collect();
        api.service("many", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
        api.slice("many-1", "many", &many.iter().map(String::as_str).collect::<Vec<_>>());
        let _dns = Dns::start(&api, "nameserver 127.0.0.9\n").await;
        let upstream = upstream("127.0.0.9:53", Manner::Honest).await;
        answers(WEB, "10.43.1.1").await;
        let at = |addresses: &[&str]| Found::Addresses(addresses.iter().map(|text| text.parse().unwrap()).collect());
        let mut many: Vec<IpAddr> = many.iter().map(|text| text.parse().unwrap()).collect();
        many.sort();
        for library in [Library::Glibc, Library::Musl] {
            for (name, expected) in [
                ("web", at(&["10.43.1.1"])),
                ("web.shop", at(&["10.43.1.1"])),
                ("web.shop.svc", at(&["10.43.1.1"])),
                (WEB, at(&["10.43.1.1"])),
                ("web.shop.svc.cluster.local.", at(&["10.43.1.1"])),
                ("www.example.net", at(&["192.0.2.80"])),
                ("out", at(&["192.0.2.80"])),
                ("gone.shop", Found::NoName),
                ("gone.example.net", Found::NoName),
            ] {
                assert_eq!(look_up(library, name).await, expected, "{library:?} {name}");
            }
            let Found::Addresses(mut found) = look_up(library, "many").await else { panic!("{library:?}") };
            found.sort();
            assert_eq!(found, many, "{library:?}: what is cut off comes by TCP");
        }
        // A name of the cluster is found although nobody answers for the others, and then at once.
        upstream.stop().await;
        assert_eq!(look_up(Library::Musl, "web.shop").await, at(&["10.43.1.1"]));
        assert_eq!(look_up(Library::Musl, "away.example.org").await, Found::Again);
        // Many at a time, as a pod that starts.
        let all = (0..200).map(|number| {
            let library = if number % 2 == 0 { Library::Glibc } else { Library::Musl };
            look_up(library, "web.shop")
        });
        let all = tokio::time::timeout(Duration::from_secs(2), futures_util::future::join_all(all)).await;
        assert!(all.expect("nobody waits for a second try").iter().all(|found| *found == at(&["10.43.1.1"])));
    });
}

#[test]
fn ten_thousand_names() {
    inside(|| async {
        let api = Api::new();
        for number in 0..10_000_u32 {
            let address = format!("10.44.{}.{}", number / 250, number % 250 + 1);
            api.service(&format!("s{number}"), json!({"clusterIP": address, "ports": [{"port": 80}]}));
        }
        let _dns = Dns::start(&api, "").await;
        answers("s9999.shop.svc.cluster.local", "10.44.39.250").await;
        let directory = tempfile::tempdir().unwrap();
        let questions: String = (0..10_000).map(|number| format!("s{number}.shop.svc.cluster.local\n")).collect();
        let file = directory.path().join("questions");
        std::fs::write(&file, questions).unwrap();
        let server = format!("@{DNS}");
        let text = run("dig", &[&server, "+short", "+time=6", "-f", file.to_str().unwrap()]).await;
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 10_000);
        assert_eq!((found[0], found[251], found[9_999]), ("10.44.0.1", "10.44.1.2", "10.44.39.250"));
    });
}

#[test]
fn long_answers_are_cut_off_by_udp_and_whole_by_tcp() {
    inside(|| async {
        let api = shop();
        let many: Vec<String> = (0..500).map(|number| format!("10.42.{}.{}", number / 250, number % 250 + 1)).collect();
        api.slice("db-1", "db", &many.iter().map(String::as_str).collect::<Vec<_>>());
        let _dns = Dns::start(&api, "").await;
        let name = "db.shop.svc.cluster.local";
        eventually("all endpoints are known", || async { dig(&["+tcp", name]).await.split(' ').count() == 500 }).await;
        assert_eq!(
            dig(&[name]).await.split(' ').filter(|word| word.starts_with("10.42")).count(),
            500,
            "dig asks again by TCP"
        );
        let cut = dig_all(&["+ignore", "+noedns", name]).await;
        assert!(cut.contains("flags: qr aa tc") && cut.contains("ANSWER: 29"), "{cut}");
        let cut = dig_all(&["+ignore", "+bufsize=1232", name]).await;
        assert!(cut.contains("flags: qr aa tc") && cut.contains("ANSWER: 73") && cut.contains("udp: 1232"), "{cut}");
    });
}

#[test]
fn upstream_servers_are_dead_slow_or_lie() {
    inside(|| async {
        let api = shop();
        let conf = "nameserver 127.0.0.8\nnameserver 127.0.0.9\n";
        let _dns = Dns::start(&api, conf).await;
        answers(WEB, "10.43.1.1").await;
        // Nobody there: it fails within the time that clients have.
        assert!(dig_all(&["dead.example.net"]).await.contains("SERVFAIL"));
        let honest = upstream("127.0.0.9:53", Manner::Honest).await;
        // One of two is dead; who asks notices nothing but time.
        for number in 0..4 {
            assert_eq!(dig(&[&format!("half{number}.example.net")]).await, "192.0.2.80");
        }
        let before = honest.asked();
        assert_eq!(dig(&["half0.example.net"]).await, "192.0.2.80");
        assert_eq!(honest.asked(), before, "it was remembered");
        assert!(dig_all(&["gone.example.net"]).await.contains("NXDOMAIN"));
        assert!(dig_all(&["gone.example.net"]).await.contains("NXDOMAIN"));
        assert_eq!(honest.asked(), before + 1, "that there is nothing too");
        assert!(dig_all(&["long.example.net"]).await.contains("ANSWER: 60"), "asked again by TCP");
        let liar = upstream("127.0.0.8:53", Manner::Liar).await;
        honest.stop().await;
        for number in 0..3 {
            assert_eq!(dig(&[&format!("truth{number}.example.net")]).await, "192.0.2.80", "lies come first");
        }
        liar.stop().await;
        let _slow = upstream("127.0.0.8:53", Manner::Slow(Duration::from_millis(1500))).await;
        assert_eq!(dig(&["slow.example.net"]).await, "192.0.2.80");
        assert_eq!(dig(&["out.shop.svc.cluster.local"]).await, "192.0.2.80 www.example.net.");
    });
}

#[test]
fn an_upstream_server_that_cuts_everything_off_is_passed_over() {
    inside(|| async {
        let api = shop();
        let _dns = Dns::start(&api, "nameserver 127.0.0.8\nnameserver 127.0.0.9\n").await;
        answers(WEB, "10.43.1.1").await;
        let _cuts = upstream("127.0.0.8:53", Manner::Cuts).await;
        assert!(dig_all(&["alone.example.net"]).await.contains("SERVFAIL"), "lies by TCP are none the better");
        let _honest = upstream("127.0.0.9:53", Manner::Honest).await;
        for number in 0..4 {
            assert_eq!(dig(&[&format!("cut{number}.example.net")]).await, "192.0.2.80");
        }
    });
}

#[test]
fn what_is_no_question_gets_the_answer_that_it_deserves() {
    inside(|| async {
        let api = shop();
        let _dns = Dns::start(&api, "").await;
        answers(WEB, "10.43.1.1").await;
        assert_eq!(hostile::answer(&hostile::good()).await, Some(0));
        for (what, bytes, expected) in hostile::table() {
            assert_eq!(hostile::answer(&bytes).await, expected, "{what}: {bytes:?}");
        }
        assert_eq!(dig(&[WEB]).await, "10.43.1.1");
    });
}

#[test]
fn hostile_clients_disturb_nobody() {
    inside(|| async {
        let api = shop();
        let _dns = Dns::start(&api, "").await;
        answers(WEB, "10.43.1.1").await;
        let server: SocketAddr = format!("{DNS}:53").parse().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut rng = Rng::seeded(3);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.below(80)).map(|_| rng.next_u64() as u8).collect();
            socket.send_to(&bytes, server).await.unwrap();
        }
        // Connections that say nothing, nonsense, or half of something.
        let mut held = Vec::new();
        for number in 0..40_u32 {
            let mut stream = TcpStream::connect(server).await.unwrap();
            let bytes: &[u8] = if number % 2 == 0 { &[0xff, 0xff, 1, 2] } else { &[0, 40, 1, 2] };
            stream.write_all(bytes).await.ok();
            held.push(stream);
        }
        assert_eq!(dig(&["-b", "127.0.0.7", WEB]).await, "10.43.1.1");
        assert_eq!(dig(&["-b", "127.0.0.7", "+tcp", WEB]).await, "10.43.1.1");
        // Many questions on one connection.
        let mut question = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in WEB.split('.') {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        let mut framed = (question.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&question);
        let source = tokio::net::TcpSocket::new_v4().unwrap();
        source.bind("127.0.0.6:0".parse().unwrap()).unwrap();
        let mut stream = source.connect(server).await.unwrap();
        stream.write_all(&framed.repeat(100)).await.unwrap();
        for _ in 0..100 {
            let length = stream.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer[answer.len() - 4..], [10, 43, 1, 1]);
        }
    });
}
