//! Cluster DNS: an actor of our own, and CoreDNS's configuration.
