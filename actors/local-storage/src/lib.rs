//! Volumes in directories of a node.
