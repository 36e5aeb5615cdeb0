//! The scripts of the repository as a user runs them: `install.sh` on machines of its own, with each init system, and the
//! table that `bench.sh` makes.
#![expect(clippy::disallowed_methods, reason = "scripts and daemons take the machine's own time")]

mod bench;
mod install;
mod machine;
