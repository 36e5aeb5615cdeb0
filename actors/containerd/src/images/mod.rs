//! The images that are on disk: the sandbox's own, and what users put into the images directory.

mod actor;
mod cache;
mod core;
mod jobs;
mod msg;
mod watch;

pub(crate) use self::actor::{Images, ImagesArgs};
pub use self::msg::{ImagesHandle, ImagesStatus};
