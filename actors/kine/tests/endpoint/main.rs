//! The endpoint as its users meet it, over a database in a file.

mod etcdctl;
mod grpc;
mod support;
mod tls;
