//! The front of the server: sockets, handshakes, connections, and the bodies that go out through them.

mod body;
mod certificate;
mod connection;
mod gather;
mod listener;
mod tls;
mod websocket;

pub use self::body::Body;
pub(crate) use self::body::{Changes, Held};
pub use self::certificate::ClientAuthorities;
pub(crate) use self::certificate::ClientCertificate;
pub use self::listener::Endpoint;
pub(crate) use self::listener::{Listening, listen};
pub use self::tls::{Learn, Reached, TlsLimits};
pub(crate) use self::websocket::{Talk, accept, is_wanted};
