//! `k3sd server --disable-agent` as clients of others see it: the transcripts of `kubectl` in `fixtures/kubectl`, and the
//! programs for the official Python client in `fixtures/python`, each against a server of its own. Brings its own runner,
//! which can say that a client is missing.
//!
//! `K3SD_TRANSCRIPT_WRITE=1` writes what the commands printed into the transcripts, for a person to look through.
#![expect(clippy::disallowed_methods, reason = "the runner reads the environment that it is started with")]

#[path = "../support/ports.rs"]
mod ports;
mod server;
mod transcript;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use self::server::Server;
use self::transcript::Transcript;

/// Where transcripts and programs are.
const FOLDERS: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/kubectl"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/python"),
];
/// Names a Python that has the client; `test.sh` makes one.
const PYTHON: &str = "K3SD_TEST_PYTHON";

/// Plays a file against a server; fails with what differs.
type Play = fn(&Path) -> Result<(), String>;

fn main() -> ExitCode {
    let (switches, filters): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let entries = FOLDERS.iter().flat_map(|folder| fs::read_dir(folder).expect("the fixtures are there"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| is_a(path, "txt") || is_a(path, "py"));
    paths.sort();
    paths.retain(|path| filters.is_empty() || filters.iter().any(|word| name(path).contains(word)));
    if switches.iter().any(|switch| switch == "--list") {
        paths.iter().for_each(|path| println!("{}: test", name(path)));
        return ExitCode::SUCCESS;
    }
    let kubectl = answers(Command::new("kubectl").args(["version", "--client"]));
    let python = answers(Command::new(python()).args(["-c", "import kubernetes"]));
    let (mut passed, mut ignored, mut failed) = (0, 0, 0);
    for path in &paths {
        let (present, missing, play): (_, _, Play) = match is_a(path, "py") {
            true => (python, "ignored, there is no Python client (pip install kubernetes)", run_program),
            false => (kubectl, "ignored, there is no kubectl (on Debian: kubernetes-client)", play),
        };
        let (count, word) = match present.then(|| catch_unwind(AssertUnwindSafe(|| play(path)))) {
            None => (&mut ignored, missing),
            Some(Ok(Ok(()))) => (&mut passed, "ok"),
            Some(Ok(Err(difference))) => {
                println!("{}: {difference}", path.display());
                (&mut failed, "FAILED")
            }
            Some(Err(_)) => (&mut failed, "FAILED"),
        };
        *count += 1;
        println!("test {} ... {word}", name(path));
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_a(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn answers(command: &mut Command) -> bool {
    command.output().is_ok_and(|ran| ran.status.success())
}

fn python() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "python3".to_owned())
}

fn name(path: &Path) -> String {
    let kind = if is_a(path, "py") { "python" } else { "kubectl" };
    format!("{kind}::{}", path.file_stem().unwrap_or_default().to_string_lossy())
}

fn run_program(path: &Path) -> Result<(), String> {
    let server = Server::start(transcript::ALONE);
    let (code, printed) = server.run(&format!("{} {}", python(), path.display()));
    if code == 0 { Ok(()) } else { Err(format!("{printed}\nthe server's log:\n{}", server.log())) }
}

fn play(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).expect("a transcript");
    let transcript = Transcript::parse(&text);
    let server = Server::start(&transcript.flags);
    let played = transcript.play(&server);
    if std::env::var_os("K3SD_TRANSCRIPT_WRITE").is_some() {
        fs::write(path, played.text).expect("the transcript is written");
    } else if let Some(difference) = played.difference {
        return Err(format!("{difference}\nthe server's log:\n{}", server.log()));
    }
    Ok(())
}
