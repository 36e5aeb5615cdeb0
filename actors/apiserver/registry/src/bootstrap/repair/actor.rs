//! Looks at Services and addresses as they change, one at a time, and at all ports every few minutes.
//!
//! Owns:    the repair of `IPAddress`es that the allocator made, and of the ports that are noted as taken.
//! Needs:   the caches and the verbs; while they aren't up it tries again.
//! Restart: permanent. A new incarnation looks at everything once more; it forgets how often it saw a leaked port, so that
//!          one is freed later, never earlier.
//! Fails:   never; what the API refuses is tried again, later each time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_store::{Watch, WatchFrom, WatchItem, WatchKind, WatchQuery};
use k3sd_objects::object::Object;
use k3sd_objects::status::{Reason, Status};
use k3sd_runtime::workqueue::WorkQueue;
use k3sd_runtime::{Actor, ActorError, Backoff, Context, Moment, TimerId, message_kinds};
use serde_json::Value;

use super::core::{self, Complaint, Fate, Lookup, Step};
use super::{HOOK, events};
use crate::api::Api;
use crate::bootstrap::hooks::Hooks;
use crate::bootstrap::objects::DEFAULT_SERVICE_CIDR;
use crate::special::local::{self, Kind};
use crate::special::services::{Range, change_ports, held_addresses, ip_address, ranges_of, services_on_nodes};

/// How often all ports are looked at; upstream's.
const PORTS_INTERVAL: Duration = Duration::from_secs(180);
/// The pause after a watch that couldn't begin or that ended.
const WATCH_RETRY: Duration = Duration::from_millis(200);
/// How long a request may take that allocates or gives back.
const GRACE: Duration = Duration::from_secs(core::GRACE_SECONDS.unsigned_abs());
/// How many keys are looked at before other messages get their turn.
const KEYS_AT_ONCE: usize = 32;

const ADDRESS_CONTROLLER: &str = "ipallocator-repair-controller";
const PORT_CONTROLLER: &str = "portallocator-repair-controller";

/// What the actor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct RepairArgs {
    /// The way to the objects.
    pub(crate) api: Arc<Api>,
    /// Where it says that it looked at everything once.
    pub(crate) hooks: Hooks,
    /// The name of the machine, for events.
    pub(crate) host: Arc<str>,
}

/// What it looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A Service: namespace and name.
    Service(String, String),
    /// An `IPAddress`.
    Address(String),
}

/// What the actor understands; it only talks to itself.
pub(crate) enum RepairMsg {
    /// Follow the changes of a resource.
    WatchTick { kind: Kind },
    /// Something changed, or the watch ended.
    Seen { kind: Kind, watch: Box<Watch>, item: Option<WatchItem> },
    /// Look at what is due.
    WorkTick,
    /// Look at all ports.
    PortsTick,
}

message_kinds!(RepairMsg { WatchTick, Seen, WorkTick, PortsTick });

/// The actor.
pub(crate) struct Repair {
    args: RepairArgs,
    queue: WorkQueue<Key>,
    /// For what is due next.
    timer: Option<TimerId>,
    leaks: BTreeMap<u16, u32>,
    /// Watches whose first state has been seen whole.
    filled: Vec<Kind>,
    ports_seen: bool,
}

/// What the caches know.
struct Cached<'a> {
    api: &'a Api,
    ranges: Vec<Range>,
}

impl<'a> Cached<'a> {
    fn new(api: &'a Api) -> Self {
        let snapshot = local::snapshot(api, local::SERVICE_CIDRS);
        Self { api, ranges: snapshot.iter().map(Object::value).flat_map(|cidr| ranges_of(&cidr)).collect() }
    }
}

impl Lookup for Cached<'_> {
    fn address(&self, name: &str) -> Option<Value> {
        local::snapshot(self.api, local::IP_ADDRESSES).get("", name).map(Object::value)
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        local::snapshot(self.api, local::SERVICES).get(namespace, name).map(Object::value)
    }

    fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}

impl Repair {
    async fn tell(&self, about: &Value, controller: &str, told: &Complaint) {
        tracing::warn!(controller, reason = told.reason, "{}", told.note);
        let api = &self.args.api;
        let event = events::event(about, told, controller, &self.args.host, local::now(api));
        if let Err(status) = local::create(api, local::EVENTS, &event).await {
            tracing::debug!(error = %status, "cannot write an event");
        }
    }

