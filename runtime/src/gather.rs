//! Futures that a library would spawn, run as part of the task that serves them: they end with it, and nothing is left.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::rt::Executor;
use tokio::sync::mpsc;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What hyper is given in the place of an executor: it starts nothing, and hands on to [`Begun`].
#[derive(Clone)]
pub struct Inside(mpsc::Sender<Call>);

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inside")
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inside {
    fn execute(&self, call: F) {
        // There is a place for each stream that is allowed; beyond them the call is dropped, which resets it.
        self.0.try_send(Box::pin(call)).ok();
    }
}

/// What was begun through an [`Inside`], to be run beside the connection that began it.
pub struct Begun(mpsc::Receiver<Call>);

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Begun")
    }
}

/// Both ends, for at most so many futures that wait to be taken over: a connection's limit of streams, and some more.
pub fn inside(waiting_max: usize) -> (Inside, Begun) {
    let (begin, begun) = mpsc::channel(waiting_max);
    (Inside(begin), Begun(begun))
}

impl Begun {
    /// Runs a connection and what it begins, until the connection has ended; what hasn't by then is dropped.
    pub async fn with<C: Future>(mut self, connection: C) -> C::Output {
        let mut connection = std::pin::pin!(connection);
        let mut calls = FuturesUnordered::new();
        poll_fn(|context| {
            loop {
                // Calls first: all answers that are ready leave the connection with one write.
                while let Poll::Ready(Some(())) = calls.poll_next_unpin(context) {}
                if let Poll::Ready(outcome) = connection.as_mut().poll(context) {
                    return Poll::Ready(outcome);
                }
                let before = calls.len();
                while let Poll::Ready(Some(call)) = self.0.poll_recv(context) {
                    calls.push(call);
                }
                if calls.len() == before {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_begun_runs_beside_and_ends_with_it() {
        let (inside, begun) = inside(2);
        let (told, hears) = oneshot::channel();
        let (kept, dropped) = oneshot::channel::<()>();
        let outcome = begun.with(async {
            inside.execute(async move { told.send(7).expect("somebody hears") });
            inside.execute(async move {
                std::future::pending::<()>().await;
                drop(kept);
            });
            hears.await
        });
        assert_eq!(outcome.await, Ok(7));
        assert!(dropped.await.is_err(), "what never ends is dropped");
        // There is nobody left to run it, which is no error.
        inside.execute(async {});
    }
}
