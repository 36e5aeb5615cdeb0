//! The binary as its own CNI plugin, and the actor that looks after the node's pod network.
