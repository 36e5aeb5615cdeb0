//! From a question to an answer: pure. The directives of a server block are asked in CoreDNS' order: `rewrite`, `hosts`,
//! `kubernetes`, `file`, `forward`.
//!
//! Names of the cluster and of hosts are written straight into the buffer that is sent. What has to be asked of others
//! first comes back as [`Pending`], and is written by [`complete`] when they have answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k3sd_runtime::Rng;

use crate::corefile::{Cache, Forward, Kubernetes, Question, Rename, Server, ZoneFile, apply_rewrites, zone_of};
use crate::keeper::View;
use crate::resolver::{Answer, Ask};
use crate::wire::message::{Message, Record, target};
use crate::wire::name::{Name, NameBuf, below, same};
use crate::wire::query::{Bad, Query};
use crate::wire::writer::{Section, Writer, refuse};
use crate::wire::{CLASS_IN, Rcode, flag, kind};
use crate::zone::{Asked, Verdict, answer as answer_cluster, soa};

/// Names that lead to names that lead to names.
const ALIASES_MAX: usize = 8;
/// The class that stands for all.
const CLASS_ANY: u16 = 255;
/// Bytes of the longest answer by UDP, whatever a client allows: more is not worth the fragments.
const UDP_BYTES_MAX: usize = 4096;
/// Bytes of the longest answer by TCP.
const TCP_BYTES_MAX: usize = 65_535;

/// Where a question came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) peer: SocketAddr,
    pub(crate) is_tcp: bool,
}

/// What becomes of a question.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The answer stands at the end of the buffer.
    Answered,
    /// There is nothing to say.
    Silence,
    /// Others have to be asked first.
    Ask(Ask, Box<Pending>),
}

/// What is needed to write an answer when others have given theirs.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The question, as it came.
    bytes: Box<[u8]>,
    source: Source,
    /// What is known already: where the name leads.
    prefix: Vec<Record>,
    renames: Vec<Rename>,
    logs: bool,
}

/// Answers what came, at the end of `out`, as far as that is possible without others.
pub(crate) fn respond(
    bytes: &[u8],
    source: Source,
    view: &View,
    own: &[IpAddr],
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Outcome {
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(Bad::Silence) => return Outcome::Silence,
        Err(Bad::Refuse { id, flags, question, rcode }) => {
            refuse(id, flags, question, rcode, out);
            return Outcome::Answered;
        }
    };
    let Some(server) = view.servers.of(query.name.wire()) else { return refused(&query, Rcode::REFUSED, out) };
    if matches!(query.kind, kind::AXFR | kind::IXFR) {
        return refused(&query, Rcode::REFUSED, out);
    }
    let begin = out.len();
    let limit = limit(&query, source);
    if server.rewrites.is_empty() {
        if !matches!(query.class, CLASS_IN | CLASS_ANY) {
            return refused(&query, Rcode::REFUSED, out);
        }
        let walk = Walk { view, server, own, query: &query, kind: query.kind, start: None };
        let mut writer = Writer::answer(&query, limit, out);
        return match walk.run(&mut writer, rng) {
            Step::Written => {
                writer.finish();
                log_bytes(server.logs, &query, source, out.get(begin..).unwrap_or_default());
                Outcome::Answered
            }
            Step::Ask { name, prefix, forward } => {
                out.truncate(begin);
                ask(&query, server, source, (name, query.kind, query.class), (prefix, Vec::new()), forward, bytes)
            }
        };
    }
    let asked = Question { name: Name::from_wire(query.name.wire()), kind: query.kind, class: query.class };
    let (question, renames) = apply_rewrites(&server.rewrites, &asked).unwrap_or_else(|| (asked.clone(), Vec::new()));
    if !matches!(question.class, CLASS_IN | CLASS_ANY) {
        return refused(&query, Rcode::REFUSED, out);
    }
    let start = (question.name != asked.name).then(|| question.name.clone());
    let walk = Walk { view, server, own, query: &query, kind: question.kind, start };
    // Without a limit: names may become shorter or longer.
    let mut writer = Writer::answer(&query, TCP_BYTES_MAX, out);
    match walk.run(&mut writer, rng) {
        Step::Written => {
            writer.finish();
            rename(&query, &renames, limit, begin, out);
            log_bytes(server.logs, &query, source, out.get(begin..).unwrap_or_default());
            Outcome::Answered
        }
        Step::Ask { name, prefix, forward } => {
            out.truncate(begin);
            ask(&query, server, source, (name, question.kind, question.class), (prefix, renames), forward, bytes)
        }
    }
}

