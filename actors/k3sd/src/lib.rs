//! k3sd: a Kubernetes cluster in one process, compatible with K3s, built as a tree of supervised actors.
//!
//! This crate is the binary and what only the binary needs. [`cli`] understands the command line, [`config`] turns it,
//! the environment and the config files into one typed [`config::RunConfig`], [`run`] carries that out. [`commands`]
//! holds the commands that need no daemon, [`process`] what the process is to the machine. Subsystems are crates of their own and never read the environment.

pub mod actors_command;
pub mod agent;
pub mod cli;
pub mod commands;
pub mod config;
pub mod logging;
pub mod probe;
pub mod process;
pub mod run;
pub mod server;
pub mod tree;
