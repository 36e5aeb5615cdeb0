//! The container engine: a child that outlives us, its configuration, and the images on disk.
//!
//! ```text
//! containerd          one_for_one
//! ├─ engine           configures containerd, starts or adopts it, starts it again when it ends
//! ├─ events           tells whoever runs pods that a container ended
//! └─ images           the sandbox's image, and the archives and lists of the images directory
//! ```
//!
//! containerd and its containers outlive this process: it is neither tied to us nor stopped with us. Which containerd is
//! ours, and with what configuration it was started, is read from `/proc`; no file can be wrong about it. One that runs as
//! it should is adopted, any other is replaced, which stops no container either.
//!
//! What is deliberately absent: runc and containerd themselves, which are found bundled or on the path ([`find_program`]),
//! and everything about pods, which is the kubelet's.

mod config;
mod engine;
mod error;
mod events;
mod host;
pub mod image;
mod images;
mod program;
mod readable;
mod render;
mod runtimes;
mod shims;
mod template;
mod tree;

pub use crate::config::{CniDirs, ContainerdConfig, PAUSE_IMAGE, SNAPSHOTTER, STREAM_PORT};
pub use crate::engine::{EngineHandle, EngineStatus};
pub use crate::error::{ContainerdError, ImportError};
pub use crate::images::{ImagesHandle, ImagesStatus};
pub use crate::program::find_program;
pub use crate::runtimes::{RUNTIME_CLASSES, Runtime, find_runtimes};
pub use crate::template::TemplateError;
pub use crate::tree::{ContainerdTree, engine, images, tree};
