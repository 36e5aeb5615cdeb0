//! What the process itself is to the machine: what others see of it, and what it owes as the first one.

pub mod hide;
pub mod init;
