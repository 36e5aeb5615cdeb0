//! Asks the API server about tokens and rights, and remembers what it says.
//!
//! Owns:    answers, for as long as upstream's kubelet keeps them.
//! Needs:   the API. While it is away, what is remembered counts, and other questions fail.
//! Restart: permanent; it forgets, and asks again.
//! Fails:   never.

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_runtime::{Actor, ActorError, Address, Context, ReplyPort, message_kinds};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use ring::digest::{SHA256, digest};

use super::User;
use super::cache::Cache;
use crate::config::AccessLimits;

/// Longest wait for an answer, for whoever asks.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// What somebody may want to do on this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    user: Arc<User>,
    verb: &'static str,
    subresource: &'static str,
}

/// A token, of which only a digest is kept.
type TokenDigest = [u8; 32];
/// Whom a token stands for; nobody.
type Known = Option<Arc<User>>;
/// Why nobody could be asked.
type Failure = String;

/// What the actor understands.
pub(crate) enum AccessMsg {
    /// Whose token is it?
    Authenticate { token: String, reply: ReplyPort<Result<Known, Failure>> },
    /// May he?
    Authorize { question: Question, reply: ReplyPort<Result<bool, Failure>> },
    /// The API server said whose token it is.
    Authenticated { token: TokenDigest, known: Result<Known, Failure>, reply: ReplyPort<Result<Known, Failure>> },
    /// The API server said whether he may.
    Authorized { question: Question, may: Result<bool, Failure>, reply: ReplyPort<Result<bool, Failure>> },
}

message_kinds!(AccessMsg { Authenticate, Authorize, Authenticated, Authorized });

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct AccessArgs {
    pub(crate) connect: Connect,
    pub(crate) node: String,
    pub(crate) limits: AccessLimits,
}

/// See the module's page.
pub(crate) struct Access {
    args: AccessArgs,
    client: kube::Client,
    tokens: Cache<TokenDigest, Known>,
    rights: Cache<Question, bool>,
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(crate) struct AccessHandle(pub(crate) Address<AccessMsg>);

impl AccessHandle {
    /// Whom a token stands for.
    ///
    /// # Errors
    /// Nobody could be asked.
    pub(crate) async fn authenticate(&self, token: String) -> Result<Known, Failure> {
        let asked = self.0.call(ASK_LIMIT, |reply| AccessMsg::Authenticate { token, reply }).await;
        asked.map_err(|error| error.to_string())?
    }

    /// Whether somebody may do this on the node.
    ///
    /// # Errors
    /// Nobody could be asked.
    pub(crate) async fn may(
        &self,
        user: Arc<User>,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, Failure> {
        let question = Question { user, verb, subresource };
        let asked = self.0.call(ASK_LIMIT, |reply| AccessMsg::Authorize { question, reply }).await;
        asked.map_err(|error| error.to_string())?
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

async fn review_token(client: kube::Client, token: String) -> Result<Known, Failure> {
    let spec = TokenReviewSpec { token: Some(token), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(client);
    let reviewed = reviews.create(&PostParams::default(), &review).await.map_err(|error| whole(&error))?;
    let status = reviewed.status.unwrap_or_default();
    let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else { return Ok(None) };
    Ok(Some(Arc::new(User {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })))
}

async fn review_access(client: kube::Client, node: String, question: Question) -> Result<bool, Failure> {
    let Question { user, verb, subresource } = question;
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        version: Some("v1".to_owned()),
        resource: Some("nodes".to_owned()),
        subresource: Some(subresource.to_owned()),
        name: Some(node),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let reviews: Api<SubjectAccessReview> = Api::all(client);
    let reviewed = reviews.create(&PostParams::default(), &review).await.map_err(|error| whole(&error))?;
    Ok(reviewed.status.is_some_and(|status| status.allowed))
}

impl Actor for Access {
    type Args = AccessArgs;
    type Msg = AccessMsg;

    async fn init(_: &mut Context<AccessMsg>, args: AccessArgs) -> Result<Self, ActorError> {
        let client = args.connect.client();
        Ok(Self { args, client, tokens: Cache::default(), rights: Cache::default() })
    }

    async fn handle(&mut self, ctx: &mut Context<AccessMsg>, message: AccessMsg) -> Result<(), ActorError> {
        let (now, limits) = (ctx.clock().now(), self.args.limits);
        match message {
            AccessMsg::Authenticate { token, reply } => {
                let hash: TokenDigest =
                    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes");
                if let Some(known) = self.tokens.get(&hash, now) {
                    reply.send(Ok(known));
                    return Ok(());
                }
                let client = self.client.clone();
                ctx.pipe(async move {
                    let known = review_token(client, token).await;
                    AccessMsg::Authenticated { token: hash, known, reply }
                });
            }
            AccessMsg::Authorize { question, reply } => {
                if let Some(may) = self.rights.get(&question, now) {
                    reply.send(Ok(may));
                    return Ok(());
                }
                let (client, node) = (self.client.clone(), self.args.node.clone());
                ctx.pipe(async move {
                    let may = review_access(client, node, question.clone()).await;
                    AccessMsg::Authorized { question, may, reply }
                });
            }
            AccessMsg::Authenticated { token, known, reply } => {
                if let Ok(known) = &known {
                    self.tokens.put(token, known.clone(), limits.token, now);
                }
                reply.send(known);
            }
            AccessMsg::Authorized { question, may, reply } => {
                if let Ok(may) = may {
                    let lasts = if may { limits.allowed } else { limits.denied };
                    self.rights.put(question, may, lasts, now);
                }
                reply.send(may);
            }
        }
        Ok(())
    }
}
