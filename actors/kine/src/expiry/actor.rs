//! Deletes keys whose time to live is over, unless a lease keeps them.
//!
//! Owns:    the queue of ends, and the leases, which are lent to it. Nobody else deletes a key because of its age.
//! Needs:   the store, started before it.
//! Restart: permanent. The leases are as they were. The queue is read from the store again; times begin anew, so a key
//!          may live longer, never shorter.
//! Fails:   never; a store that does not answer is asked again.

use std::time::Duration;

use k3sd_datastore::{
    Backend as _, ExpiryQueue, Key, KeyRange, ListRequest, Remedy, Revision, WatchMessage, WatchRequest, Watcher,
};
use k3sd_runtime::lend::{Lend, Loan};
use k3sd_runtime::{Actor, ActorError, Context, Moment, TimerId};

use super::core::Leases;
use super::msg::ExpiryMsg;
use crate::store::StoreHandle;

/// The pause before something that failed is tried again; kine's.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// What the actor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct ExpiryArgs {
    /// The way to the store.
    pub store: StoreHandle,
    /// Whether keys end without us; then there are only leases to keep.
    pub keys_end_by_themselves: bool,
    /// The leases, which outlive the actor.
    pub leases: Lend<Leases>,
}

/// The actor.
pub(crate) struct Expiry {
    args: ExpiryArgs,
    queue: ExpiryQueue,
    leases: Loan<Leases>,
    alarm: Option<TimerId>,
    deleting: bool,
}

fn now(ctx: &Context<ExpiryMsg>) -> Duration {
    ctx.clock().now().since(Moment::START)
}

impl Expiry {
    /// One timer, for whatever is due first.
    fn set_alarm(&mut self, ctx: &mut Context<ExpiryMsg>) {
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel(alarm);
        }
        if self.deleting {
            return; // Its end sets the alarm.
        }
        if let Some(moment) = self.queue.next_moment() {
            self.alarm = Some(ctx.send_at(Moment::START + moment, ExpiryMsg::DueTick));
        }
    }

    fn observe(&mut self, message: &WatchMessage, now: Duration) {
        if let WatchMessage::Events(events) = message {
            for event in events {
                self.queue.observe_event(event, now);
            }
        }
    }
}

impl Actor for Expiry {
    type Args = ExpiryArgs;
    type Msg = ExpiryMsg;

    async fn init(ctx: &mut Context<ExpiryMsg>, args: ExpiryArgs) -> Result<Self, ActorError> {
        if !args.keys_end_by_themselves {
            ctx.send_self(ExpiryMsg::StartTick);
        }
        let leases = args.leases.borrow()?;
        Ok(Self { args, queue: ExpiryQueue::new(), leases, alarm: None, deleting: false })
    }

    async fn handle(&mut self, ctx: &mut Context<ExpiryMsg>, message: ExpiryMsg) -> Result<(), ActorError> {
        match message {
            ExpiryMsg::StartTick => {
                let store = self.args.store.clone();
                ctx.pipe(async move { ExpiryMsg::Listed { found: list(store).await } });
            }
            ExpiryMsg::Listed { found: None } | ExpiryMsg::Watched { next: None } => {
                ctx.send_after(RETRY_DELAY, ExpiryMsg::StartTick);
            }
            ExpiryMsg::Listed { found: Some((kvs, watcher)) } => {
                let now = now(ctx);
                for kv in &kvs {
                    self.queue.observe(kv, now);
                }
                self.set_alarm(ctx);
                ctx.pipe(watch(watcher));
            }
            ExpiryMsg::Watched { next: Some((watcher, message)) } => {
                let now = now(ctx);
                let before = self.queue.next_moment();
                self.observe(&message, now);
                if self.queue.next_moment() != before {
                    self.set_alarm(ctx);
                }
                ctx.pipe(watch(watcher));
            }
            ExpiryMsg::DueTick => {
                self.alarm = None;
                let now = now(ctx);
                let mut due = self.queue.due(now);
                due.retain(|(key, revision)| {
                    let kept = self.leases.extended(key, now);
                    if let Some(end) = kept {
                        self.queue.again(key.clone(), *revision, end);
                    }
                    kept.is_none()
                });
                if due.is_empty() || self.deleting {
                    self.set_alarm(ctx);
                    return Ok(());
                }
                self.deleting = true;
                let store = self.args.store.clone();
                ctx.pipe(async move { ExpiryMsg::Deleted { left: delete(store, due).await } });
            }
            ExpiryMsg::Deleted { left } => {
                self.deleting = false;
                let again = now(ctx) + RETRY_DELAY;
                for (key, revision) in left {
                    self.queue.again(key, revision, again);
                }
                self.set_alarm(ctx);
            }
            ExpiryMsg::Grant { ttl, reply } => {
                let random = ctx.rng().next_u64();
                reply.send(self.leases.grant(ttl, random, now(ctx)));
            }
            ExpiryMsg::GrantAs { id, ttl, reply } => reply.send(self.leases.grant_as(id, ttl, now(ctx))),
            ExpiryMsg::Attach { lease, key, reply } => reply.send(self.leases.attach(lease, key)),
            ExpiryMsg::KeepAlive { lease, reply } => {
                let now = now(ctx);
                let ttl = self.leases.keep_alive(lease, now);
                let told = self.leases.get(lease, now).filter(|_| self.args.keys_end_by_themselves);
                let keys = told.map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default();
                reply.send(ttl.map(|ttl| (ttl, keys)));
            }
            ExpiryMsg::Revoke { lease, reply } => reply.send(self.leases.revoke(lease)),
            ExpiryMsg::Look { lease, reply } => {
                let now = now(ctx);
                let found = self.leases.get(lease, now).cloned();
                reply.send(found.map(|lease| (lease.clone(), lease.end.saturating_sub(now))));
            }
            ExpiryMsg::Leases { reply } => reply.send(self.leases.ids(now(ctx))),
        }
        Ok(())
    }
}

async fn list(store: StoreHandle) -> Option<(Vec<k3sd_datastore::KeyValue>, Box<Watcher>)> {
    let backend = store.get().await.ok()?;
    let request = ListRequest { keys_only: true, expiring_only: true, ..ListRequest::new(KeyRange::all()) };
    let listed = backend.list(request).await.ok()?;
    let watcher = backend.watch(WatchRequest::new(KeyRange::all(), Some(listed.revision.next()))).await.ok()?;
    Some((listed.kvs, Box::new(watcher)))
}

async fn watch(mut watcher: Box<Watcher>) -> ExpiryMsg {
    match watcher.next().await {
        Ok(message) => ExpiryMsg::Watched { next: Some((watcher, message)) },
        Err(_) => ExpiryMsg::Watched { next: None },
    }
}

/// Deletes each key if it still is what it was. Returns those of which that is not known.
async fn delete(store: StoreHandle, due: Vec<(Key, Revision)>) -> Vec<(Key, Revision)> {
    let Ok(backend) = store.get().await else { return due };
    let mut left = Vec::new();
    for (key, revision) in due {
        match backend.delete(key.clone(), Some(revision)).await {
            Ok(_) => tracing::debug!(%key, "an expired key was deleted"),
            Err(error) if error.remedy() == Remedy::Reread => {} // It has a new life, or none.
            Err(error) => {
                tracing::debug!(%key, %error, "an expired key could not be deleted yet");
                left.push((key, revision));
            }
        }
    }
    left
}
