//! The endpoint as its users meet it, over a database in a file.

mod etcdctl;
mod grpc;
mod metrics;
mod storage;
mod support;
mod tls;
