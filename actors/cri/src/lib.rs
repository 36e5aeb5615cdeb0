//! The container runtime interface: its messages, and a client over a unix socket.
