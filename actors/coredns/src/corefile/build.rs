//! What directives mean. A directive that isn't understood is left out and complained about; a Corefile whose braces don't
//! fit is none.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::parse::{Block, Directive, ParseError, parse};
use super::primary;
use super::{
    Cache, Complaint, Fall, Files, Forward, Hosts, Kubernetes, Machine, Pods, Policy, Rewrite, Server, Servers,
    ZoneFile, standard,
};
use crate::wire::name::Name;

/// Directives with nothing left to do: what they switch on is always on here, or is about CoreDNS' own process.
const ACCEPTED: [&str; 15] = [
    "any",
    "bufsize",
    "cancel",
    "debug",
    "errors",
    "health",
    "import",
    "loadbalance",
    "loop",
    "minimal",
    "nsid",
    "prometheus",
    "ready",
    "reload",
    "whoami",
];
/// Seconds that a name of the cluster may be remembered, unless a Corefile says otherwise, and at most.
const KUBERNETES_TTL: u32 = 5;
const KUBERNETES_TTL_MAX: u32 = 3600;
const HOSTS_TTL: u32 = 3600;
const FORWARD_MAX: usize = 15;
const MAX_FAILS: u32 = 2;
/// What `cache` means by itself.
const CACHE: Cache = Cache {
    success_ttl: 3600,
    success_ttl_min: 5,
    denial_ttl: 1800,
    denial_ttl_min: 5,
    failure_ttl: 5,
    capacity: 9984,
};
/// The port of DNS.
const PORT: u16 = 53;

/// Reads the Corefile with all that it names. What can't be done is complained about.
///
/// # Errors
/// It isn't a Corefile at all.
pub(crate) fn build(files: &Files, machine: &Machine) -> Result<(Servers, Vec<Complaint>), ParseError> {
    let standard = standard(&machine.domain);
    let text = files.coredns.as_ref().and_then(|keys| keys.get("Corefile")).unwrap_or(&standard);
    let mut builder = Builder { files, machine, complaints: Vec::new() };
    let mut blocks = Vec::new();
    for block in parse(text, files)? {
        blocks.extend(builder.server(&block));
    }
    builder.complaints.sort();
    builder.complaints.dedup();
    Ok((Servers { blocks }, builder.complaints))
}

struct Builder<'a> {
    files: &'a Files,
    machine: &'a Machine,
    complaints: Vec<Complaint>,
}

