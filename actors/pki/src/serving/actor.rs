//! Holds the certificate of the supervisor's listener, lets it learn names, and renews it.
//!
//! Owns:    `dynamic-cert.json` and the marker `dynamic-cert-regenerate` in `tls/`, and the published certificate.
//! Needs:   the certificates of the server, for their authority; started before it.
//! Restart: permanent. It reads its file again; what was published stays so meanwhile. A name that was learned and not yet
//!          written is learned again from the next client that uses it.
//! Fails:   when no certificate can be made at its start. Later it goes on with the one there is. A file that can't be
//!          written is only told of: the certificate is good without.

use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::blocking::Blocking;
use k3sd_runtime::{Actor, ActorError, Context, TimerId};

use super::core::{Held, NAMES_MAX, can_be_learned, make, merge};
use super::msg::{NameFilter, ServingMsg, ServingPlace};
use crate::config::PkiConfig;
use crate::error::{MaterialError, PkiError};
use crate::files::{self, Files, SECRET};
use crate::publish::{AuthorityPair, Certificates};
use crate::renewal::pause;
use crate::table::Authority;
use crate::x509::San;

/// One job at a time is asked of the thread, and its end awaited.
const JOBS_WAITING_MAX: usize = 1;
/// The certificate.
const FILE: &str = "dynamic-cert.json";
/// Asks for a new one, once.
const MARKER: &str = "dynamic-cert-regenerate";

/// What the actor is started, and restarted, with.
#[derive(Clone, Debug)]
pub(crate) struct ServingArgs {
    /// Directory, and the names that are there from the first.
    pub config: Arc<PkiConfig>,
    /// Its authority.
    pub certificates: Certificates,
    /// Which names may be learned.
    pub filter: NameFilter,
    /// Where the certificate is published.
    pub place: ServingPlace,
}

/// The actor.
pub(crate) struct Serving {
    args: ServingArgs,
    thread: Blocking<Files>,
    configured: Vec<San>,
    authority: AuthorityPair,
    held: Held,
    timer: Option<TimerId>,
}

/// What is on the disk: the certificate, if it can be used, and whether a new one is asked for.
fn read(config: &PkiConfig) -> Result<(Option<Held>, bool), PkiError> {
    let held = match files::read(&config.tls(FILE))?.map(|json| Held::of_secret(&json)) {
        Some(Err(error)) => {
            tracing::warn!(%error, "the listener's certificate can't be used, and is made again");
            None
        }
        found => found.and_then(Result::ok),
    };
    Ok((held, files::exists(&config.tls(MARKER))))
}

/// The marker goes last: a start that is cut short before makes the certificate again.
fn write(config: &PkiConfig, files: &mut Files, json: &str) -> Result<(), PkiError> {
    files.write(&config.tls(FILE), json.as_bytes(), SECRET)?;
    files.settle()?;
    files.remove(&config.tls(MARKER))?;
    files.settle()
}

impl Serving {
    /// The certificate with these names too, if it is to be another than it is.
    fn improved(&self, names: &[San], now: Duration) -> Result<Option<Held>, MaterialError> {
        let wanted = [&self.configured[..], names].concat();
        match self.held.shortcoming(&wanted, &self.authority, now) {
            None => Ok(None),
            Some(reason) => {
                tracing::info!(%reason, "making the listener's certificate");
                make(Some(&self.held), &wanted, &self.authority, now).map(Some)
            }
        }
    }

