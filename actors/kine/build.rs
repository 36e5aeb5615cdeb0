//! Turns the `.proto` files into Rust, and into a table for those who ask what is served. Needs `protoc` (Debian:
//! protobuf-compiler).

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

const FILES: [&str; 4] =
    ["proto/etcd.proto", "proto/health.proto", "proto/reflection_v1.proto", "proto/reflection_v1alpha.proto"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    #[expect(clippy::disallowed_methods, reason = "so cargo tells a build script where to write")]
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let descriptors = Path::new(&out).join("descriptors.bin");
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".")
        .file_descriptor_set_path(&descriptors)
        .compile_protos(&FILES, &["proto"])?;
    let set = FileDescriptorSet::decode(fs::read(descriptors)?.as_slice()).map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("descriptors.rs"), table(&set))
}

/// Every file: its name, what it needs, what it declares, and itself.
fn table(set: &FileDescriptorSet) -> String {
    let mut text = String::from("&[");
    for file in &set.file {
        let bytes = file.encode_to_vec();
        write!(
            text,
            "File {{ name: {:?}, needs: &{:?}, declares: &{:?}, bytes: &{bytes:?} }},",
            file.name(),
            file.dependency,
            declared(file)
        )
        .expect("a string takes everything");
    }
    text + "]"
}

/// Full names of messages, enums, services and their calls.
fn declared(file: &FileDescriptorProto) -> Vec<String> {
    let mut names = Vec::new();
    let package = file.package();
    for message in &file.message_type {
        declared_by_message(package, message, &mut names);
    }
    names.extend(file.enum_type.iter().map(|kind| format!("{package}.{}", kind.name())));
    for service in &file.service {
        let name = format!("{package}.{}", service.name());
        names.extend(service.method.iter().map(|call| format!("{name}.{}", call.name())));
        names.push(name);
    }
    names
}

fn declared_by_message(outer: &str, message: &DescriptorProto, names: &mut Vec<String>) {
    let name = format!("{outer}.{}", message.name());
    for inner in &message.nested_type {
        declared_by_message(&name, inner, names);
    }
    names.extend(message.enum_type.iter().map(|kind| format!("{name}.{}", kind.name())));
    names.push(name);
}
