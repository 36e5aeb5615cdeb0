//! Tokens of service accounts, asked for once and renewed in time.

mod actor;
mod core;

use std::time::Duration;

use k3sd_runtime::{Address, Moment, ReplyPort, message_kinds};
use tokio::sync::watch;

pub(crate) use self::actor::{TokensActor, TokensArgs};
use crate::error::VolumeError;

/// How long a token may take to come.
const ASK_LIMIT: Duration = Duration::from_secs(35);

/// Which token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenRef {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) pod: String,
    pub(crate) pod_uid: String,
    /// Whoever it is for; the API's own without.
    pub(crate) audience: Option<String>,
    pub(crate) seconds: i64,
}

/// A token, and when it has to be asked for again. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// When it ends, since 1970.
    pub(crate) expires: Duration,
    pub(crate) refresh: Moment,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("refresh", &self.refresh).finish_non_exhaustive()
    }
}

/// Why there is no token. What waits for one may be many, so it can be copied.
#[derive(Debug, Clone)]
pub(crate) struct NoToken(pub(crate) String);

/// What the actor understands.
#[derive(Debug)]
pub(crate) enum TokensMsg {
    /// A token that is good for a while.
    Get {
        /// Which.
        token: TokenRef,
        /// It, or why there is none.
        reply: ReplyPort<Result<Token, NoToken>>,
    },
    /// To itself: the API has answered.
    Answered {
        /// Which it was.
        token: TokenRef,
        /// What it said.
        outcome: Result<Token, NoToken>,
    },
    /// A pod is gone, and its tokens with it.
    Forget {
        /// Whose.
        pod_uid: String,
    },
}
message_kinds!(TokensMsg { Get, Answered, Forget });

/// The way to the tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(pub(crate) watch::Receiver<Option<Address<TokensMsg>>>);

impl Tokens {
    /// A token that is good for a while.
    pub(crate) async fn get(&self, token: TokenRef) -> Result<Token, VolumeError> {
        let address = crate::address(&self.0).await?;
        let found = address.call(ASK_LIMIT, |reply| TokensMsg::Get { token, reply }).await;
        found.map_err(|_| VolumeError::Away)?.map_err(|NoToken(text)| VolumeError::Refused(text))
    }

    /// A pod is gone.
    pub(crate) async fn forget(&self, pod_uid: &str) -> Result<(), VolumeError> {
        let address = crate::address(&self.0).await?;
        address.cast(TokensMsg::Forget { pod_uid: pod_uid.to_owned() }).map_err(|_| VolumeError::Away)
    }
}
