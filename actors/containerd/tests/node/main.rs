//! With a real containerd and runc, each in directories of its own. Root is needed.

mod engine;
mod import;
mod support;
