//! The controllers that clear away and count.
