//! The controllers of nodes.
