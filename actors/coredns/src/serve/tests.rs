//! What is answered to which question, as text, by Corefiles and objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use k3sd_runtime::Rng;
use serde_json::{Value, json};

use super::{Outcome, Pending, Source, complete, respond};
use crate::corefile::{Complaint, Files, Machine, build};
use crate::keeper::View;
use crate::resolver::{Answer, Ask};
use crate::wire::message::{Message, Record, target};
use crate::wire::name::{Name, text};
use crate::wire::query::tests::query;
use crate::wire::{Rcode, flag, kind};
use crate::zone::{Editor, Kind, namespace, service, slice};

const OWN: [u8; 4] = [10, 43, 0, 10];

/// A cluster and its Corefile.
struct World {
    view: View,
    complaints: Vec<Complaint>,
    rng: Rng,
}

fn endpoint_slice(name: &str, of: &str, endpoints: Value, port: u16) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": of}},
        "endpoints": endpoints, "ports": [{"name": "http", "protocol": "TCP", "port": port}]})
}

fn a_service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

fn editor() -> Editor {
    let mut editor = Editor::default();
    let kinds = [Kind::Services, Kind::Slices, Kind::Namespaces];
    kinds.iter().for_each(|kind| editor.list_begins(*kind));
    let http = json!([{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]);
    for object in [
        a_service("web", json!({"clusterIP": "10.43.1.1", "clusterIPs": ["10.43.1.1", "fd00::1"], "ports": http})),
        a_service("empty", json!({"clusterIP": "10.43.1.2", "ports": [{"port": 80}]})),
        a_service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]})),
        a_service("lost", json!({"clusterIP": "None"})),
        a_service("out", json!({"type": "ExternalName", "externalName": "api.example.net"})),
        a_service("self", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"})),
        a_service("loop", json!({"type": "ExternalName", "externalName": "loop.shop.svc.cluster.local"})),
    ] {
        editor.apply(service(&object.to_string(), false).expect("JSON").expect("a name"));
    }
    let ready = |address: &str, hostname: Option<&str>| json!({"addresses": [address], "hostname": hostname});
    for object in [
        endpoint_slice("web-1", "web", json!([ready("10.42.0.1", None)]), 8080),
        endpoint_slice("db-1", "db", json!([ready("10.42.0.5", Some("db-0")), ready("10.42.0.6", None)]), 5432),
        endpoint_slice("db-2", "db", json!([ready("10.42.0.5", Some("db-0")), ready("fd00::5", Some("db-0"))]), 5432),
    ] {
        editor.apply(slice(&object.to_string(), false).expect("JSON").expect("a name"));
    }
    editor.apply(namespace(r#"{"metadata": {"name": "shop"}}"#, false).expect("JSON").expect("a name"));
    kinds.iter().for_each(|kind| editor.list_ends(*kind));
    editor.set_serial(7);
    assert_eq!(editor.size(), (7, 7));
    editor
}

fn world_with(corefile: Option<&str>, more: &[(&str, &str)], custom: &[(&str, &str)]) -> World {
    let own =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let mut coredns: std::collections::BTreeMap<String, String> = own(more);
    coredns.extend(corefile.map(|text| ("Corefile".to_owned(), text.to_owned())));
    let files = Files { coredns: Some(coredns), custom: own(custom) };
    let machine = Machine {
        domain: "cluster.local".to_owned(),
        name_servers: vec![IpAddr::from([192, 0, 2, 53])],
        own: vec![SocketAddr::from((OWN, 53))],
    };
    let (servers, complaints) = build(&files, &machine).expect("a Corefile");
    World { view: View { zone: editor().zone(), servers: Arc::new(servers) }, complaints, rng: Rng::seeded(1) }
}

fn world() -> World {
    world_with(None, &[("NodeHosts", "192.0.2.7 node-a\n192.0.2.8 node-b b.example\n")], &[])
}

fn source() -> Source {
    Source { peer: SocketAddr::from(([10, 42, 0, 9], 4000)), is_tcp: false }
}

fn data(record: &Record) -> String {
    let number = |at: usize| crate::wire::u16_at(&record.data, at).unwrap_or_default();
    match record.kind {
        kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(&*record.data).expect("four bytes")).to_string(),
        kind::AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(&*record.data).expect("sixteen bytes")).to_string(),
        kind::SRV => format!("{}:{} {}", number(2), number(4), text(&record.data[6..])),
        kind::TXT => String::from_utf8_lossy(&record.data[1..]).into_owned(),
        _ => target(record).map(text).unwrap_or_default(),
    }
}