fn limit(query: &Query<'_>, source: Source) -> usize {
    if source.is_tcp { TCP_BYTES_MAX } else { query.udp_bytes().min(UDP_BYTES_MAX) }
}

fn refused(query: &Query<'_>, rcode: Rcode, out: &mut Vec<u8>) -> Outcome {
    let mut writer = Writer::answer(query, TCP_BYTES_MAX, out);
    writer.set_rcode(rcode);
    writer.finish();
    Outcome::Answered
}

fn ask(
    query: &Query<'_>,
    server: &Server,
    source: Source,
    (name, kind, class): (Name, u16, u16),
    (prefix, renames): (Vec<Record>, Vec<Rename>),
    forward: Arc<Forward>,
    bytes: &[u8],
) -> Outcome {
    let cache = server.cache.as_ref().filter(|(_, zones)| zone_of(zones, name.wire()).is_some());
    let cache: Option<Cache> = cache.map(|(cache, _)| *cache);
    let signatures = query.edns.is_some_and(|edns| edns.wants_signatures);
    let unchecked = query.flags & flag::CHECKING_DISABLED != 0;
    let pending = Pending { bytes: bytes.into(), source, prefix, renames, logs: server.logs };
    Outcome::Ask(Ask { name, kind, class, signatures, unchecked, forward, cache }, Box::new(pending))
}

/// Writes an answer from what others have said, at the end of `out`.
pub(crate) fn complete(pending: &Pending, answer: &Answer, ttl: Option<u32>, rng: &mut Rng, out: &mut Vec<u8>) {
    // It was understood before.
    let Ok(query) = Query::parse(&pending.bytes) else { return };
    let begin = out.len();
    let mut writer = Writer::answer(&query, limit(&query, pending.source), out);
    writer.set_rcode(answer.rcode);
    if answer.authentic {
        writer.set_flag(flag::AUTHENTIC);
    }
    for record in &pending.prefix {
        put(&mut writer, Section::Answer, &query, record, &pending.renames, None);
    }
    // Addresses come in an order that begins somewhere else each time.
    let is_address = |record: &&Record| matches!(record.kind, kind::A | kind::AAAA);
    let others = answer.answers.iter().filter(|record| !is_address(record));
    let count = answer.answers.iter().filter(is_address).count();
    let first = usize::try_from(rng.below(count as u64)).unwrap_or_default();
    let addresses = answer.answers.iter().filter(is_address).cycle().skip(first).take(count);
    for record in others.chain(addresses) {
        put(&mut writer, Section::Answer, &query, record, &pending.renames, ttl);
    }
    for (section, records) in [(Section::Authority, &answer.authority), (Section::Additional, &answer.additional)] {
        for record in records {
            put(&mut writer, section, &query, record, &pending.renames, ttl);
        }
    }
    writer.finish();
    log_bytes(pending.logs, &query, pending.source, out.get(begin..).unwrap_or_default());
}

/// Writes a record of one's own, made to fit the question that was asked at first.
fn put(
    writer: &mut Writer<'_>,
    section: Section,
    query: &Query<'_>,
    record: &Record,
    renames: &[Rename],
    ttl: Option<u32>,
) {
    let renamed = (!renames.is_empty()).then(|| {
        let mut record = Record { ttl: ttl.unwrap_or(record.ttl), ..record.clone() };
        renames.iter().for_each(|rename| rename.apply(&mut record));
        record
    });
    let shown = renamed.as_ref().unwrap_or(record);
    let ttl = if renamed.is_some() { shown.ttl } else { ttl.unwrap_or(record.ttl) };
    let owner = Some(shown.owner.wire()).filter(|owner| !same(owner, query.name.wire()));
    writer.record_of_class(section, owner, (shown.kind, shown.class, ttl), &[&shown.data]);
}

