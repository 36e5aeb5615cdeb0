//! Special things through the front door.

mod pods;
mod reviews;
mod services;
mod slow;
pub(crate) mod world;
