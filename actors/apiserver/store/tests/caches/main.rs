//! The caches as their readers know them, over a store in memory, on a paused clock.

mod deaths;
mod history;
mod lists;
mod resources;
mod threads;
mod watches;
mod world;
mod writes;