/// Writes an answer anew, made to fit the question that was asked at first.
fn rename(query: &Query<'_>, renames: &[Rename], limit: usize, begin: usize, out: &mut Vec<u8>) {
    let Ok(message) = Message::parse(out.get(begin..).unwrap_or_default()) else { return };
    out.truncate(begin);
    let mut writer = Writer::answer(query, limit, out);
    writer.set_rcode(message.rcode);
    writer.set_flag(message.flags & (flag::AUTHORITATIVE | flag::TRUNCATED));
    let sections = [
        (Section::Answer, &message.answers),
        (Section::Authority, &message.authority),
        (Section::Additional, &message.additional),
    ];
    for (section, records) in sections {
        for record in records {
            put(&mut writer, section, query, record, renames, None);
        }
    }
    writer.finish();
}

/// Says who asked what, if that is wanted, as CoreDNS does.
fn log_bytes(is_wanted: bool, query: &Query<'_>, source: Source, answer: &[u8]) {
    if !is_wanted {
        return;
    }
    let flags = crate::wire::u16_at(answer, 2).unwrap_or_default();
    let rcode = Rcode(flags & 0xf).word();
    let (name, kind) = (crate::wire::name::text(query.name.wire()), kind::name(query.kind));
    let protocol = if source.is_tcp { "tcp" } else { "udp" };
    tracing::info!(client = %source.peer, id = query.id, kind, name, protocol, rcode, bytes = answer.len(), "answered");
}

/// What became of a way through a server block.
enum Step {
    Written,
    Ask { name: Name, prefix: Vec<Record>, forward: Arc<Forward> },
}

/// A way through a server block.
struct Walk<'a> {
    view: &'a View,
    server: &'a Server,
    own: &'a [IpAddr],
    query: &'a Query<'a>,
    kind: u16,
    /// Another name than the one that was asked for.
    start: Option<Name>,
}

/// What a directive has done.
enum Done {
    /// The answer is whole.
    Written,
    /// It isn't about that name; the next directive may be.
    Next,
    /// The name stands for another.
    Alias(Name, u32),
}

