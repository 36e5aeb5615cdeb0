//! Links, addresses and routes.
//!
//! [`Desired`] says what has to be there; [`plan()`] compares it with a [`State`] that was read and yields the
//! [`Operation`]s that are missing; [`Route::converge`] does all of it until nothing is missing. What [`Desired`] doesn't
//! name is left alone.

mod codec;
mod handle;
mod model;
mod news;
mod plan;

pub use handle::Route;
pub use model::{
    Address, Desired, Kind, Link, LinkChange, LinkSpec, Mac, MacError, Operation, Peer, RouteEntry, RouteSpec, State,
    TABLE_MAIN,
};
pub use news::AddressNews;
pub use plan::plan;
