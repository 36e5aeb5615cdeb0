//! What clients read: encodings, tables, discovery and OpenAPI. Bytes and values in, bytes out.
//!
//! ```text
//! Accept ─▶ negotiate ─▶ Format ─┬─▶ object, status, document    one answer
//!                                ├─▶ list                        pieces of one
//!                                └─▶ watch                       frames, shared among watchers
//! Catalog ─▶ discovery, openapi, about                           what there is
//! ```
//!
//! What is deliberately absent: HTTP, compression and waiting, which are the listener's.

pub mod about;
pub mod discovery;
pub mod list;
pub mod negotiate;
pub mod object;
pub mod openapi;
mod pretty;
pub mod reply;
mod table;
#[cfg(test)]
mod tests;
pub mod watch;