impl Walk<'_> {
    fn run(&self, writer: &mut Writer<'_>, rng: &mut Rng) -> Step {
        let mut name = self.start.clone();
        let mut prefix = Vec::new();
        for _ in 0..ALIASES_MAX {
            let owner = name.as_ref().map(|name| name.wire());
            let lower = owner.map(NameBuf::lower);
            let current = lower.as_ref().unwrap_or(&self.query.name).wire();
            match self.look(current, owner, writer, rng, &mut prefix) {
                Done::Written => return Step::Written,
                Done::Alias(target, ttl) => {
                    if ttl > 0 {
                        writer.record(Section::Answer, owner, (kind::CNAME, ttl), &[target.wire()]);
                        let owner = Name::from_wire(owner.unwrap_or(self.query.name.wire()));
                        let data = target.wire().into();
                        prefix.push(Record { owner, kind: kind::CNAME, class: CLASS_IN, ttl, data });
                    }
                    if self.kind == kind::CNAME {
                        writer.set_flag(flag::AUTHORITATIVE);
                        return Step::Written;
                    }
                    name = Some(target);
                }
                Done::Next => {
                    let forward = self.server.forwards.iter().find(|forward| forward.takes(current));
                    let Some(forward) = forward else { break };
                    return Step::Ask { name: Name::from_wire(current), prefix, forward: forward.clone() };
                }
            }
        }
        writer.set_rcode(Rcode::SERVER_FAILURE);
        Step::Written
    }

    /// Asks the directives that know names themselves.
    fn look(
        &self,
        name: &[u8],
        owner: Option<&[u8]>,
        writer: &mut Writer<'_>,
        rng: &mut Rng,
        prefix: &mut Vec<Record>,
    ) -> Done {
        for hosts in self.server.hosts.iter().filter(|hosts| zone_of(&hosts.zones, name).is_some()) {
            let first = |count: usize| usize::try_from(rng.below(count as u64)).unwrap_or_default();
            match hosts.answer((name, self.kind, owner), first, writer) {
                Some(_) => {
                    writer.set_flag(flag::AUTHORITATIVE);
                    return Done::Written;
                }
                None if hosts.fall.lets(name) => {}
                None => {
                    writer.set_rcode(Rcode::NO_SUCH_NAME);
                    return Done::Written;
                }
            }
        }
        if let Some(config) = &self.server.kubernetes
            && let Some(zone) = zone_of(&config.zones, name)
        {
            match self.cluster(config, zone, (name, owner), writer, rng) {
                Done::Next => {}
                done => return done,
            }
        }
        let files = self.server.files.iter().filter(|file| below(name, file.origin.wire()).is_some());
        match files.max_by_key(|file| file.origin.wire().len()) {
            Some(file) => self.file(file, name, writer, prefix),
            None => Done::Next,
        }
    }

    fn cluster(
        &self,
        config: &Kubernetes,
        zone: &Name,
        (name, owner): (&[u8], Option<&[u8]>),
        writer: &mut Writer<'_>,
        rng: &mut Rng,
    ) -> Done {
        let zone = zone.wire();
        let front = below(name, zone).unwrap_or_default();
        let asked = Asked { name, front, zone, kind: self.kind, owner, servers: self.own };
        let known = &self.view.zone;
        if front.is_empty() && self.kind == kind::SOA {
            soa(writer, Section::Answer, zone, config.ttl, known.serial);
            writer.set_flag(flag::AUTHORITATIVE);
            return Done::Written;
        }
        match answer_cluster(known, config, &asked, writer, rng) {
            Verdict::Alias(target) => return Done::Alias(target, config.ttl.max(1)),
            Verdict::Answered => {}
            Verdict::NoName if !known.is_synced => {
                // It may be there; who asks again learns it.
                writer.set_rcode(Rcode::SERVER_FAILURE);
                return Done::Written;
            }
            Verdict::NoName if config.fall.lets(name) => return Done::Next,
            verdict => {
                if verdict == Verdict::NoName {
                    writer.set_rcode(Rcode::NO_SUCH_NAME);
                }
                soa(writer, Section::Authority, zone, config.ttl, known.serial);
            }
        }
        writer.set_flag(flag::AUTHORITATIVE);
        Done::Written
    }

    fn file(&self, file: &ZoneFile, name: &[u8], writer: &mut Writer<'_>, prefix: &mut Vec<Record>) -> Done {
        let Some(reply) = file.look_up(name, self.kind) else { return Done::Next };
        if reply.no_name && file.fall.lets(name) {
            return Done::Next;
        }
        // Where it leads out of the zone, others know more.
        let outside = reply.answers.last().filter(|_| self.kind != kind::CNAME && reply.authority.is_empty());
        let outside = outside.filter(|record| record.kind == kind::CNAME && record.kind != self.kind);
        let next = outside.and_then(target).map(|name| Name::from_wire(name).lower());
        let sections = [
            (Section::Answer, &reply.answers),
            (Section::Authority, &reply.authority),
            (Section::Additional, &reply.additional),
        ];
        for (section, records) in sections {
            for record in records {
                put(writer, section, self.query, record, &[], None);
            }
        }
        if let Some(next) = next {
            prefix.extend(reply.answers);
            // The record that leads there is written already.
            return Done::Alias(next, 0);
        }
        if reply.no_name {
            writer.set_rcode(Rcode::NO_SUCH_NAME);
        }
        if !reply.is_referral {
            writer.set_flag(flag::AUTHORITATIVE);
        }
        Done::Written
    }
}
