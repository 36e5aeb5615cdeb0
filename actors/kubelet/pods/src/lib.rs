//! Pods: an actor each, from the object to sandboxes and containers, and their status back.
