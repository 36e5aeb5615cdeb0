//! Desired kernel state in, netlink operations out.
