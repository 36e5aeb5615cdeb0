//! Manifests that deploy themselves, and charts that become jobs.
//!
//! ```text
//! server/manifests ─▶ files ─▶ parse ─▶ deploy ─▶ apply ─▶ API         AddOns: one per file
//!        ▲                                          ▲
//!     packaged                                      │
//! HelmChart, HelmChartConfig ─▶ helm ───────────────┘                  jobs that run Helm
//! ```
//!
//! * [`config`] says what there is to deploy, and [`tree`](mod@tree) starts it.
//! * `files` looks into the directory, writes packaged files into it and notices changes.
//! * `parse` makes objects of documents; a broken document doesn't keep the others of its file from being applied.
//! * `apply` makes a set of objects what it should be: it creates, patches in three ways and prunes, and writes the same
//!   labels and annotations as K3s, so that a cluster that moves over sees nothing re-created.
//! * `deploy` has an AddOn for each file, and Events about it.
//! * `helm` has jobs for charts.
//! * [`charts`] finds the files of `server/static` for whoever serves them.
//!
//! Both controllers look at what there is and forget what they were told, so either may be killed at any moment. What is
//! in the cluster already as it should be isn't written again.

mod api;
mod apply;
pub mod charts;
pub mod config;
mod definitions;
mod deploy;
mod error;
mod files;
mod helm;
mod packaged;
mod parse;
pub mod tree;

pub use self::config::{HelmConfig, ManifestsConfig, Packaged, Variables};
pub use self::error::ManifestsError;
pub use self::packaged::own_files;
pub use self::tree::{ManifestsDeps, ManifestsTree, tree};
