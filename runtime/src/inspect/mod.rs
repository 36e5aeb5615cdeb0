//! The inspection socket: what goes on in a tree, over HTTP on a unix socket, for `k3sd actors` and for `curl`.
//!
//! ```text
//! GET  /v1/tree                               everything, nested
//! GET  /v1/actors/<path>                      one actor with its children and its last deaths
//! GET  /v1/events                             what happens from now on, a JSON object per line
//! GET  /v1/trace/<path>?limit=N&for_ms=M      messages it handles, a JSON object per line, until either limit
//! POST /v1/kill/<path>[?how=kill|panic|stop]  end this life of it
//! POST /v1/suspend/<path>                     let it handle no further messages
//! POST /v1/resume/<path>                      let it go on
//! ```
//!
//! The last three are refused unless the server was made with control. Reading never asks an actor anything and costs
//! nothing while nobody does it; names, counts and ages are told, contents of messages never.
//!
//! [`tree`] is the server as a part of the tree it shows, [`bind`] makes its socket, [`Client`] asks it.

mod client;
mod look;
mod request;
mod routes;
mod server;
mod socket;
pub mod wire;

pub use self::client::{Client, ClientError, Lines};
pub use self::request::{Kill, TRACE_DURATION_MAX, TRACE_MESSAGES_MAX};
pub use self::server::{CONNECTIONS_MAX, InspectorArgs, tree};
pub use self::socket::bind;
