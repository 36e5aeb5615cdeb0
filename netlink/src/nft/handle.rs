//! The conversation about tables.

use rustix::io::Errno;
use rustix::net::netlink;

use super::codec::{self, about};
use super::expression::{CtKey, Expression, Register};
use super::model::{ChainBase, ChainKind, Change, Contents, Family, Hook, Rule, Set, Table};
use super::plan::plan;
use crate::error::NetlinkError;
use crate::namespace::Namespace;
use crate::socket::Socket;
use crate::wire::{be, find};

/// Rounds of looking and mending, while others change their own tables. Each round that fails is one in which somebody
/// else got a batch in.
const ROUNDS_MAX: u32 = 200;
/// Where the kernel translates destinations, and sources.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;

/// A socket for the nftables of one network namespace.
#[derive(Debug)]
pub struct Netfilter {
    socket: Socket,
}

impl Netfilter {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel has no netfilter, or no file descriptor is left.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Some(netlink::NETFILTER))? })
    }

    /// Opens one in another namespace.
    ///
    /// # Errors
    /// As [`Netfilter::open`], or the namespace can't be entered.
    pub fn open_in(namespace: &Namespace) -> Result<Self, NetlinkError> {
        namespace.enter(Self::open)
    }

    /// The number of the last change to any table.
    ///
    /// # Errors
    /// The kernel refused: it has no nftables, or the privilege is missing.
    pub fn generation(&mut self) -> Result<u32, NetlinkError> {
        let question = codec::message(codec::GET_GENERATION, 0, 0);
        let answers = self.socket.request("use nftables", question)?;
        let number = |payload: &[u8]| payload.get(codec::HEADER_BYTES..).and_then(|rest| find(rest, 1)).and_then(be);
        let number = answers.iter().find_map(|answer| number(&answer.payload));
        number.ok_or(NetlinkError::Malformed("no generation"))
    }

    /// The number by which the kernel tells others who made a change; see [`News::drain_foreign`](super::News).
    ///
    /// # Errors
    /// The socket is broken.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    /// Families and names of all tables.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn tables(&mut self) -> Result<Vec<(Family, String)>, NetlinkError> {
        let question = codec::message(codec::GET_TABLE, 0, 0);
        self.socket.dump("list tables", &question, |_, payload| codec::table_of(payload))
    }

    /// Base chains of any table, whosever it is, that drop what reaches their end at this hook, as `table/chain`. A packet
    /// has to pass all of them, so nothing that another table accepts gets past one.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn dropping(&mut self, hook: Hook) -> Result<Vec<String>, NetlinkError> {
        let question = codec::message(codec::GET_CHAIN, 0, 0);
        self.socket.dump("list chains", &question, |_, payload| {
            let (_, table) = codec::table_of(payload)?;
            let chain = codec::read_chain(payload)?;
            let drops = chain.base.is_some_and(|base| base.hook == hook && base.drops);
            drops.then(|| format!("{table}/{}", chain.name))
        })
    }

    /// A table with all that is in it, as of one moment.
    ///
    /// # Errors
    /// The kernel refused, or tables change all the time.
    pub fn table(&mut self, family: Family, name: &str) -> Result<Option<Table>, NetlinkError> {
        self.table_at(family, name).map(|(table, _)| table)
    }

    fn table_at(&mut self, family: Family, name: &str) -> Result<(Option<Table>, u32), NetlinkError> {
        for _ in 0..ROUNDS_MAX {
            let before = self.generation()?;
            let table = match self.read(family, name) {
                Ok(table) => table,
                Err(error) if error.is_gone() => None,
                Err(error) => return Err(error),
            };
            if self.generation()? == before {
                return Ok((table, before));
            }
        }
        Err(NetlinkError::Unsettled("the list of tables".to_owned()))
    }

    fn read(&mut self, family: Family, name: &str) -> Result<Option<Table>, NetlinkError> {
        match self.socket.request("look at a table", about(codec::GET_TABLE, family, name)) {
            Ok(_) => {}
            Err(error) if error.is_gone() => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut table = Table::new(family, name);
        let ours = |payload: &[u8]| codec::table_of(payload).is_some_and(|(of, table)| of == family && table == name);
        table.sets = self.sets(family, name)?;
        let question = about(codec::GET_CHAIN, family, name);
        table.chains = self
            .socket
            .dump("list chains", &question, |_, payload| ours(payload).then(|| codec::read_chain(payload)).flatten())?;
        let question = about(codec::GET_RULE, family, name);
        let rules = self
            .socket
            .dump("list rules", &question, |_, payload| ours(payload).then(|| codec::read_rule(payload)).flatten())?;
        for (chain, rule) in rules {
            if let Some(chain) = table.chains.iter_mut().find(|found| found.name == chain) {
                chain.rules.push(rule);
            }
        }
        Ok(Some(table))
    }

    fn sets(&mut self, family: Family, table: &str) -> Result<Vec<Set>, NetlinkError> {
        let ours = |payload: &[u8]| codec::table_of(payload).is_some_and(|(of, name)| of == family && name == table);
        let question = about(codec::GET_SET, family, table);
        let mut sets = self
            .socket
            .dump("list sets", &question, |_, payload| ours(payload).then(|| codec::read_set(payload)).flatten())?;
        for set in sets.iter_mut().filter(|set| set.from_packets.is_none()) {
            set.elements = Some(self.elements(family, table, &set.name)?);
        }
        Ok(sets)
    }

    /// The elements of one set.
    ///
    /// # Errors
    /// The kernel refused, or there is no such set.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Contents, NetlinkError> {
        let mut question = about(codec::GET_ELEMENT, family, table);
        question.text(2, set);
        let lists = self
            .socket
            .dump(&format!("list set {set}"), &question, |_, payload| Some(codec::read_elements(payload)))?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// Carries out changes to one table at one moment. With a generation, only if nothing has changed in any table since
    /// then; otherwise it is refused with ERESTART.
    ///
    /// # Errors
    /// The kernel refused one of them; none has happened.
    pub fn apply(
        &mut self,
        family: Family,
        table: &str,
        changes: &[Change],
        generation: Option<u32>,
    ) -> Result<(), NetlinkError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = vec![codec::begin(generation)];
        // Which change a message belongs to, for errors.
        let mut owners = vec![0];
        for (place, change) in changes.iter().enumerate() {
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            for message in codec::change(family, table, change, number)? {
                batch.push(message);
                owners.push(place);
            }
        }
        let last = batch.len() - 1;
        batch.push(codec::end());
        self.socket.batch(batch, last, |place| {
            let change = owners.get(place).and_then(|owner| changes.get(*owner)).filter(|_| place > 0);
            let what = change.map_or_else(|| "begin a batch".to_owned(), ToString::to_string);
            format!("{what} (table {table})")
        })
    }

    /// Looks, and makes the table as wanted. Says how many changes it took: none on a healthy kernel.
    ///
    /// # Errors
    /// The kernel refused, or others change their tables faster than we look.
    pub fn converge(&mut self, wanted: &Table) -> Result<usize, NetlinkError> {
        self.converge_from(wanted.family, &wanted.name, |_| wanted.clone())
    }

    /// As [`Netfilter::converge`], where what is wanted follows from what is there, or is too large to be kept.
    ///
    /// # Errors
    /// As [`Netfilter::converge`].
    pub fn converge_from(
        &mut self,
        family: Family,
        name: &str,
        mut wanted: impl FnMut(Option<&Table>) -> Table,
    ) -> Result<usize, NetlinkError> {
        for _ in 0..ROUNDS_MAX {
            let (found, generation) = self.table_at(family, name)?;
            let changes = plan(found.as_ref(), wanted(found.as_ref()));
            // All of them are done, to what was found: there is nothing to be learned from a second look.
            match self.apply(family, name, &changes, Some(generation)) {
                Ok(()) => return Ok(changes.len()),
                Err(error) if error.errno() == Some(Errno::RESTART) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NetlinkError::Unsettled(format!("table {name}")))
    }

    /// Has the kernel go on translating the addresses of connections that it knows, whoever takes tables away: it does so
    /// only while there are chains that could. These are in a table of their own, `name`, which nobody else can take away,
    /// and which is gone with this socket.
    ///
    /// # Errors
    /// The kernel knows no tables that belong to somebody, as before Linux 5.12; or another socket has that table.
    pub fn keep_translating(&mut self, family: Family, name: &str) -> Result<(), NetlinkError> {
        let chains = [
            ("prerouting", Hook::Prerouting, DESTINATION_NAT),
            ("input", Hook::Input, SOURCE_NAT),
            ("output", Hook::Output, DESTINATION_NAT),
            ("postrouting", Hook::Postrouting, SOURCE_NAT),
        ];
        let chain = |(name, hook, priority): (&str, Hook, i32)| {
            let base = Some(ChainBase { kind: ChainKind::Nat, hook, priority, drops: false });
            Change::AddChain { name: name.to_owned(), base }
        };
        // It knows connections only while some rule asks for them.
        let asks = Rule { expressions: vec![Expression::Ct { key: CtKey::Status, to: Register(0) }] };
        let mut changes = vec![Change::OwnTable];
        changes.extend(chains.map(chain));
        changes.push(Change::AddRule { chain: "input".to_owned(), rule: asks });
        self.apply(family, name, &changes, None)
    }

    /// Takes a table away, if it is there. Says whether it was.
    ///
    /// # Errors
    /// The kernel refused for another reason than that there is none.
    pub fn delete_table(&mut self, family: Family, name: &str) -> Result<bool, NetlinkError> {
        match self.apply(family, name, &[Change::DeleteTable], None) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
