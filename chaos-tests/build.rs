//! Clients of the etcd interface, made from the files that the server is made from. Needs `protoc` (Debian:
//! protobuf-compiler).

const PROTO: &str = "../actors/kine/proto";

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed={PROTO}");
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .compile_protos(&[format!("{PROTO}/etcd.proto")], &[PROTO.to_owned()])
}
