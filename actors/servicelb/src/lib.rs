//! Load balancers without a cloud: the nodes' own addresses.
