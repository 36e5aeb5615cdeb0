//! Who the node is: its labels, taints, annotations and addresses, and what becomes of a Node that is there already.

mod addresses;
mod annotations;
mod object;
#[cfg(test)]
mod tests;

pub(crate) use self::addresses::address_list;
pub use self::addresses::{AddressError, HostAddresses, NodeIps, outgoing_address};
pub use self::annotations::{NODE_ARGS, NODE_CONFIG_HASH, NODE_ENV, node_annotations};
pub use self::object::{CloudAnnotations, Identity, initial, reconcile};
