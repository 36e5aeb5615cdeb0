//! An actor that notes down its births and ends, and goes wrong as planned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::actor::{Actor, Context, Stop};
use crate::cell::lock;
use crate::exit::ActorError;
use crate::message_kinds;

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Its `init` began.
    Born,
    /// It ended in order, through its `terminate`.
    Left,
    /// It was dropped: by a kill, an error, a panic or a failed start.
    Dropped,
}

/// One line of a [`Journal`]; prints as `+path`, `-path` or `!path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Whose.
    pub path: Arc<str>,
    /// What happened.
    pub what: What,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.what {
            What::Born => '+',
            What::Left => '-',
            What::Dropped => '!',
        };
        write!(f, "{sign}{}", self.path)
    }
}

/// What goes wrong with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// Its `init` returns an error.
    FailStart,
    /// Its `init` never returns.
    HangInStart,
    /// Asked to stop, it never answers.
    HangAtStop,
}

#[derive(Default)]
struct Book {
    notes: Vec<Note>,
    alive: BTreeSet<Arc<str>>,
    overlaps: Vec<Arc<str>>,
    plans: BTreeMap<(String, Plan), u32>,
}

/// What the probes of one stage note down, in order, and what is planned for them. Cloning shares it.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Book>>);

impl Journal {
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.0)
    }

    /// The notes since the last call.
    ///
    /// # Panics
    /// When two incarnations of one path ever lived at once.
    pub fn take(&self) -> Vec<Note> {
        let book = &mut *self.book();
        assert_eq!(book.overlaps, [], "two incarnations at once");
        std::mem::take(&mut book.notes)
    }

    /// The paths of the probes that live.
    pub fn alive(&self) -> BTreeSet<Arc<str>> {
        self.book().alive.clone()
    }

    /// Plans a mishap for the next so many times; 0 calls it off.
    pub fn plan(&self, path: &str, plan: Plan, times: u32) {
        self.book().plans.insert((path.to_owned(), plan), times);
    }

    fn is_due(&self, path: &str, plan: Plan) -> bool {
        match self.book().plans.get_mut(&(path.to_owned(), plan)) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

/// Notes the end, however it comes about.
#[derive(Debug)]
struct Life {
    journal: Journal,
    path: Arc<str>,
    in_order: bool,
}

impl Life {
    fn begin(journal: Journal, path: Arc<str>) -> Self {
        {
            let book = &mut *journal.book();
            book.notes.push(Note { path: path.clone(), what: What::Born });
            if !book.alive.insert(path.clone()) {
                book.overlaps.push(path.clone());
            }
        }
        Self { journal, path, in_order: false }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let what = if self.in_order { What::Left } else { What::Dropped };
        let book = &mut *self.journal.book();
        book.alive.remove(&self.path);
        book.notes.push(Note { path: self.path.clone(), what });
    }
}

/// What a probe can be told.
#[derive(Debug)]
pub enum ProbeMsg {
    /// End by itself.
    Finish,
    /// End with an error.
    Fail,
    /// End with a panic.
    Panic,
    /// Never leave this handler.
    Hang,
}
message_kinds!(ProbeMsg { Finish, Fail, Panic, Hang });

/// See the module's page.
#[derive(Debug)]
pub struct Probe(Life);

impl Actor for Probe {
    type Args = Journal;
    type Msg = ProbeMsg;

    async fn init(ctx: &mut Context<ProbeMsg>, journal: Journal) -> Result<Self, ActorError> {
        let life = Life::begin(journal, ctx.path().clone());
        if life.journal.is_due(ctx.path(), Plan::FailStart) {
            return Err(ActorError::new("planned not to start"));
        }
        if life.journal.is_due(ctx.path(), Plan::HangInStart) {
            std::future::pending::<()>().await;
        }
        Ok(Self(life))
    }

    async fn handle(&mut self, ctx: &mut Context<ProbeMsg>, message: ProbeMsg) -> Result<(), ActorError> {
        match message {
            ProbeMsg::Finish => ctx.finish(),
            ProbeMsg::Fail => return Err(ActorError::new("told to fail")),
            ProbeMsg::Panic => panic!("told to panic"),
            ProbeMsg::Hang => std::future::pending().await,
        }
        Ok(())
    }

    async fn stopping(&mut self, ctx: &mut Context<ProbeMsg>) -> Stop {
        if self.0.journal.is_due(ctx.path(), Plan::HangAtStop) {
            std::future::pending::<()>().await;
        }
        Stop::Now
    }

    async fn terminate(&mut self, _: &mut Context<ProbeMsg>) {
        self.0.in_order = true;
    }
}
