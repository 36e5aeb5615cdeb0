//! Commands that need no other daemon, one per file.

pub mod check_config;
pub mod completion;
pub mod external;
pub mod kine;
pub mod token_generate;