/// `CODE [aa] [tc] answers / authority / additional`, addresses and the like without the name that was asked for.
fn shown(bytes: &[u8]) -> String {
    let message = Message::parse(bytes).expect("an answer");
    let list = |records: &[Record]| {
        let mut words: Vec<String> = records
            .iter()
            .map(|record| {
                let owner = if record.owner.lower() == message.question.0.lower() {
                    "@".to_owned()
                } else {
                    record.owner.to_string()
                };
                format!("{owner} {} {} {}", record.ttl, kind::name(record.kind), data(record)).trim().to_owned()
            })
            .collect();
        words.sort();
        words.join(", ")
    };
    let flags = [(flag::AUTHORITATIVE, " aa"), (flag::TRUNCATED, " tc")];
    let flags: String = flags.iter().filter(|(bit, _)| message.flags & bit != 0).map(|(_, word)| *word).collect();
    let sections = [&message.answers, &message.authority, &message.additional].map(|records| list(records));
    let line = format!("{}{flags}: {}", message.rcode.word(), sections.join(" / "));
    line.trim_end_matches([' ', '/', ':']).to_owned()
}

impl World {
    fn outcome(&mut self, bytes: &[u8]) -> (Outcome, Vec<u8>) {
        let mut out = Vec::new();
        let outcome = respond(bytes, source(), &self.view, &[IpAddr::from(OWN)], &mut self.rng, &mut out);
        (outcome, out)
    }

    fn ask(&mut self, name: &str, kind: u16) -> String {
        match self.outcome(&query(name, kind, None)) {
            (Outcome::Answered, out) => shown(&out),
            (Outcome::Silence, _) => "silence".to_owned(),
            (Outcome::Ask(ask, _), _) => {
                format!("asks {:?} for {} {}", ask.forward.servers, ask.name, kind::name(ask.kind))
            }
        }
    }