    async fn take(&mut self, ctx: &mut Context<ServingMsg>, held: Held) -> Result<(), ActorError> {
        let (config, json) = (self.args.config.clone(), held.to_secret());
        self.held = held;
        self.args.place.send_replace(Some(Arc::new(self.held.clone())));
        let written = self.thread.run(move |files| write(&config, files, &json)).await?;
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the listener's certificate could not be written");
        }
        self.sleep(ctx);
        Ok(())
    }

    async fn improve(&mut self, ctx: &mut Context<ServingMsg>, names: &[San]) -> Result<(), ActorError> {
        match self.improved(names, ctx.clock().wall()) {
            Ok(Some(held)) => self.take(ctx, held).await?,
            Ok(None) => self.sleep(ctx),
            Err(error) => {
                tracing::error!(%error, "the listener's certificate could not be made; trying again later");
                self.sleep(ctx);
            }
        }
        Ok(())
    }

    /// Those of the names that may be learned, as many as there is room for.
    fn learnable(&self, names: Vec<San>) -> Vec<San> {
        let room = NAMES_MAX.saturating_sub(self.held.pair.certificate().sans.len());
        let fine = |name: &San| can_be_learned(name) && self.args.filter.allows(name);
        self.held.lacks(&names).into_iter().filter(fine).take(room).collect()
    }

    fn sleep(&mut self, ctx: &mut Context<ServingMsg>) {
        let delay = pause(self.held.pair.certificate().not_after, ctx.clock().wall());
        if let Some(old) = self.timer.replace(ctx.send_after(delay, ServingMsg::LookTick)) {
            ctx.cancel(old);
        }
    }
}

fn wait_for_authority(mut certificates: Certificates, ctx: &mut Context<ServingMsg>) {
    ctx.pipe(async move {
        let next = certificates.changed().await;
        ServingMsg::AuthoritySeen { next: next.map(|snapshot| (snapshot, certificates)) }
    });
}

impl Actor for Serving {
    type Args = ServingArgs;
    type Msg = ServingMsg;

    async fn init(ctx: &mut Context<ServingMsg>, args: ServingArgs) -> Result<Self, ActorError> {
        let mut certificates = args.certificates.clone();
        let gone = || ActorError::new("the server has no certificates");
        let snapshot = certificates.ready().await.ok_or_else(gone)?;
        let authority = snapshot.authority(Authority::Server).clone();
        let made = Blocking::start(ctx, JOBS_WAITING_MAX, || Ok::<_, std::convert::Infallible>(Files::default()));
        let thread = made.await?;
        let config = args.config.clone();
        let (found, again) = thread.run(move |_| read(&config)).await??;
        let (configured, now) = (args.config.names.sans(), ctx.clock().wall());
        let held = match found {
            Some(held) if !again || held.fixed => held,
            old => make(old.as_ref(), &configured, &authority, now)?,
        };
        let mut serving = Self { args, thread, configured, authority, held, timer: None };
        let held = serving.improved(&[], now)?.unwrap_or_else(|| serving.held.clone());
        serving.take(ctx, held).await?;
        wait_for_authority(certificates, ctx);
        Ok(serving)
    }

    async fn handle(&mut self, ctx: &mut Context<ServingMsg>, message: ServingMsg) -> Result<(), ActorError> {
        match message {
            ServingMsg::LookTick => self.improve(ctx, &[]).await?,
            ServingMsg::AuthoritySeen { next: None } => {} // The tree is going down.
            ServingMsg::AuthoritySeen { next: Some((snapshot, certificates)) } => {
                self.authority = snapshot.authority(Authority::Server).clone();
                self.improve(ctx, &[]).await?;
                wait_for_authority(certificates, ctx);
            }
            ServingMsg::Learn { names, reply } => {
                let names = self.learnable(names);
                if !names.is_empty() {
                    self.improve(ctx, &names).await?;
                }
                reply.send(());
            }
            ServingMsg::Merge { secret, reply } => {
                let merged = Held::of_secret(&secret)
                    .and_then(|theirs| merge(&self.held, &theirs, &self.authority, ctx.clock().wall()));
                let answer = match merged {
                    Ok(held) => {
                        let json = held.to_secret();
                        self.take(ctx, held).await?;
                        Ok(json)
                    }
                    Err(error) => Err(error),
                };
                reply.send(answer);
            }
        }
        Ok(())
    }
}
