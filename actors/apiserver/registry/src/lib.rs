//! The verbs: create, get, list, watch, update, patch and delete of anything served.
//!
//! ```text
//! Call ─▶ Api ─┬─▶ special    what isn't plain: reviews, bindings, evictions, tokens
//!              └─▶ verbs ─▶ body, options ─▶ default ─▶ managed fields ─▶ admission ─▶ strategy ─▶ validation ─▶ store
//!                           (request's version)                                     (stored version)
//! ```
//!
//! One engine writes every kind, built-in and custom. What a kind needs beyond its schema is a row of a table in
//! `strategy`. What is deliberately absent: authentication and authorization, which are behind a call, and encodings of
//! answers, which are before it.

mod allocate;
mod api;
mod body;
pub mod bootstrap;
mod call;
mod deprecated;
mod escalation;
mod meta;
mod options;
pub mod special;
mod strategy;
mod verbs;
mod version;

pub use api::{Api, ApiArgs, ApiConfig, Authorize};
pub use body::BODY_BYTES_MAX;
pub use call::{Answer, Call, Reply, Shown};