    fn pending(&mut self, name: &str, kind: u16) -> (Ask, Box<Pending>) {
        match self.outcome(&query(name, kind, None)) {
            (Outcome::Ask(ask, pending), _) => (ask, pending),
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self, rows: &[(&str, u16, &str)]) {
        for (name, kind, expected) in rows {
            assert_eq!(self.ask(name, *kind), *expected, "{name} {}", kind::name(*kind));
        }
    }
}

const SOA: &str = "cluster.local. 5 SOA";

#[test]
fn the_names_of_the_specification() {
    let nothing = format!("NOERROR aa:  / {SOA}");
    let no_name = format!("NXDOMAIN aa:  / {SOA}");
    let web = "web.shop.svc.cluster.local";
    world().check(&[
        (web, kind::A, "NOERROR aa: @ 5 A 10.43.1.1"),
        ("WEB.shop.SVC.cluster.local", kind::AAAA, "NOERROR aa: @ 5 AAAA fd00::1"),
        (web, kind::TXT, &nothing),
        (web, kind::ANY, &nothing),
        ("empty.shop.svc.cluster.local", kind::AAAA, &nothing),
        ("gone.shop.svc.cluster.local", kind::A, &no_name),
        ("web.gone.svc.cluster.local", kind::A, &no_name),
        ("shop.svc.cluster.local", kind::A, &nothing),
        ("gone.svc.cluster.local", kind::A, &no_name),
        ("svc.cluster.local", kind::A, &nothing),
        ("cluster.local", kind::A, "NOERROR aa:  / @ 5 SOA"),
        ("cluster.local", kind::SOA, "NOERROR aa: @ 5 SOA"),
        ("cluster.local", kind::NS, "NOERROR aa: @ 5 NS ns.dns.cluster.local. /  / ns.dns.cluster.local. 5 A 10.43.0.10"),
        ("ns.dns.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.43.0.10"),
        ("x.cluster.local", kind::A, &no_name),
        ("a.b.c.d.e.f.shop.svc.cluster.local", kind::A, &no_name),
        ("dns-version.cluster.local", kind::TXT, "NOERROR aa: @ 28800 TXT 1.1.0"),
        // Ports.
        ("_http._tcp.web.shop.svc.cluster.local", kind::SRV, "NOERROR aa: @ 5 SRV 50:80 web.shop.svc.cluster.local. /  / web.shop.svc.cluster.local. 5 A 10.43.1.1, web.shop.svc.cluster.local. 5 AAAA fd00::1"),
        ("_dns._udp.web.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.43.1.1"),
        ("_http._udp.web.shop.svc.cluster.local", kind::SRV, &no_name),
        // Headless ones.
        ("db.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.42.0.5, @ 5 A 10.42.0.6"),
        ("db.shop.svc.cluster.local", kind::AAAA, "NOERROR aa: @ 5 AAAA fd00::5"),
        ("lost.shop.svc.cluster.local", kind::A, &no_name),
        ("db-0.db.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.42.0.5"),
        ("10-42-0-6.db.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.42.0.6"),
        ("10-42-0-6.db.shop.svc.cluster.local", kind::AAAA, &nothing),
        ("10-42-0-5.db.shop.svc.cluster.local", kind::A, &no_name),
        ("10-42-0-1.web.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.42.0.1"),
        ("_http._tcp.db.shop.svc.cluster.local", kind::SRV, "NOERROR aa: @ 5 SRV 33:5432 10-42-0-6.db.shop.svc.cluster.local., @ 5 SRV 33:5432 db-0.db.shop.svc.cluster.local. /  / 10-42-0-6.db.shop.svc.cluster.local. 5 A 10.42.0.6, db-0.db.shop.svc.cluster.local. 5 A 10.42.0.5, db-0.db.shop.svc.cluster.local. 5 AAAA fd00::5"),
        // Pods.
        ("10-42-0-77.shop.pod.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.42.0.77"),
        ("fd00--77.shop.pod.cluster.local", kind::AAAA, "NOERROR aa: @ 5 AAAA fd00::77"),
        ("10-42-0-77.shop.pod.cluster.local", kind::AAAA, &nothing),
        ("10-42-0-77.gone.pod.cluster.local", kind::A, &no_name),
        ("nonsense.shop.pod.cluster.local", kind::A, &no_name),
        // The way back.
        ("1.1.43.10.in-addr.arpa", kind::PTR, "NOERROR aa: @ 5 PTR web.shop.svc.cluster.local."),
        ("5.0.42.10.in-addr.arpa", kind::PTR, "NOERROR aa: @ 5 PTR db-0.db.shop.svc.cluster.local."),
        ("6.0.42.10.in-addr.arpa", kind::PTR, "NOERROR aa: @ 5 PTR 10-42-0-6.db.shop.svc.cluster.local."),
        ("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", kind::PTR, "NOERROR aa: @ 5 PTR db-0.db.shop.svc.cluster.local."),
        ("1.2.0.192.in-addr.arpa", kind::PTR, "asks [192.0.2.53:53] for 1.2.0.192.in-addr.arpa. PTR"),
        // Names for other names.
        ("out.shop.svc.cluster.local", kind::CNAME, "NOERROR aa: @ 5 CNAME api.example.net."),
        ("out.shop.svc.cluster.local", kind::A, "asks [192.0.2.53:53] for api.example.net. A"),
        ("self.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 CNAME web.shop.svc.cluster.local., web.shop.svc.cluster.local. 5 A 10.43.1.1"),
        // Nodes, and everything else.
        ("node-a", kind::A, "NOERROR aa: @ 60 A 192.0.2.7"),
        ("b.example", kind::A, "NOERROR aa: @ 60 A 192.0.2.8"),
        ("node-a", kind::AAAA, "NOERROR aa"),
        ("7.2.0.192.in-addr.arpa", kind::PTR, "NOERROR aa: @ 60 PTR node-a."),
        ("example.org", kind::A, "asks [192.0.2.53:53] for example.org. A"),
        ("example.org", kind::AXFR, "REFUSED"),
    ]);
    assert!(world().ask("loop.shop.svc.cluster.local", kind::A).starts_with("SERVFAIL"), "it ends");
}

#[test]
fn endpoints_take_turns() {
    let mut world = world();
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let (_, out) = world.outcome(&query("db.shop.svc.cluster.local", kind::A, None));
        firsts.insert(Message::parse(&out).expect("an answer").answers.first().map(data));
    }
    assert_eq!(firsts.len(), 2);
}

#[test]
fn names_are_not_denied_before_all_are_known() {
    let mut world = world();
    world.view.zone.is_synced = false;
    assert_eq!(world.ask("gone.shop.svc.cluster.local", kind::A), "SERVFAIL");
    assert_eq!(world.ask("web.shop.svc.cluster.local", kind::A), "NOERROR aa: @ 5 A 10.43.1.1");
}

