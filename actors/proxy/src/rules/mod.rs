//! What the kernel is to do, as tables of nftables; pure.
//!
//! ```text
//! packet ─▶ services: proto . address . port ─▶ recipe ─▶ a chain for each recipe
//!                                                         │ random index, or what the client got before
//!                                                         ▼
//!           endpoints: proto . address . port . index ─▶ address . port ─▶ dnat
//! ```
//!
//! Services and endpoints are elements of maps and no rules, so what a change costs does not depend on how many there are.
//! A [`Recipe`] is what services have in common: how many endpoints, how sticky, whose packets get a new source. It is
//! the value of the map, and the kernel finds its chain through a second, small map. So no element of the large maps
//! leads to a chain, and the kernel need not walk all of them whenever one changes.
//!
//! A node port, or a port of a load balancer that is the node itself, is reached at many addresses. It stands under one
//! address that nobody has, see [`Place`].
//!
//! There is a table for each IP family, made of the same rules; they differ in the length of an address.

mod chain;
mod element;
mod recipe;
mod table;

pub(crate) use chain::Policy;
pub(crate) use element::{
    Element, ElementKey, Front, SetId, endpoint_of, hairpin, read_address, recipe_of, service_address, source_bits,
};
pub(crate) use recipe::{Masquerade, Place, Recipe};
pub(crate) use table::{TABLE, add_chain, family, table};

/// Where the indexes of endpoints on this node begin, for those to whom only these are shown.
pub(crate) const LOCAL_INDEX: u32 = 1 << 24;