impl Builder<'_> {
    fn complain(&mut self, place: &str, text: String, is_possible: bool) {
        self.complaints.push(Complaint { place: place.to_owned(), text, is_possible });
    }

    /// CoreDNS could; this can't.
    fn cannot(&mut self, directive: &Directive, what: &str) {
        self.complain(&directive.place, format!("{what} isn't supported"), true);
    }

    /// Nobody could.
    fn wrong(&mut self, directive: &Directive, what: &str) {
        self.complain(&directive.place, format!("{}: {what}", directive.name), false);
    }

    fn server(&mut self, block: &Block) -> Option<Server> {
        let mut zones = Vec::new();
        for key in &block.keys {
            match zone_key(key) {
                Ok(found) => zones.extend(found),
                Err((what, is_possible)) => self.complain(&block.place, what, is_possible),
            }
        }
        if zones.is_empty() {
            return None;
        }
        let mut server = Server { zones, ..Server::default() };
        for directive in &block.directives {
            self.directive(directive, &mut server);
        }
        Some(server)
    }

    fn directive(&mut self, directive: &Directive, server: &mut Server) {
        match directive.name.as_str() {
            "log" => server.logs = true,
            "cache" => self.cache(directive, server),
            "forward" => self.forward(directive, server),
            "hosts" => self.hosts(directive, server),
            "kubernetes" => self.kubernetes(directive, server),
            "file" => self.file(directive, server),
            "rewrite" => {
                let words: Vec<&str> = directive.args.iter().map(String::as_str).collect();
                match Rewrite::parse(&words, &directive.lines) {
                    Ok(rule) => server.rewrites.push(rule),
                    Err(what) => self.complain(&directive.place, format!("rewrite: {what}"), true),
                }
            }
            name if ACCEPTED.contains(&name) => {}
            name => self.cannot(directive, &format!("the directive {name:?}")),
        }
    }

    /// Zones that are named, or those of the block.
    fn zones(&mut self, directive: &Directive, words: &[String], server: &Server) -> Vec<Name> {
        if words.is_empty() {
            return server.zones.clone();
        }
        let mut zones = Vec::new();
        for word in words {
            match zone_key(word) {
                Ok(found) => zones.extend(found),
                Err((what, _)) => self.wrong(directive, &what),
            }
        }
        zones
    }

    fn fall(&mut self, directive: &Directive, words: &[String]) -> Fall {
        if words.is_empty() {
            return Fall::All;
        }
        Fall::Zones(self.zones(directive, words, &Server::default()))
    }

    fn kubernetes(&mut self, directive: &Directive, server: &mut Server) {
        let zones = self.zones(directive, &directive.args, server);
        let is_reverse = |zone: &&Name| zone.to_string().ends_with(".arpa.");
        let primary = zones.iter().find(|zone| !is_reverse(zone)).cloned();
        let Some(primary) = primary else { return self.wrong(directive, "there is no zone for names") };
        let mut config = Kubernetes {
            zones,
            primary,
            pods: Pods::Disabled,
            ttl: KUBERNETES_TTL,
            fall: Fall::No,
            namespaces: Vec::new(),
            ignores_empty: false,
            without_endpoints: false,
        };
        for line in &directive.lines {
            let Some((option, rest)) = line.split_first() else { continue };
            let first = rest.first().map(String::as_str);
            match (option.as_str(), first) {
                ("pods", Some("insecure")) => config.pods = Pods::Insecure,
                ("pods", Some("disabled")) => config.pods = Pods::Disabled,
                ("pods", Some("verified")) => {
                    config.pods = Pods::Insecure;
                    self.cannot(directive, "\"pods verified\" (names of pods are answered as with \"pods insecure\")");
                }
                ("ttl", Some(text)) => match text.parse() {
                    Ok(ttl @ 0..=KUBERNETES_TTL_MAX) => config.ttl = ttl,
                    _ => self.wrong(directive, "ttl needs seconds, 3600 at most"),
                },
                ("fallthrough", _) => config.fall = self.fall(directive, rest),
                ("namespaces", Some(_)) => config.namespaces = rest.to_vec(),
                ("ignore", Some("empty_service")) => config.ignores_empty = true,
                ("noendpoints", _) => config.without_endpoints = true,
                // The cluster that this is a part of is reached without being told how.
                ("endpoint" | "tls" | "kubeconfig" | "resyncperiod" | "upstream", _) => {}
                (other, _) => self.cannot(directive, &format!("the option {other:?} of \"kubernetes\"")),
            }
        }
        server.kubernetes = Some(config);
    }

    fn hosts(&mut self, directive: &Directive, server: &mut Server) {
        let (file, zones) = match directive.args.split_first() {
            Some((file, zones)) if file.contains('/') => (Some(file), zones),
            _ => (None, &*directive.args),
        };
        let mut hosts = Hosts::new(self.zones(directive, zones, server), HOSTS_TTL);
        if let Some(file) = file {
            match self.files.read(file) {
                Some(text) => hosts.add_file(text),
                // Nodes come later than the ConfigMap.
                None if file.ends_with("/NodeHosts") => {}
                None => self.wrong(directive, &format!("no ConfigMap has the file {file:?}")),
            }
        }
        for line in &directive.lines {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            match &*words {
                ["ttl", text] => match text.parse() {
                    Ok(ttl) => hosts.ttl = ttl,
                    Err(_) => self.wrong(directive, "ttl needs seconds"),
                },
                ["fallthrough", rest @ ..] => {
                    let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
                    hosts.fall = self.fall(directive, &rest);
                }
                ["no_reverse"] => hosts.has_reverse = false,
                // Whatever becomes of a ConfigMap is seen at once.
                ["reload", _] => {}
                words if hosts.add(words) => {}
                words => self.wrong(directive, &format!("{:?} isn't understood", words.join(" "))),
            }
        }
        server.hosts.push(hosts);
    }

    fn file(&mut self, directive: &Directive, server: &mut Server) {
        let Some((path, zones)) = directive.args.split_first() else {
            return self.wrong(directive, "it needs a file");
        };
        let Some(text) = self.files.read(path) else {
            return self.wrong(directive, &format!("no ConfigMap has the file {path:?}"));
        };
        let mut fall = Fall::No;
        for line in &directive.lines {
            match line.split_first() {
                Some((option, rest)) if option == "fallthrough" => fall = self.fall(directive, rest),
                Some((option, _)) if option == "reload" || option == "upstream" => {}
                Some((option, _)) => self.cannot(directive, &format!("the option {option:?} of \"file\"")),
                None => {}
            }
        }
        for origin in self.zones(directive, zones, server) {
            match primary::read(path, text, &origin) {
                Ok(records) => server.files.push(ZoneFile::new(origin, fall.clone(), records)),
                Err(error) => self.complain(&error.place, error.what, false),
            }
        }
    }

    fn cache(&mut self, directive: &Directive, server: &mut Server) {
        let mut cache = CACHE;
        let mut zones = &*directive.args;
        if let Some((first, rest)) = directive.args.split_first()
            && let Ok(ttl) = first.parse()
        {
            (cache.success_ttl, cache.denial_ttl, zones) = (ttl, ttl, rest);
        }
        let zones = self.zones(directive, zones, server);
        for line in &directive.lines {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let numbers: Vec<u32> = words.iter().skip(1).map_while(|word| word.parse().ok()).collect();
            match (&*words, &*numbers) {
                (["success", ..], [capacity, times @ ..]) => {
                    cache.capacity = *capacity as usize;
                    cache.success_ttl = times.first().copied().unwrap_or(cache.success_ttl);
                    cache.success_ttl_min = times.get(1).copied().unwrap_or(cache.success_ttl_min);
                }
                (["denial", ..], [_, times @ ..]) => {
                    cache.denial_ttl = times.first().copied().unwrap_or(cache.denial_ttl);
                    cache.denial_ttl_min = times.get(1).copied().unwrap_or(cache.denial_ttl_min);
                }
                (["servfail", time], _) => match super::seconds(time) {
                    Some(seconds) => cache.failure_ttl = seconds,
                    None => self.wrong(directive, "servfail needs a time such as 5s"),
                },
                (["disable", "success", ..], _) => cache.success_ttl = 0,
                (["disable", "denial", ..], _) => cache.denial_ttl = 0,
                ([option, ..], _) => self.cannot(directive, &format!("the option {option:?} of \"cache\"")),
                ([], _) => {}
            }
        }
        server.cache = Some((cache, zones));
    }

    fn forward(&mut self, directive: &Directive, server: &mut Server) {
        let Some((from, to)) = directive.args.split_first() else {
            return self.wrong(directive, "it needs a zone and servers");
        };
        let from = self.zones(directive, std::slice::from_ref(from), server);
        let mut forward = Forward {
            from,
            except: Vec::new(),
            servers: Vec::new(),
            policy: Policy::Random,
            force_tcp: false,
            max_fails: MAX_FAILS,
        };
        for text in to.iter().take(FORWARD_MAX) {
            self.add_servers(directive, text, &mut forward.servers);
        }
        for line in &directive.lines {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            match &*words {
                ["except", ..] => forward.except = self.zones(directive, line.get(1..).unwrap_or_default(), server),
                ["force_tcp"] => forward.force_tcp = true,
                ["policy", "random"] => forward.policy = Policy::Random,
                ["policy", "round_robin"] => forward.policy = Policy::RoundRobin,
                ["policy", "sequential"] => forward.policy = Policy::Sequential,
                ["max_fails", text] => match text.parse() {
                    Ok(count) => forward.max_fails = count,
                    Err(_) => self.wrong(directive, "max_fails needs a number"),
                },
                // Servers are judged by the answers to real questions; how many may be open is bounded for all together.
                ["prefer_udp" | "expire" | "health_check" | "max_concurrent", ..] | [] => {}
                [option, ..] => self.cannot(directive, &format!("the option {option:?} of \"forward\"")),
            }
        }
        let own = forward.servers.iter().filter(|server| self.machine.own.contains(server)).count();
        if own > 0 {
            forward.servers.retain(|server| !self.machine.own.contains(server));
            self.wrong(
                directive,
                "questions sent on to the cluster's own DNS would come back; that server is left out",
            );
        }
        server.forwards.push(Arc::new(forward));
    }

    fn add_servers(&mut self, directive: &Directive, text: &str, servers: &mut Vec<SocketAddr>) {
        if text.starts_with('/') {
            if text != "/etc/resolv.conf" {
                return self.wrong(directive, &format!("there is no file {text:?}"));
            }
            servers.extend(self.machine.name_servers.iter().map(|address| SocketAddr::new(*address, PORT)));
            return;
        }
        let plain = match text.split_once("://") {
            Some(("dns", rest)) => rest,
            Some((scheme, _)) => return self.cannot(directive, &format!("sending questions on by {scheme:?}")),
            None => text,
        };
        let address = plain.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address.map(|address| SocketAddr::new(address, PORT)).or_else(|_| plain.parse()) {
            Ok(server) => servers.push(server),
            Err(_) => self.wrong(directive, &format!("{text:?} is no address of a server")),
        }
    }
}