#[test]
fn what_changes_is_followed() {
    let mut editor = editor();
    let mut world = world();
    let mut apply = |change| {
        editor.apply(change);
        world.view.zone = editor.zone();
        [("web", "1.1.43.10"), ("db", "5.0.42.10")].map(|(name, address)| {
            let words = world.ask(&format!("{name}.shop.svc.cluster.local"), kind::A);
            format!("{words} | {}", world.ask(&format!("{address}.in-addr.arpa"), kind::PTR)).contains("NXDOMAIN")
        })
    };
    let gone = |object: Value, read: fn(&str, bool) -> serde_json::Result<Option<crate::zone::Change>>| {
        read(&object.to_string(), true).expect("JSON").expect("a name")
    };
    assert_eq!(apply(gone(a_service("web", json!({})), service)), [true, false]);
    // One slice of two: the other still has the address.
    assert_eq!(apply(gone(endpoint_slice("db-1", "db", json!([]), 1), slice)), [true, false]);
    assert_eq!(apply(gone(endpoint_slice("db-2", "db", json!([]), 1), slice)), [true, true]);
    // A slice that moves to another Service leaves the first.
    let moved = endpoint_slice("web-1", "db", json!([{"addresses": ["10.42.0.5"]}]), 80);
    apply(slice(&moved.to_string(), false).expect("JSON").expect("a name"));
    assert_eq!(world.ask("10-42-0-5.db.shop.svc.cluster.local", kind::A), "NOERROR aa: @ 5 A 10.42.0.5");
    // A new list without something says that it is gone.
    for kind in [Kind::Services, Kind::Slices, Kind::Namespaces] {
        editor.list_begins(kind);
        editor.list_ends(kind);
    }
    assert_eq!(editor.size(), (0, 0));
    world.view.zone = editor.zone();
    assert!(world.ask("shop.svc.cluster.local", kind::A).starts_with("NXDOMAIN"));
}

#[test]
fn answers_of_others_are_made_to_fit() {
    let mut world = world();
    let (ask, pending) = world.pending("Out.shop.svc.cluster.local", kind::A);
    assert_eq!(ask.cache.map(|cache| (cache.success_ttl, cache.denial_ttl)), Some((30, 30)));
    let record = |owner: &str, kind, data: &[u8]| Record {
        owner: Name::parse(owner).expect("a name"),
        kind,
        class: 1,
        ttl: 300,
        data: data.into(),
    };
    let answer = Answer { answers: vec![record("api.example.net", kind::A, &[192, 0, 2, 1])], ..Answer::default() };
    let mut out = Vec::new();
    complete(&pending, &answer, Some(17), &mut world.rng, &mut out);
    assert_eq!(shown(&out), "NOERROR: @ 5 CNAME api.example.net., api.example.net. 17 A 192.0.2.1");
    assert_eq!(&out[13..16], b"Out", "the asker's own case");
    // What is too long for UDP is cut off, and says so.
    let many = (0..200).map(|last| record("api.example.net", kind::A, &[192, 0, 2, last])).collect();
    out.clear();
    complete(&pending, &Answer { answers: many, ..Answer::default() }, None, &mut world.rng, &mut out);
    assert!(out.len() <= 512 && shown(&out).starts_with("NOERROR tc"));
    out.clear();
    complete(&pending, &Answer::failure(), None, &mut world.rng, &mut out);
    assert_eq!(Message::parse(&out).map(|message| message.rcode).ok(), Some(Rcode::SERVER_FAILURE));
}

