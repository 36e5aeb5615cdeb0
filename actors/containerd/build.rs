//! Builds the program of the sandbox. It has no libc and needs instructions of its own for system calls, so it is no
//! crate of the workspace: rustc makes it directly.

use std::path::Path;
use std::process::Command;
use std::{env, io};

const SOURCE: &str = "../../fixtures/pause/pause.rs";

#[expect(clippy::disallowed_methods, reason = "so cargo tells a build script what it needs")]
fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(io::Error::other)
}

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={SOURCE}");
    let output = Path::new(&variable("OUT_DIR")?).join("pause");
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "pause", "--target", &variable("TARGET")?]);
    rustc.args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Crelocation-model=static", "-Ccodegen-units=1"]);
    // No start files, no libraries; one segment and no padding, which would be most of the file.
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-z,norelro", "-Wl,-n"] {
        rustc.arg(format!("-Clink-arg={argument}"));
    }
    let status = rustc.arg("-o").arg(&output).arg(SOURCE).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("rustc could not build {SOURCE}: {status}"))) }
}