/// The zones that a key such as `.:53`, `example.org` or `10.0.0.0/8` stands for.
fn zone_key(key: &str) -> Result<Vec<Name>, (String, bool)> {
    let plain = match key.split_once("://") {
        Some(("dns", rest)) => rest,
        Some((scheme, _)) => return Err((format!("serving by {scheme:?} isn't supported"), true)),
        None => key,
    };
    let (zone, port) = match plain.rsplit_once(':') {
        Some((zone, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !zone.contains(':') => (zone, port),
        _ => (plain, "53"),
    };
    if port != "53" {
        return Err((format!("serving on another port than 53 isn't supported, so {key:?} isn't served"), true));
    }
    if let Some((address, bits)) = zone.split_once('/')
        && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>())
    {
        return reverse_zone(address, bits)
            .map(|zone| vec![zone])
            .ok_or_else(|| (format!("{key:?} is no zone"), false));
    }
    let zone = if zone.is_empty() { "." } else { zone };
    Name::parse_lower(zone).map(|zone| vec![zone]).map_err(|error| (format!("{key:?} is no zone: {error}"), false))
}

/// The reverse zone of a network whose prefix ends where a label does.
fn reverse_zone(address: IpAddr, bits: u8) -> Option<Name> {
    let (step, digits, end): (u8, Vec<String>, &str) = match address {
        IpAddr::V4(address) => (8, address.octets().iter().map(u8::to_string).collect(), "in-addr.arpa"),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 0xf]);
            (4, nibbles.map(|nibble| format!("{nibble:x}")).collect(), "ip6.arpa")
        }
    };
    if bits == 0 || !bits.is_multiple_of(step) {
        return None;
    }
    let mut labels: Vec<&str> = digits.get(..usize::from(bits / step))?.iter().map(String::as_str).collect();
    labels.reverse();
    labels.push(end);
    Name::parse(&labels.join(".")).ok()
}
