//! The subtree as a server runs it: its files as openssl sees them, and its certificates as TLS peers do.

mod openssl;
mod renewal;
mod serving;
mod support;
