//! Pods, from the API to containers and back, over the API server in this process and a real containerd of the test's own.
//! All but a few are on the host's network, so that no CNI is needed.

mod admission;
mod images;
mod life;
mod probes;
mod registry;
mod resize;
mod security;
mod world;
