//! Makes the built-in schemas: the JSON schemas of `k8s-openapi`, joined with the tables under `data/`.
//!
//! ```text
//! k8s-openapi ─▶ types ─┐                            ┌─▶ schemas.rs        constants
//! data/*.txt ─▶ tables ─┴─▶ arena ─▶ wire ─▶ emit ───┼─▶ resources.rs      constants
//!                                                    └─▶ descriptions.bin  compressed, read when somebody asks
//! ```

#[path = "build/arena.rs"]
mod arena;
#[path = "build/emit.rs"]
mod emit;
#[path = "src/schema/node.rs"]
#[expect(unreachable_pub, dead_code, reason = "the crate uses it too, all of it, and passes two types on")]
mod node;
#[path = "build/tables.rs"]
mod tables;
#[path = "build/types.rs"]
mod types;
#[path = "build/wire.rs"]
mod wire;

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::arena::{Arena, Sources};
use crate::tables::Resource;

/// Stands between two descriptions; none of them holds it.
const SEPARATOR: &str = "\0";

fn main() {
    for path in ["build", "data", "src/schema/node.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let resources = Resource::parse_all(&data("resources.txt"));
    let listed = resources.iter().filter(|resource| resource.verbs.iter().any(|verb| verb == "list"));
    let listed: Vec<String> = listed.map(Resource::type_name).collect();
    let arena = Arena::build(&Sources {
        definitions: types::definitions(&listed),
        merging: tables::merging(&data("lists.txt")),
        messages: tables::messages(&data("protobuf.txt")),
        presence: tables::presence(&data("presence.txt")),
    });
    write("schemas.rs", emit::arena(&arena).as_bytes());
    write("resources.rs", emit::resources(&resources).as_bytes());
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(arena.descriptions.join(SEPARATOR).as_bytes()).expect("writes to memory");
    write("descriptions.bin", &encoder.finish().expect("writes to memory"));
}

fn data(name: &str) -> String {
    let path = Path::new("data").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to a build script through the environment")]
fn write(name: &str, content: &[u8]) {
    let folder = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let path = Path::new(&folder).join(name);
    std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
