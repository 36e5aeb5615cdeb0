//! The one way to reach the API, and the narrow types in which subsystems meet.
//!
//! * [`arguments`] reads flags of upstream's programs.
//! * [`storage`] is what the API server asks of whoever keeps its bytes.
//! * [`api`] makes clients, in this process or over TLS; feature `api`.
//! * [`controller`] runs loops that make what is into what is wanted; feature `api`.
//! * [`election`] says which of several processes acts; feature `api`.
//! * [`events`] writes down for people what happened; feature `api`.
//! * [`informer`] keeps local copies of what there is, shared by all who read it; feature `api`.
//! * [`streams`] passes on requests, and connections that become something else; feature `streams`.
//! * [`tls`] speaks to servers for which nobody vouches; feature `tls`.

#[cfg(feature = "api")]
pub mod api;
pub mod arguments;
#[cfg(feature = "api")]
pub mod controller;
#[cfg(feature = "api")]
pub mod election;
#[cfg(feature = "api")]
pub mod events;
#[cfg(feature = "api")]
pub mod informer;
pub mod storage;
#[cfg(feature = "streams")]
pub mod streams;
#[cfg(feature = "tls")]
pub mod tls;
