//! The controllers of work that ends.
