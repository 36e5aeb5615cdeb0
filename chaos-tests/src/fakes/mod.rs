//! What stands in a simulation where a machine would be: a container runtime, a slow disk, a bad network. Each behaves as
//! the real one does when all is well, and fails on request in the ways that the real one can.

pub mod cri;
pub mod disk;
pub mod port;
pub mod wire;
