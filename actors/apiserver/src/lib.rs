//! The Kubernetes API.
//!
//! Everything that a kind needs beyond its schema is a pure function here, found by group and kind: what makes an object
//! invalid ([`validation`]), who may ask for it ([`access`]), and who it is that asks ([`authn`]). How it looks in a table
//! is said by `k3sd-objects`.
//!
//! What is deliberately absent: handlers written once per kind, and any way to the store past this crate.

pub mod access;
pub mod authn;
pub mod validation;
