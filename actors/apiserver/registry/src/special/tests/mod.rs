//! Special things through the front door.

mod pods;
mod reviews;
mod services;
pub(crate) mod world;