#[test]
fn custom_directives_are_followed() {
    let custom = [
        (
            "a.override",
            "rewrite name exact old.example web.shop.svc.cluster.local\nrewrite name suffix .corp .shop.svc.cluster.local answer auto\nhosts {\n 198.51.100.1 extra.example\n fallthrough\n}\nforward corp.example 198.51.100.53 {\n except x.corp.example\n}\n",
        ),
        (
            "b.server",
            "example.org {\n file /etc/coredns/custom/zone.db {\n fallthrough sub.example.org\n }\n forward . 198.51.100.54:5353 dns://[2001:db8::1]\n}\nother.example:5300 {\n whoami\n}\n",
        ),
        (
            "zone.db",
            "$TTL 60\n@ SOA ns h 1 2 3 4 5\nwww A 203.0.113.1\nout CNAME elsewhere.example.com.\nalias CNAME www\n",
        ),
        ("c.override", "template IN A { }\nfile /etc/passwd evil.example\n"),
    ];
    let mut world = world_with(None, &[], &custom);
    world.check(&[
        ("old.example", kind::A, "NOERROR aa: @ 5 A 10.43.1.1"),
        ("web.corp", kind::A, "NOERROR aa: @ 5 A 10.43.1.1"),
        ("extra.example", kind::A, "NOERROR aa: @ 3600 A 198.51.100.1"),
        ("y.corp.example", kind::A, "asks [198.51.100.53:53] for y.corp.example. A"),
        ("x.corp.example", kind::A, "asks [192.0.2.53:53] for x.corp.example. A"),
        ("www.example.org", kind::A, "NOERROR aa: @ 60 A 203.0.113.1"),
        ("alias.example.org", kind::A, "NOERROR aa: @ 60 CNAME www.example.org., www.example.org. 60 A 203.0.113.1"),
        ("gone.example.org", kind::A, "NXDOMAIN aa:  / example.org. 5 SOA"),
        ("gone.sub.example.org", kind::A, "asks [198.51.100.54:5353, [2001:db8::1]:53] for gone.sub.example.org. A"),
        ("out.example.org", kind::A, "asks [198.51.100.54:5353, [2001:db8::1]:53] for elsewhere.example.com. A"),
    ]);
    let complaints: Vec<_> =
        world.complaints.iter().map(|found| (&*found.place, &*found.text, found.is_possible)).collect();
    assert_eq!(
        complaints,
        [
            (
                "b.server, line 7",
                "serving on another port than 53 isn't supported, so \"other.example:5300\" isn't served",
                true
            ),
            ("c.override, line 1", "the directive \"template\" isn't supported", true),
            ("c.override, line 2", "file: no ConfigMap has the file \"/etc/passwd\"", false),
        ]
    );
}

#[test]
fn options_of_directives_are_followed() {
    let corefile = ". {\n kubernetes cluster.local in-addr.arpa {\n ttl 30\n namespaces other\n pods verified\n fallthrough\n }\n\
        forward . 10.43.0.10 192.0.2.99 tls://192.0.2.1 /etc/shadow\n cache 20 {\n prefetch 1\n }\n}\n";
    let mut world = world_with(Some(corefile), &[], &[]);
    world.check(&[
        ("web.shop.svc.cluster.local", kind::A, "asks [192.0.2.99:53] for web.shop.svc.cluster.local. A"),
        ("1.1.43.10.in-addr.arpa", kind::PTR, "asks [192.0.2.99:53] for 1.1.43.10.in-addr.arpa. PTR"),
    ]);
    assert_eq!(world.complaints.len(), 5, "{:?}", world.complaints);
    let ignore = ". {\n kubernetes cluster.local {\n ignore empty_service\n noendpoints\n }\n}\n";
    world_with(Some(ignore), &[], &[]).check(&[
        ("empty.shop.svc.cluster.local", kind::A, "NXDOMAIN aa:  / cluster.local. 5 SOA"),
        ("web.shop.svc.cluster.local", kind::A, "NOERROR aa: @ 5 A 10.43.1.1"),
        ("db.shop.svc.cluster.local", kind::A, "NXDOMAIN aa:  / cluster.local. 5 SOA"),
        ("10-42-0-1.shop.pod.cluster.local", kind::A, "NXDOMAIN aa:  / cluster.local. 5 SOA"),
        ("elsewhere.example", kind::A, "SERVFAIL"),
    ]);
    assert_eq!(world_with(Some("only.example {\n whoami\n}\n"), &[], &[]).ask("a.b", kind::A), "REFUSED");
}

#[test]
fn no_bytes_make_it_panic() {
    let mut world = world_with(None, &[], &[("a.override", "rewrite name substring o oo\n")]);
    let mut rng = Rng::seeded(7);
    let seeds = [
        "web.shop.svc.cluster.local",
        "_http._tcp.db.shop.svc.cluster.local",
        "5.0.42.10.in-addr.arpa",
        "example.org",
        ".",
    ];
    for round in 0..30_000_u64 {
        let name = seeds[(round % 5) as usize];
        let kinds = [kind::A, kind::AAAA, kind::SRV, kind::PTR, kind::ANY];
        let mut bytes = query(name, kinds[rng.below(5) as usize], Some((rng.next_u64() as u16, round % 2 == 0)));
        for _ in 0..rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        bytes.truncate(if rng.below(8) == 0 { rng.below(bytes.len() as u64 + 1) as usize } else { bytes.len() });
        if let (Outcome::Answered, out) = world.outcome(&bytes) {
            assert!(out.len() >= 12 && out[..2] == bytes[..2], "{bytes:?}");
            Message::parse(&out).ok();
        }
    }
}
