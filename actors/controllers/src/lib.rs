//! The controllers of the control plane: each loop is an actor that makes what is into what is wanted.
