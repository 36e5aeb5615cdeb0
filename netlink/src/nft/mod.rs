//! nftables: tables of our own, and nobody else's.
//!
//! A [`Table`] is data, as it is wanted and as it is read. [`plan()`] compares the two and yields [`Change`]s, which
//! [`Netfilter::apply`] hands to the kernel as one atomic batch: packets meet the old rules or the new ones, never half
//! of them. A table that is as it should be gets no batch at all.

mod codec;
mod expression;
mod handle;
mod model;
mod news;
mod plan;

pub use expression::{Base, Compare, CtKey, Expression, FibResult, MetaKey, Nat, Refusal, Register};
pub use handle::Netfilter;
pub use model::{
    Chain, ChainBase, ChainKind, Change, Contents, Data, DataKind, Element, Family, Hook, Rule, Set, Table, TypeId,
    Verdict,
};
pub use news::News;
pub use plan::plan;
