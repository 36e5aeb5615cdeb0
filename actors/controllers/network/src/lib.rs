//! The controllers that say where Services lead.
