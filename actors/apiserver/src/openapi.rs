//! Makes the documents of OpenAPI, which takes up to some hundred milliseconds, on a thread of its own.
//!
//! Owns:    the thread, and the documents that are kept.
//! Needs:   the cache of CustomResourceDefinitions, from which descriptions come.
//! Restart: permanent. Documents are made again when somebody asks.
//! Fails:   when the thread can't be started.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k3sd_apiserver_store::{Catalog, Resource, Stores};
use k3sd_apiserver_wire::negotiate::Wish;
use k3sd_apiserver_wire::openapi::OpenApi;
use k3sd_apiserver_wire::reply::{Ask, Reply};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Address, Context, ReplyPort, message_kinds};
use tokio::sync::watch;

/// How long a document may take, with those that others asked for before.
const DEADLINE: Duration = Duration::from_secs(30);
/// Questions that may wait.
const WAITING_MAX: usize = 64;

/// Where the way to the actor lies.
pub(crate) type OpenApiPlace = Arc<watch::Sender<Option<Address<OpenApiMsg>>>>;

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct OpenApiArgs {
    pub(crate) stores: Stores,
    pub(crate) git_version: String,
    pub(crate) place: OpenApiPlace,
}

/// A request for a document, as it outlives its connection.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    path: String,
    accept: String,
    if_none_match: String,
    hash: Option<String>,
    gzip: bool,
    now: i64,
}

impl Wanted {
    pub(crate) fn new(ask: &Ask<'_>) -> Self {
        Self {
            path: ask.path.to_owned(),
            accept: ask.wish.accept.to_owned(),
            if_none_match: ask.if_none_match.to_owned(),
            hash: ask.hash.map(str::to_owned),
            gzip: ask.gzip,
            now: ask.now,
        }
    }

    fn ask(&self) -> Ask<'_> {
        Ask {
            path: &self.path,
            wish: Wish { accept: &self.accept, ..Wish::default() },
            if_none_match: &self.if_none_match,
            hash: self.hash.as_deref(),
            gzip: self.gzip,
            now: self.now,
        }
    }
}

/// See the variants.
pub(crate) enum OpenApiMsg {
    /// Make a document.
    Make {
        /// Which, and in which form.
        wanted: Wanted,
        /// What is served.
        catalog: Arc<Catalog>,
        /// `None` where there is nothing.
        reply: ReplyPort<Option<Reply>>,
    },
}
message_kinds!(OpenApiMsg { Make });

/// The actor itself.
pub(crate) struct Documents {
    thread: Blocking<OpenApi>,
    stores: Stores,
}

impl Actor for Documents {
    type Args = OpenApiArgs;
    type Msg = OpenApiMsg;

    async fn init(ctx: &mut Context<OpenApiMsg>, args: OpenApiArgs) -> Result<Self, ActorError> {
        let OpenApiArgs { stores, git_version, place } = args;
        let made = move || Ok::<_, Infallible>(OpenApi::new(&git_version));
        let thread = Blocking::start(ctx, WAITING_MAX, made).await?;
        place.send_replace(Some(ctx.address()));
        Ok(Self { thread, stores })
    }

    async fn handle(&mut self, _: &mut Context<OpenApiMsg>, message: OpenApiMsg) -> Result<(), ActorError> {
        let OpenApiMsg::Make { wanted, catalog, reply } = message;
        if reply.is_abandoned() {
            return Ok(());
        }
        let stores = self.stores.clone();
        let definition = move |resource: &Resource| -> Option<Object> {
            let definitions = stores.get("apiextensions.k8s.io", "customresourcedefinitions")?;
            let name = format!("{}.{}", resource.plural, resource.group);
            definitions.snapshot().get("", &name).cloned()
        };
        let made = self.thread.run(move |openapi| openapi.answer(&catalog, &wanted.ask(), &definition)).await?;
        reply.send(made);
        Ok(())
    }
}

/// Asks for a document.
///
/// # Errors
/// 503 while the actor is away or has too much to do.
pub(crate) async fn document(
    place: &watch::Receiver<Option<Address<OpenApiMsg>>>,
    ask: &Ask<'_>,
    catalog: &Arc<Catalog>,
) -> Result<Option<Reply>, Status> {
    let away = || Status::service_unavailable("OpenAPI documents can't be made right now");
    let address = place.borrow().clone().ok_or_else(away)?;
    let (wanted, catalog) = (Wanted::new(ask), catalog.clone());
    address.call(DEADLINE, |reply| OpenApiMsg::Make { wanted, catalog, reply }).await.map_err(|_| away())
}
