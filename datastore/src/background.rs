//! What a store on a server does beside answering: its writer, and the traffic of its connections. None of it is
//! spawned by the store. It is one future, for somebody who supervises it: where that future is dropped, all of this
//! ends at the same moment, and the store answers [`StoreError::Closed`](crate::StoreError::Closed) or
//! [`StoreError::Unknown`](crate::StoreError::Unknown) from then on.

use std::fmt;
use std::future::Future;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;

use crate::backend::BoxFuture;

/// How many pieces of work may wait to be begun: more than a store has connections.
const WAITING_MAX: usize = 64;

type Work = BoxFuture<'static, ()>;

/// The running work of a store; see the module's page.
pub struct Background {
    inbox: mpsc::Receiver<Work>,
    running: FuturesUnordered<Work>,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

/// Whence work is handed over. Cloning it shares the way.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(mpsc::Sender<Work>);

/// Nobody runs the work any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotRunning;

impl Background {
    /// With nothing to do yet.
    pub(crate) fn new() -> (Spawner, Self) {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        (Spawner(sender), Self { inbox, running: FuturesUnordered::new() })
    }

    /// Works until `wanted` has its result, which may need that work.
    pub(crate) async fn until<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            tokio::select! {
                result = wanted.as_mut() => return result,
                () = self.step() => {}
            }
        }
    }

    /// Works until the store is closed and everything is finished.
    pub async fn run(mut self) {
        while !(self.inbox.is_closed() && self.inbox.is_empty() && self.running.is_empty()) {
            self.step().await;
        }
    }

    /// Until there is more to do, or less.
    async fn step(&mut self) {
        tokio::select! {
            Some(work) = self.inbox.recv() => self.running.push(work),
            Some(()) = self.running.next() => {}
            // Whoever could hand something over is gone, and nothing is running.
            else => self.inbox.close(),
        }
    }
}

impl Spawner {
    /// Hands work over, to be begun at once.
    pub(crate) async fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), NotRunning> {
        self.0.send(Box::pin(work)).await.map_err(|_| NotRunning)
    }

    /// Whether nobody runs the work any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_runs_while_something_is_waited_for_and_to_its_end() {
        let (spawner, mut background) = Background::new();
        let (reply, answer) = oneshot::channel();
        let asked = async {
            spawner.spawn(async move { reply.send(7).unwrap_or_default() }).await.expect("it is taken");
            answer.await
        };
        assert_eq!(background.until(asked).await, Ok(7));
        let (reply, answer) = oneshot::channel();
        spawner.spawn(async move { reply.send(8).unwrap_or_default() }).await.expect("it is taken");
        drop(spawner);
        background.run().await;
        assert_eq!(answer.await, Ok(8));
    }

    #[tokio::test]
    async fn nothing_goes_on_when_it_is_dropped() {
        let (spawner, background) = Background::new();
        let (held, gone) = oneshot::channel::<()>();
        spawner
            .spawn(async move {
                let _held = held;
                std::future::pending().await
            })
            .await
            .expect("it is taken");
        drop(background);
        assert!(gone.await.is_err());
        assert_eq!(spawner.spawn(async {}).await, Err(NotRunning));
        assert!(spawner.is_closed());
    }
}
