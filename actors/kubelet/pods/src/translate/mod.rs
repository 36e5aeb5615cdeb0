//! From the object to what the runtime is asked for. Pure: everything that has to be fetched or found is an input.
//!
//! * [`sandbox`] makes a `PodSandboxConfig`, [`container`] a `ContainerConfig`.
//! * [`environment`], [`fields`], [`services`] and [`expand`] make environment variables.
//! * [`dns`] and [`hosts`] make resolv.conf, /etc/hosts and host names.
//! * [`security`] and [`resources`] say as whom and with how much.
//! * [`mounts`] says what is where.
//! * [`labels`] is how the runtime's objects are recognised again.

pub mod container;
pub mod dns;
pub mod environment;
pub mod expand;
pub mod fields;
pub mod hosts;
pub mod labels;
pub mod mounts;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod services;
