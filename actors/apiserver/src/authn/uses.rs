//! Notes on Secrets on which day their tokens were last used, for whoever cleans up those that are not.
//!
//! Owns:    the label that says so.
//! Needs:   the verbs, as which it writes; who authenticates tells it.
//! Restart: permanent. What was told of and isn't noted yet is told of again by the next use.
//! Fails:   never; what can't be noted now is told of again too.

use std::sync::Arc;

use k3sd_apiserver_registry::Api;
use k3sd_apiserver_registry::special::note_use;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{ChildSpec, task};
use tokio::sync::mpsc;

/// Uses that may wait; of more the next ones tell.
const WAITING_MAX: usize = 64;

/// A Secret whose token was used.
#[derive(Debug)]
struct Use {
    namespace: String,
    secret: String,
}

/// Where uses are told.
#[derive(Clone, Debug)]
pub(crate) struct Uses(mpsc::Sender<Use>);

/// Where they are heard.
#[derive(Debug)]
pub(crate) struct Heard(mpsc::Receiver<Use>);

impl Uses {
    /// The two ends.
    pub(crate) fn channel() -> (Self, Heard) {
        let (told, heard) = mpsc::channel(WAITING_MAX);
        (Self(told), Heard(heard))
    }

    /// Tells of a use. Never waits: no request is kept by it.
    pub(crate) fn tell(&self, namespace: &str, secret: &str) {
        let told = Use { namespace: namespace.to_owned(), secret: secret.to_owned() };
        // When too many wait, the next use tells again.
        self.0.try_send(told).ok();
    }
}

/// The actor.
pub(crate) fn noting(api: Arc<Api>, heard: Heard) -> ChildSpec {
    let place = Lend::new(heard);
    task("token-uses", move |_| {
        let (api, place) = (api.clone(), place.clone());
        async move {
            let mut heard = place.borrow()?;
            while let Some(Use { namespace, secret }) = heard.0.recv().await {
                if let Err(status) = note_use(&api, &namespace, &secret).await {
                    tracing::debug!(namespace, secret, status = status.message, "the use of a token isn't noted yet");
                }
            }
            Ok(())
        }
    })
}
