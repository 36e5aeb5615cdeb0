//! What is known about each place of an object: its kind of value, its fields, how it merges.
//!
//! ```text
//! Arena        cells that refer to each other by number: the built-in one is constants, one per custom resource's
//!              version is made while running
//! SchemaRef    a place in it: two words, copied at will
//! ```
//!
//! A [`SchemaRef`] is walked along with a value. What the API needs rarely (descriptions) is compressed and beside it.

mod arena;
mod builtin;
mod descriptions;
mod expression;
#[cfg(test)]
pub(crate) mod generate;
pub(crate) mod node;
pub mod openapi;
mod reference;
mod resource;
mod rules;
mod structural;

pub use self::arena::Arena;
pub use self::builtin::builtin;
pub use self::descriptions::Descriptions;
pub use self::expression::expression;
pub use self::node::{Kind, Presence};
pub use self::reference::{ListType, MapType, PatchStrategy, Property, SchemaRef};
pub use self::resource::{GroupVersionKind, Resource, Subresource, kind_schema, resources};
pub use self::rules::{Pattern, Rules, ValidationRule};
pub use self::structural::{SchemaError, structural};

#[cfg(test)]
mod tests;
