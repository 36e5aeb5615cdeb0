//! The endpoint as its users meet it, over a database in a file.

mod etcdctl;
mod grpc;
mod metrics;
mod support;
mod tls;
