//! With a real containerd and runc, each in directories of its own. Root is needed.
#![expect(clippy::disallowed_methods, reason = "tests wait for other processes, on the machine's own clock")]

mod around;
mod cri;
mod engine;
mod import;
mod support;
