//! Asks upstream servers, and remembers what they said.
//!
//! Owns:    the answers that are remembered, and what is known of the servers' health.
//! Needs:   the upstream servers.
//! Restart: permanent. What was remembered and what was being asked is gone; askers ask again.
//! Fails:   never; a question without an answer is answered with a failure.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ActorError, ChildSpec, Clock, Moment, Rng, TaskHandle, task};
use tokio::sync::mpsc;

use super::cache::Answers;
use super::exchange::{Exchanged, exchange};
use super::health::{Health, News};
use super::{Answer, Ask, Asking, Told};
use crate::corefile::{Forward, Policy};

/// Questions that are open upstream, at most. Each has a socket.
const OPEN_MAX: usize = 1024;
/// Askers of one question.
const ASKERS_MAX: usize = 1024;
/// Questions that come back in a loop are told of so often at most: a loop makes many.
const LOOPS_TOLD_EVERY: Duration = Duration::from_secs(60);

/// The resolver, as a child.
pub(crate) fn resolver(waiting: Lend<mpsc::Receiver<Asking>>) -> ChildSpec {
    task("resolver", move |handle| resolve(handle, waiting.clone()))
}

struct Asker {
    ticket: u64,
    back: mpsc::Sender<Told>,
}

type Exchanges = FuturesUnordered<BoxFuture<'static, (Ask, Exchanged)>>;

struct Resolver {
    clock: Clock,
    rng: Rng,
    answers: Answers,
    open: HashMap<Ask, Vec<Asker>>,
    health: Health,
    exchanges: Exchanges,
    turn: usize,
    loops: u64,
    loops_told: Option<Moment>,
}

async fn resolve(handle: TaskHandle, waiting: Lend<mpsc::Receiver<Asking>>) -> Result<(), ActorError> {
    let mut waiting = waiting.borrow()?;
    let mut resolver = Resolver {
        clock: handle.system().clock().clone(),
        rng: handle.rng(),
        answers: Answers::default(),
        open: HashMap::new(),
        health: Health::default(),
        exchanges: FuturesUnordered::new(),
        turn: 0,
        loops: 0,
        loops_told: None,
    };
    loop {
        tokio::select! {
            asking = waiting.recv() => match asking {
                Some(asking) => resolver.ask(asking),
                None => return Ok(()),
            },
            Some((ask, exchanged)) = resolver.exchanges.next() => resolver.answered(&ask, exchanged),
        }
        let (open, known, loops) = (resolver.open.len(), resolver.answers.len(), resolver.loops);
        handle.note(vec![format!("{open} questions open, {known} answers remembered, {loops} came back in a loop")]);
    }
}

impl Resolver {
    fn ask(&mut self, asking: Asking) {
        let Asking { ask, ticket, back, peer } = asking;
        let now = self.clock.now();
        if let Some((answer, ttl)) = self.answers.get(&ask, now) {
            return tell(&back, Told { ticket, answer, ttl: Some(ttl) });
        }
        let failed = |back: &mpsc::Sender<Told>| {
            tell(back, Told { ticket, answer: Arc::new(Answer::failure()), ttl: None });
        };
        if let Some(askers) = self.open.get_mut(&ask) {
            if ask.forward.servers.iter().any(|server| server.ip() == peer) {
                // It would wait for itself.
                self.loops += 1;
                if self.loops_told.is_none_or(|told| now.since(told) >= LOOPS_TOLD_EVERY) {
                    self.loops_told = Some(now);
                    let (name, times) = (&ask.name, self.loops);
                    tracing::warn!(%name, %peer, times, "a question came back from the server that it was sent on to");
                }
                return failed(&back);
            }
            if askers.len() >= ASKERS_MAX {
                return failed(&back);
            }
            return askers.push(Asker { ticket, back });
        }
        if self.open.len() >= OPEN_MAX || ask.forward.servers.is_empty() {
            return failed(&back);
        }
        let order = self.order(&ask.forward, now);
        let (clock, rng) = (self.clock.clone(), Rng::seeded(self.rng.next_u64()));
        let asked = ask.clone();
        self.exchanges.push(Box::pin(async move { (asked.clone(), exchange(asked, order, clock, rng).await) }));
        self.open.insert(ask, vec![Asker { ticket, back }]);
    }

    /// The servers in the order in which they are asked: those that rest come last.
    fn order(&mut self, forward: &Forward, now: Moment) -> Vec<SocketAddr> {
        self.turn = self.turn.wrapping_add(1);
        let turn = match forward.policy {
            Policy::Sequential => 0,
            Policy::RoundRobin => self.turn,
            Policy::Random => (self.rng.next_u64() >> 33) as usize,
        };
        let mut order = forward.servers.clone();
        order.rotate_left(turn % forward.servers.len().max(1));
        order.sort_by_key(|server| self.health.rests(*server, now));
        order
    }

    fn answered(&mut self, ask: &Ask, exchanged: Exchanged) {
        let now = self.clock.now();
        for (server, is_well) in exchanged.asked {
            match self.health.note(server, is_well, ask.forward.max_fails, now) {
                Some(News::Down { failed }) => {
                    tracing::warn!(%server, failed, "an upstream server of the DNS gives no answers");
                }
                Some(News::Up { failed }) => {
                    tracing::info!(%server, failed, "an upstream server of the DNS answers again");
                }
                None => {}
            }
        }
        let answer = Arc::new(exchanged.answer.unwrap_or_else(Answer::failure));
        let ttl = self.answers.put(ask, &answer, now);
        for Asker { ticket, back } in self.open.remove(ask).unwrap_or_default() {
            tell(&back, Told { ticket, answer: answer.clone(), ttl });
        }
    }
}

/// Who asked may be gone; its queue has room for as many answers as it may have questions open.
fn tell(back: &mpsc::Sender<Told>, told: Told) {
    back.try_send(told).ok();
}
