//! What has to hold of a simulated cluster, each in a file of its own: functions over what a client, or somebody who looks
//! at the tree from outside, can see. Each has a test in which it fails.
//!
//! | file | holds |
//! |---|---|
//! | [`crate::api::judge`] | no acknowledged write is lost, revisions grow, a watcher that follows the protocol has exactly the history |
//! | [`incarnations`] | one life at a time at each place, who dies is back within a bound, nobody panics by himself |
//! | [`shape`] | the tree has its full shape, all of it runs, nothing else is alive |
//! | [`containers`] | no container is stopped, or started again, that was not asked to be |
//! | [`settled`] | what was asked for is there, in the API and on the node, and nothing else |
//! | [`rules`] | the kernel sends packets for Services to their ready endpoints, and to nobody else |
//! | [`storage`] | what is bound stays so, with what is in it; each pod has its volumes, and nothing is left of others |
//! | [`logs`] | a log is that of the container it is asked of; at rest each can be read, and the node tells of its pods |
//! | [`leaks`] | tasks and file descriptors are as many as before, and memory has not grown with deaths |

pub mod containers;
pub mod incarnations;
pub mod leaks;
pub mod logs;
pub mod rules;
pub mod settled;
pub mod shape;
pub mod storage;
