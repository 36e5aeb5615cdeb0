//! What a measurement is asked to do, and with which binary. Shared by those that start servers and print a table.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// The command line, understood.
pub(crate) struct Order<S> {
    /// How much is measured.
    pub(crate) scale: S,
    /// Which rows of the table.
    pub(crate) rows: Vec<String>,
    /// Where the directories of the servers are made.
    pub(crate) directory: PathBuf,
}

impl<S> Order<S> {
    /// Reads `[--quick] [--rounds N] [--directory DIRECTORY] [ROW]...`. `scale` makes the scale, quick or not; `rounds`
    /// says where in it the rounds are counted.
    pub(crate) fn read(rows: &[&str], scale: fn(bool) -> S, rounds: fn(&mut S) -> &mut usize) -> Result<Self, Failure> {
        let (mut quick, mut wanted, mut directory, mut count) = (false, Vec::new(), None, None);
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => {} // cargo says so to every bench.
                "--quick" => quick = true,
                "--rounds" => count = Some(words.next().ok_or("--rounds needs a number")?.parse()?),
                "--directory" => directory = Some(PathBuf::from(words.next().ok_or("--directory needs a path")?)),
                row if rows.contains(&row) => wanted.push(word),
                _ => return Err(format!("unknown: {word}; rows: {}", rows.join(", ")).into()),
            }
        }
        if wanted.is_empty() {
            wanted = rows.iter().map(ToString::to_string).collect();
        }
        let mut scale = scale(quick);
        let rounds = rounds(&mut scale);
        *rounds = count.unwrap_or(*rounds).max(1);
        let directory = directory.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        std::fs::create_dir_all(&directory)?;
        Ok(Self { scale, rows: wanted, directory })
    }
}

/// The binary to measure: the one that `K3SD_BINARY` names, or the release build.
pub(crate) fn binary() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("K3SD_BINARY") {
        return Ok(PathBuf::from(named));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("the target directory has a parent")?;
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "k3sd", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).env("CARGO_TARGET_DIR", target);
    if !build.status()?.success() {
        return Err("the release build failed".into());
    }
    Ok(target.join("release/k3sd"))
}

/// How busy the machine is.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
