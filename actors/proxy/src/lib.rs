//! The service proxy: what Services promise, as rules of the kernel.
