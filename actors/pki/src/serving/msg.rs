//! What the actor understands, and the handle of those who listen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{Address, AskError, ReplyPort, message_kinds};
use tokio::sync::watch;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::core::{Held, can_be_learned};
use crate::error::MaterialError;
use crate::publish::{Certificates, Snapshot};
use crate::x509::San;

/// Says of a name that a client used whether it may be learned: `--tls-san-security`.
#[derive(Clone)]
pub struct NameFilter(Arc<dyn Fn(&San) -> bool + Send + Sync>);

impl fmt::Debug for NameFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameFilter")
    }
}

impl NameFilter {
    /// Asks a function; it must answer from memory.
    pub fn new(allows: impl Fn(&San) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }

    /// Whether a name may be learned.
    pub fn allows(&self, name: &San) -> bool {
        (self.0)(name)
    }
}

/// See the variants.
pub(crate) enum ServingMsg {
    /// Time has passed; look whether the certificate is due.
    LookTick,
    /// The certificates of the server changed, its authority perhaps too. `None`: there will be no others.
    AuthoritySeen {
        /// All of them, and where the next will come from.
        next: Option<(Arc<Snapshot>, Certificates)>,
    },
    /// Learn names that clients used. Repeating it changes nothing.
    Learn {
        /// Names and addresses, before the filter.
        names: Vec<San>,
        /// Sent when the certificate is published, also if nothing was learned.
        reply: ReplyPort<()>,
    },
    /// Take what another server stored.
    Merge {
        /// A Secret in JSON.
        secret: Vec<u8>,
        /// The Secret that is to be stored now.
        reply: ReplyPort<Result<String, MaterialError>>,
    },
}
message_kinds!(ServingMsg { LookTick, AuthoritySeen, Learn, Merge });

/// Where the certificate is put by its owner.
pub(crate) type ServingPlace = Arc<watch::Sender<Option<Arc<Held>>>>;

/// How long a handshake waits for a name to be learned; then it goes on with the certificate that there is.
const LEARN_DEADLINE: Duration = Duration::from_secs(2);
/// How long a merge may take.
const MERGE_DEADLINE: Duration = Duration::from_secs(10);

/// The way to the listener's certificate. Cheap to clone.
#[derive(Clone)]
pub struct ServingHandle {
    address: Address<ServingMsg>,
    held: watch::Receiver<Option<Arc<Held>>>,
    filter: NameFilter,
}

impl fmt::Debug for ServingHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServingHandle")
    }
}

impl ServingHandle {
    pub(crate) fn new(
        address: Address<ServingMsg>,
        held: watch::Receiver<Option<Arc<Held>>>,
        filter: NameFilter,
    ) -> Self {
        Self { address, held, filter }
    }

    /// Asks for names that a client uses: the one in its hello, the address it came to. Returns when the certificate has
    /// them, or will not. Costs nothing when it has them already, or must
    /// not have them.
    pub async fn ensure(&self, names: &[San]) {
        let mut lacking = self.held.borrow().as_ref().map_or_else(|| names.to_vec(), |held| held.lacks(names));
        // The actor asks again; here it spares it those who only try names.
        lacking.retain(|name| can_be_learned(name) && self.filter.allows(name));
        if lacking.is_empty() {
            return;
        }
        let asked = self.address.call(LEARN_DEADLINE, |reply| ServingMsg::Learn { names: lacking, reply }).await;
        if let Err(error) = asked {
            tracing::debug!(%error, "a name could not be learned in time");
        }
    }

    /// The Secret `kube-system/k3s-serving`, in JSON, for the API; `None` before there is a certificate. It holds the key.
    pub fn secret(&self) -> Option<String> {
        self.held.borrow().as_ref().map(|held| held.to_secret())
    }

    /// Waits until the Secret is another than when this was last asked of this handle. `None` when it never will be.
    pub async fn changed(&mut self) -> Option<String> {
        self.held.changed().await.ok()?;
        self.held.borrow_and_update().as_ref().map(|held| held.to_secret())
    }

    /// Brings together ours and what is stored; answers what is to be stored, the same bytes if nothing is.
    ///
    /// # Errors
    /// The actor is away; asking again is safe. Inside: the Secret can't be used.
    pub async fn merge(&self, secret: Vec<u8>) -> Result<Result<String, MaterialError>, AskError> {
        self.address.call(MERGE_DEADLINE, |reply| ServingMsg::Merge { secret, reply }).await
    }

    /// Presents the certificate, always the current one.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Live(self.held.clone()))
    }
}

struct Live(watch::Receiver<Option<Arc<Held>>>);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|held| held.pair.certified())
    }
}
