//! The node: pods, volumes, their network, and the kubelet's own API.
