//! The API server under load: clients that speak its protocol over TLS, what they noted, and what has to be true of it.

pub mod client;
pub mod judge;
pub mod load;
pub mod record;
mod watcher;
