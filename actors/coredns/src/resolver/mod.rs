//! Names that are none of the cluster's: what upstream servers say about them, remembered for a while.
//!
//! ```text
//! whoever answers ─ Asking ─▶ resolver ─▶ cache ─ Told ─▶ whoever asked
//!                                │  ▲
//!                                ▼  │ one exchange per question, however many ask it
//!                             upstream servers
//! ```

mod cache;
mod exchange;
mod health;
mod run;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

pub(crate) use self::run::resolver;
use crate::corefile::{Cache, Forward};
use crate::wire::Rcode;
use crate::wire::message::Record;
use crate::wire::name::Name;

/// Questions that may wait for the resolver. More are refused: their askers ask again.
pub(crate) const WAITING_MAX: usize = 4096;

/// What is asked, apart from by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    /// In small letters.
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Signatures are wanted.
    pub(crate) signatures: bool,
    /// The upstream servers need not check them.
    pub(crate) unchecked: bool,
    /// Whom.
    pub(crate) forward: Arc<Forward>,
    /// How answers are remembered.
    pub(crate) cache: Option<Cache>,
}

/// A question on its way.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) ask: Ask,
    /// What the answer is told with.
    pub(crate) ticket: u64,
    /// Has room for as many answers as its owner has questions open.
    pub(crate) back: mpsc::Sender<Told>,
    /// Who asked.
    pub(crate) peer: IpAddr,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) ticket: u64,
    pub(crate) answer: Arc<Answer>,
    /// For how many seconds it may still be remembered; `None` if each record has a time of its own.
    pub(crate) ttl: Option<u32>,
}

/// What upstream servers say about a question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) rcode: Rcode,
    /// Its signatures were checked.
    pub(crate) authentic: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

impl Answer {
    /// Nobody had an answer.
    pub(crate) fn failure() -> Self {
        Self { rcode: Rcode::SERVER_FAILURE, ..Self::default() }
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.answers.iter().chain(&self.authority).chain(&self.additional)
    }

    /// Bytes that it takes, more or less.
    fn bytes(&self) -> usize {
        let of = |record: &Record| size_of::<Record>() + record.owner.wire().len() + record.data.len();
        size_of::<Self>() + self.records().map(of).sum::<usize>()
    }
}