    async fn look_at_service(&self, namespace: &str, name: &str) -> Result<(), Status> {
        let api = &self.args.api;
        let known = Cached::new(api);
        let Some(service) = known.service(namespace, name) else { return Ok(()) };
        for (step, told) in core::check_service(&service, &known) {
            // The cache of Services may be ahead of that of addresses, which come into being first.
            if let Step::Create(address) = &step
                && local::get(api, local::IP_ADDRESSES, "", &address.to_string()).await?.is_some()
            {
                continue;
            }
            if let Some(told) = told {
                self.tell(&service, ADDRESS_CONTROLLER, &told).await;
            }
            match step {
                Step::Tell => {}
                Step::Create(address) => create(api, address, &service).await?,
                Step::Recreate(address) => {
                    free(api, &address.to_string(), None).await?;
                    create(api, address, &service).await?;
                }
            }
        }
        Ok(())
    }

    /// Answers the seconds after which it has to be looked at again.
    async fn look_at_address(&self, name: &str) -> Result<Option<i64>, Status> {
        let api = &self.args.api;
        let known = Cached::new(api);
        let Some(address) = known.address(name) else { return Ok(None) };
        match core::check_owner(&address, &known, local::now(api).as_second()) {
            Fate::Stay => Ok(None),
            Fate::Wait(seconds) => Ok(Some(seconds)),
            Fate::Free(_) if self.is_held(&address).await? => Ok(None),
            Fate::Free(told) => {
                self.tell(&address, ADDRESS_CONTROLLER, &told).await;
                free(api, name, Some(&local::only(&address))).await.map(|()| None)
            }
        }
    }

    /// Whether the Service that an address refers to has it, by what is stored now.
    async fn is_held(&self, address: &Value) -> Result<bool, Status> {
        let Some((namespace, name)) = core::owner(address) else { return Ok(false) };
        let service = local::get(&self.args.api, local::SERVICES, namespace, name).await?;
        let held = service.map(|service| held_addresses(&service)).unwrap_or_default();
        Ok(held.iter().any(|one| address["metadata"]["name"] == one.as_str()))
    }

    async fn look(&mut self, ctx: &mut Context<RepairMsg>, key: Key) {
        let outcome = match &key {
            Key::Service(namespace, name) => self.look_at_service(namespace, name).await.map(|()| None),
            Key::Address(name) => self.look_at_address(name).await,
        };
        let now = ctx.clock().now();
        match outcome {
            Ok(again) => {
                self.queue.forget(&key);
                self.queue.done(&key);
                if let Some(seconds) = again {
                    let pause = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
                    self.queue.add_at(key, now + pause, now);
                }
            }
            Err(status) => {
                tracing::debug!(?key, error = %status, "cannot repair yet");
                self.queue.done(&key);
                self.queue.add_failed(key, now);
            }
        }
    }

    async fn work(&mut self, ctx: &mut Context<RepairMsg>) {
        if self.filled.len() < WATCHED.len() {
            return; // Nobody would have an owner.
        }
        // Whether an address is of any range can't be said before the first range is there.
        if local::snapshot(&self.args.api, local::SERVICE_CIDRS).get("", DEFAULT_SERVICE_CIDR).is_none() {
            self.plan(ctx, Some(WATCH_RETRY));
            return;
        }
        for _ in 0..KEYS_AT_ONCE {
            let Some(key) = self.queue.take(ctx.clock().now()) else { break };
            self.look(ctx, key).await;
        }
        if self.queue.is_empty() && self.ports_seen {
            self.args.hooks.set_done(HOOK);
        }
        self.plan(ctx, None);
    }

