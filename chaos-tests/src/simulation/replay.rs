//! One run in a process of its own, so that it goes the same way each time.
//!
//! The standard library seeds its hash maps, and tokio with them its choice among several things that are ready, from
//! `getrandom`. Debian's `libfaketime` can answer that from a seed; it is laid under the process that plays a run. Without
//! it a run is the same but for those choices.
//!
//! Where that may be, the process has mounts of its own too: the simulated node mounts volumes, and however a run ends,
//! nothing stays mounted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where Debian puts it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// What runs the rest of a command with mounts of its own.
const UNSHARE: [&str; 3] = ["unshare", "--mount", "--"];
/// Says that a process plays a run itself.
const CHILD: &str = "CHAOS_SIMULATION";

/// Whether runs go exactly the same way each time on this machine.
#[must_use]
pub fn is_exact() -> bool {
    Path::new(LIBRARY).exists()
}

/// Whether this process is one that [`command`] made.
#[must_use]
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Whether a process may have mounts of its own: what it mounts is then gone with it, however it ends.
fn has_own_mounts() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        Command::new(UNSHARE[0])
            .args(&UNSHARE[1..])
            .arg("true")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|end| end.success())
    })
}

/// The command that plays this seed's run with this program, `chaos-tests`.
#[must_use]
pub fn command(program: &Path, seed: u64) -> Command {
    let mut command = if has_own_mounts() {
        let mut command = Command::new(UNSHARE[0]);
        command.args(&UNSHARE[1..]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(["seed", &seed.to_string()]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
    if is_exact() {
        command.env("LD_PRELOAD", LIBRARY);
        command.env("FAKERANDOM_SEED", format!("0x{:016X}", seed.wrapping_mul(2) | 1));
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
    }
    command
}
