//! Commands that work without a running daemon, one per file.

pub mod check_config;
pub mod completion;
pub mod external;
pub mod token_generate;