    /// One timer, for whatever is due first.
    fn plan(&mut self, ctx: &mut Context<RepairMsg>, pause: Option<Duration>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel(timer);
        }
        let now = ctx.clock().now();
        let due = match pause {
            Some(pause) => Some(now + pause),
            None => self.queue.next_due(),
        };
        self.timer = due.map(|due| ctx.send_at(due, RepairMsg::WorkTick));
    }

    async fn look_at_ports(&mut self) -> Result<(), Status> {
        let api = self.args.api.clone();
        let services = services_on_nodes(&api).await?;
        let range = api.special().node_ports;
        let mut complaints = Vec::new();
        let mut leaks = self.leaks.clone();
        change_ports(&api, |ports| {
            leaks.clone_from(&self.leaks);
            let (rebuilt, told) = core::check_ports(&services, Some(ports), range, &mut leaks);
            complaints = told;
            let changed = rebuilt != *ports;
            *ports = rebuilt;
            Ok(changed)
        })
        .await?;
        self.leaks = leaks;
        for (index, told) in complaints {
            self.tell(&services[index], PORT_CONTROLLER, &told).await;
        }
        Ok(())
    }

    async fn watch(&self, ctx: &mut Context<RepairMsg>, kind: Kind) {
        let query =
            WatchQuery { from: WatchFrom::Now, bookmarks: true, initial_events: Some(true), ..WatchQuery::default() };
        let found = match local::store(&self.args.api, kind) {
            Ok(store) => store.watch(&query).await,
            Err(status) => Err(status),
        };
        match found {
            Ok(watch) => next(ctx, kind, Box::new(watch)),
            Err(_) => {
                ctx.send_after(WATCH_RETRY, RepairMsg::WatchTick { kind });
            }
        }
    }

    fn note(&mut self, kind: Kind, item: &WatchItem, now: Moment) {
        if let WatchKind::Bookmark { initial_events_end: true } = item.kind {
            if !self.filled.contains(&kind) {
                self.filled.push(kind);
            }
            return;
        }
        if matches!(item.kind, WatchKind::Bookmark { .. } | WatchKind::Error(_)) {
            return;
        }
        let (namespace, name) = (item.object.namespace().to_owned(), item.object.name().to_owned());
        if kind == local::SERVICES {
            if item.kind == WatchKind::Deleted {
                // Whoever deleted it is about to give its addresses back.
                for address in held_addresses(&item.object.value()) {
                    self.queue.add_at(Key::Address(address), now + GRACE, now);
                }
            }
            self.queue.add(Key::Service(namespace, name));
        } else {
            self.queue.add(Key::Address(name.clone()));
            if item.kind == WatchKind::Deleted {
                // Somebody may have deleted it whose it isn't.
                let parent = item.object.value()["spec"]["parentRef"].clone();
                let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
                self.queue.add(Key::Service(text("namespace"), text("name")));
            }
        }
    }
}

/// What is followed.
const WATCHED: &[Kind] = &[local::SERVICES, local::IP_ADDRESSES];

async fn create(api: &Api, address: IpAddr, service: &Value) -> Result<(), Status> {
    match local::create(api, local::IP_ADDRESSES, &ip_address(address, service)).await {
        Err(status) if status.reason != Reason::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

async fn free(api: &Api, name: &str, options: Option<&Value>) -> Result<(), Status> {
    match local::delete(api, local::IP_ADDRESSES, "", name, options).await {
        Err(status) if !local::is_missing(&status) => Err(status),
        _ => Ok(()),
    }
}

fn next(ctx: &mut Context<RepairMsg>, kind: Kind, mut watch: Box<Watch>) {
    ctx.pipe(async move {
        let item = watch.next().await;
        RepairMsg::Seen { kind, watch, item }
    });
}

impl Actor for Repair {
    type Args = RepairArgs;
    type Msg = RepairMsg;

    /// The caches may be gone, and come back only when this has stopped.
    const STOPS_AT_AWAIT: bool = true;

    async fn init(ctx: &mut Context<RepairMsg>, args: RepairArgs) -> Result<Self, ActorError> {
        for kind in WATCHED {
            ctx.send_self(RepairMsg::WatchTick { kind: *kind });
        }
        ctx.send_self(RepairMsg::PortsTick);
        let queue = WorkQueue::new(Backoff::REQUEUE, ctx.rng());
        Ok(Self { args, queue, timer: None, leaks: BTreeMap::new(), filled: Vec::new(), ports_seen: false })
    }

    async fn handle(&mut self, ctx: &mut Context<RepairMsg>, message: RepairMsg) -> Result<(), ActorError> {
        match message {
            RepairMsg::WatchTick { kind } => self.watch(ctx, kind).await,
            RepairMsg::Seen { kind, watch, item: Some(item) } if !matches!(item.kind, WatchKind::Error(_)) => {
                self.note(kind, &item, ctx.clock().now());
                next(ctx, kind, watch);
                self.plan(ctx, Some(Duration::ZERO));
            }
            RepairMsg::Seen { kind, .. } => {
                ctx.send_after(WATCH_RETRY, RepairMsg::WatchTick { kind });
            }
            RepairMsg::WorkTick => self.work(ctx).await,
            RepairMsg::PortsTick => {
                let pause = match self.look_at_ports().await {
                    Ok(()) => {
                        self.ports_seen = true;
                        PORTS_INTERVAL
                    }
                    Err(status) => {
                        tracing::debug!(error = %status, "cannot look at ports yet");
                        WATCH_RETRY
                    }
                };
                ctx.send_after(pause, RepairMsg::PortsTick);
                self.plan(ctx, Some(Duration::ZERO));
            }
        }
        Ok(())
    }
}
