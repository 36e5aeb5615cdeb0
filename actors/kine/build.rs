//! Turns the `.proto` files into Rust. Needs `protoc` (Debian: protobuf-compiler).

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".")
        .compile_protos(&["proto/etcd.proto", "proto/health.proto"], &["proto"])
}
