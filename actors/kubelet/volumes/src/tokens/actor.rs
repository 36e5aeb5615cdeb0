//! Keeps tokens, and asks for new ones in time.
//!
//! Owns:    the tokens in its memory; those in volumes are copies.
//! Needs:   the API, as a user who may ask for tokens bound to pods of this node.
//! Restart: permanent. It asks for each token again when somebody wants it.
//! Fails:   never; what the API refuses is passed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_runtime::{Actor, ActorError, Address, Clock, Context, Moment, ReplyPort, Rng};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;

use super::core::{JITTER_MAX, RETRY, refresh_after};
use super::{NoToken, Token, TokenRef, TokensMsg};
use crate::error::api_reason;

/// How long the API may take for a token.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// What it is started with.
#[derive(Clone)]
pub(crate) struct TokensArgs {
    pub(crate) connect: Connect,
    pub(crate) place: Arc<watch::Sender<Option<Address<TokensMsg>>>>,
}

/// The actor.
pub(crate) struct TokensActor {
    client: kube::Client,
    rng: Rng,
    tokens: BTreeMap<TokenRef, Token>,
    waiting: BTreeMap<TokenRef, Vec<ReplyPort<Result<Token, NoToken>>>>,
}

impl Actor for TokensActor {
    type Args = TokensArgs;
    type Msg = TokensMsg;

    async fn init(ctx: &mut Context<TokensMsg>, args: TokensArgs) -> Result<Self, ActorError> {
        args.place.send_replace(Some(ctx.address()));
        let client = args.connect.client();
        Ok(Self { client, rng: ctx.rng(), tokens: BTreeMap::new(), waiting: BTreeMap::new() })
    }

    async fn handle(&mut self, ctx: &mut Context<TokensMsg>, message: TokensMsg) -> Result<(), ActorError> {
        match message {
            TokensMsg::Get { token, reply } => self.get(ctx, token, reply),
            TokensMsg::Answered { token, outcome } => self.answered(ctx.clock(), token, outcome),
            TokensMsg::Forget { pod_uid } => self.tokens.retain(|token, _| token.pod_uid != pod_uid),
        }
        Ok(())
    }
}

impl TokensActor {
    fn get(&mut self, ctx: &mut Context<TokensMsg>, token: TokenRef, reply: ReplyPort<Result<Token, NoToken>>) {
        if let Some(known) = self.tokens.get(&token).filter(|known| ctx.clock().now() < known.refresh) {
            reply.send(Ok(known.clone()));
            return;
        }
        if let Some(others) = self.waiting.get_mut(&token) {
            others.push(reply);
            return;
        }
        self.waiting.insert(token.clone(), vec![reply]);
        let jitter = Duration::from_millis(self.rng.below(u64::try_from(JITTER_MAX.as_millis()).unwrap_or(0)));
        let (client, clock) = (self.client.clone(), ctx.clock().clone());
        ctx.pipe(async move {
            let outcome = match tokio::time::timeout(REQUEST_LIMIT, request(client, &token, &clock, jitter)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(NoToken("failed to fetch token: no answer in time".to_owned())),
            };
            TokensMsg::Answered { token, outcome }
        });
    }

    fn answered(&mut self, clock: &Clock, token: TokenRef, outcome: Result<Token, NoToken>) {
        let outcome = match outcome {
            Ok(fresh) => {
                self.tokens.insert(token.clone(), fresh.clone());
                Ok(fresh)
            }
            // The old one does as long as it is good.
            Err(error) => match self.tokens.get_mut(&token).filter(|known| clock.wall() < known.expires) {
                Some(known) => {
                    tracing::warn!(pod = token.pod_uid, reason = error.0, "a token can't be renewed yet");
                    known.refresh = clock.now() + RETRY;
                    Ok(known.clone())
                }
                None => {
                    self.tokens.remove(&token);
                    Err(error)
                }
            },
        };
        for reply in self.waiting.remove(&token).unwrap_or_default() {
            reply.send(outcome.clone());
        }
    }
}

async fn request(client: kube::Client, token: &TokenRef, clock: &Clock, jitter: Duration) -> Result<Token, NoToken> {
    let (asked, asked_wall): (Moment, Duration) = (clock.now(), clock.wall());
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(token.pod.clone()),
        uid: Some(token.pod_uid.clone()),
    };
    let spec = TokenRequestSpec {
        audiences: token.audience.clone().into_iter().collect(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(token.seconds),
    };
    let body = TokenRequest { spec, ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(client, &token.namespace);
    let answer = api.create_token_request(&token.account, &PostParams::default(), &body).await;
    let failed = |error: kube::Error| NoToken(format!("failed to fetch token: {}", api_reason(&error)));
    let status = answer.map_err(failed)?.status.ok_or_else(|| NoToken("the API gave no token".to_owned()))?;
    let expires = u64::try_from(status.expiration_timestamp.0.as_second()).unwrap_or(0);
    let expires = Duration::from_secs(expires);
    let lifetime = expires.saturating_sub(asked_wall);
    Ok(Token { text: status.token, expires, refresh: asked + refresh_after(lifetime, jitter) })
}
