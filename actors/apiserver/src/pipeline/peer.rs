//! Who is at the other end.

use std::net::SocketAddr;
use std::sync::Arc;

use k3sd_apiserver_access::User;

use crate::authn::TokenMemory;
use crate::front::ClientCertificate;

/// The other end of a connection, or a part of this process.
#[derive(Debug, Default)]
pub struct Peer {
    /// Where it connects from.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) certificate: ClientCertificate,
    /// Who it is, if nobody needs to ask.
    pub(crate) identity: Option<Arc<User>>,
    pub(crate) memory: TokenMemory,
}

impl Peer {
    /// Somebody on the network.
    pub(crate) fn remote(from: SocketAddr, certificate: ClientCertificate) -> Self {
        Self { from: Some(from), certificate, ..Self::default() }
    }

    /// A part of this process, which is known as this user. What it may do is decided as for everybody.
    pub(crate) fn local(user: User) -> Self {
        Self { identity: Some(Arc::new(k3sd_apiserver_access::authn::authenticated(user))), ..Self::default() }
    }
}
