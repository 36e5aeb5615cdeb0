//! The controllers of who is who.
