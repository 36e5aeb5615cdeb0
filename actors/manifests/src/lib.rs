//! Manifests that deploy themselves, and charts that become jobs.
