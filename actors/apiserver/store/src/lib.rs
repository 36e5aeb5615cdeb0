//! Objects over a log of revisions: what is served, watch caches, lists, watches and writes.
//!
//! * [`Catalog`] is what is served: resources, built-in and custom, published as a snapshot.
//!
//! What is deliberately absent: any rule about a kind. Here an object is bytes with a header.

mod catalog;

pub use catalog::{
    Catalog, CatalogHandle, CustomRules, CustomVersion, Group, Resource, ScalePaths, Schema, Stored, Subresource,
    Version,
};
