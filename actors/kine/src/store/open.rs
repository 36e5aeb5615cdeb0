//! Opens a store, and gives what it does on its own a life inside the actor.

use std::convert::Infallible;
use std::time::Duration;

use k3sd_datastore::{AnyBackend, Backend, Background, Body, Etcd, MySql, Postgres, Sqlite, SqliteOptions, StoreError};
use k3sd_runtime::blocking::{Blocking, StartError};
use k3sd_runtime::{ActorError, Context};

use super::actor::StoreArgs;
use super::config::StoreConfig;
use super::msg::StoreMsg;
use crate::metrics::Observed;

/// How often a database that is away is tried, and how long after each attempt; kine's. After that the actor has failed.
const ATTEMPTS_MAX: u32 = 300;
const ATTEMPT_DELAY: Duration = Duration::from_secs(1);

/// Opens the store, and goes on trying while nobody answers there. What is refused is not asked twice.
pub(crate) async fn open(ctx: &mut Context<StoreMsg>, args: &StoreArgs) -> Result<AnyBackend, ActorError> {
    for attempt in 1.. {
        let error = match attempt_to_open(ctx, args).await? {
            Ok(backend) => return Ok(backend),
            Err(error) => error,
        };
        if attempt == ATTEMPTS_MAX || !matches!(error, StoreError::Unreachable { .. }) {
            return Err(error.into());
        }
        let store = args.config.word();
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "{store} can't be reached; trying again in a second ({attempt} of {ATTEMPTS_MAX})"
        );
        ctx.clock().sleep_until(ctx.clock().now() + ATTEMPT_DELAY).await;
    }
    unreachable!("numbers do not end")
}

async fn attempt_to_open(
    ctx: &mut Context<StoreMsg>,
    args: &StoreArgs,
) -> Result<Result<AnyBackend, StoreError>, ActorError> {
    Ok(match &args.config {
        StoreConfig::Sqlite(options) => {
            let store = sqlite(ctx, options.clone()).await?;
            Ok(observed(ctx, args, store))
        }
        StoreConfig::Postgres(options) => {
            Postgres::assemble(options.clone()).await.map(|(store, rest)| with_background(ctx, args, store, rest))
        }
        StoreConfig::MySql(options) => {
            MySql::assemble(options.clone()).await.map(|(store, rest)| with_background(ctx, args, store, rest))
        }
        StoreConfig::Etcd(options) => {
            Etcd::assemble(options.clone()).await.map(|(store, rest)| with_background(ctx, args, store, rest))
        }
        StoreConfig::Memory => Ok(observed(ctx, args, args.memory.clone())),
    })
}

/// Opening looks through the whole file, so it has a thread, as each of the store's bodies has.
async fn sqlite(ctx: &mut Context<StoreMsg>, options: SqliteOptions) -> Result<Sqlite, ActorError> {
    let opener = Blocking::start(ctx, 1, move || Sqlite::assemble(options).map(Some)).await;
    // What the store says is what there is to be said, with all its causes.
    let opener = opener.map_err(|error| match error {
        StartError::Make(error) => ActorError::from(error),
        other => other.into(),
    })?;
    let Some((store, bodies)) = opener.run(Option::take).await? else {
        unreachable!("it was put there a line above");
    };
    for body in bodies {
        give_thread(ctx, body).await?;
    }
    Ok(store)
}

async fn give_thread(ctx: &mut Context<StoreMsg>, body: Body) -> Result<(), ActorError> {
    let name = body.name.clone();
    let thread = Blocking::start(ctx, 1, || Ok::<_, Infallible>(())).await?;
    ctx.pipe(async move {
        let outcome = thread.run(move |()| body.run()).await;
        let why = outcome.err().map_or_else(|| "the store was closed".to_owned(), |error| error.to_string());
        StoreMsg::PartEnded { what: format!("{name}: {why}") }
    });
    Ok(())
}

/// Everything that such a store does goes on inside the actor, and ends with it.
fn with_background(
    ctx: &mut Context<StoreMsg>,
    args: &StoreArgs,
    store: impl Backend,
    background: Background,
) -> AnyBackend {
    ctx.pipe(async move {
        background.run().await;
        StoreMsg::PartEnded { what: "the store was closed".to_owned() }
    });
    observed(ctx, args, store)
}

/// What is published is a store that counts.
fn observed(ctx: &Context<StoreMsg>, args: &StoreArgs, store: impl Backend) -> AnyBackend {
    let (numbers, clock) = (args.numbers.clone(), ctx.clock().clone());
    AnyBackend::new(Observed { store, numbers, clock, slow: args.slow })
}
