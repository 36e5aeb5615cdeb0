//! The Kubernetes API.
//!
//! Everything that a kind needs beyond its schema is a pure function here, found by group and kind: what makes an object
//! invalid ([`validation`]), how it looks in a table ([`table`]).
//!
//! What is deliberately absent: handlers written once per kind, and any way to the store past this crate.

pub mod table;
pub mod validation;
