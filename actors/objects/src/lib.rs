//! API machinery: what every Kubernetes object has in common, and what a schema says about each of them.
//!
//! One engine serves built-in and custom resources alike. A schema drives decoding, unknown fields, defaulting,
//! validation, patches, server-side apply and protobuf; nothing here is written once per kind, except where a kind has
//! a rule that no schema can express.
//!
//! ```text
//! bytes ─▶ decode, protobuf ─▶ value ─▶ default ─▶ validate ─▶ object     stored bytes with a header
//!                                │          ▲          ▲
//!                     patch, apply, convert └─ schema ─┘                  what is known of each place
//! names, quantity, selector, cron    the small languages inside of values
//! query                        what stands behind the question mark of a request
//! quota, read                  what an object takes, and how its fields are read
//! status, table                what is answered: errors, and columns for people
//! ```
//!
//! What is deliberately absent: async, input and output, clocks and randomness. Time and random letters are arguments,
//! so that every function here is a function.

pub mod apply;
pub mod convert;
pub mod cron;
pub mod decode;
pub mod default;
pub mod names;
pub mod object;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod query;
pub mod quota;
pub mod read;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod validate;
