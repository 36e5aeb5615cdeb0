//! The container engine: a child that outlives us, its configuration, and the images on disk.
