//! The verbs as clients know them, over a store in memory, on a paused clock.

mod collection;
mod create;
mod custom;
mod delete;
mod failures;
mod patch;
mod peers;
mod read;
mod rights;
mod stale;
mod subresources;
mod update;
mod world;
