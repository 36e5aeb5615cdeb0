//! Turns the `.proto` file into Rust. Needs `protoc` (Debian: protobuf-compiler).

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let build = tonic_prost_build::configure().build_transport(false);
    build.compile_protos(&["proto/deviceplugin.proto"], &["proto"])
}
