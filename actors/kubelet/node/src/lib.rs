//! The Node object, its lease and status; eviction; collection of images and containers; the node's figures.
