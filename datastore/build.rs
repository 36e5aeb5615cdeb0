//! Turns etcd's interface into Rust. Needs `protoc` (Debian: protobuf-compiler).

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=src/etcd/etcd.proto");
    tonic_prost_build::configure()
        .build_server(false)
        // Connections are made in `etcd/line.rs`.
        .build_transport(false)
        // What is sent is shared with the caller. What is received is not: a value that is kept must not keep the whole
        // answer it came in.
        .bytes(".etcdserverpb.RangeRequest")
        .bytes(".etcdserverpb.PutRequest")
        .bytes(".etcdserverpb.DeleteRangeRequest")
        .bytes(".etcdserverpb.Compare")
        .bytes(".etcdserverpb.WatchCreateRequest")
        .compile_protos(&["src/etcd/etcd.proto"], &["src/etcd"])
}
