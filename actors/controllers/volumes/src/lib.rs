//! The controllers of storage.
