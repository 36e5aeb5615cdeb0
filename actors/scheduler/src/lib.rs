//! The scheduler: finds a node for each pod.
