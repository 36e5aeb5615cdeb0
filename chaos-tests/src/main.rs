//! `chaos-tests soak --minutes N [--seed S]`: plays one simulated cluster after the other, each with faults of its own,
//! until time is over or something is wrong. `chaos-tests seed S [--trace FILE]` plays one again.

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::simulation::replay;
use chaos_tests::simulation::trace::Trace;
use chaos_tests::simulation::{Outcome, run};
use peak_alloc::PeakAlloc;

/// Counts what is in use, so that what deaths leave behind is seen.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// No run takes that long, unless it hangs.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked whether a run is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const USAGE: &str = "usage: chaos-tests soak --minutes N [--seed S] | seed S [--trace FILE]";

fn number(text: Option<String>) -> Result<u64, String> {
    let text = text.ok_or(USAGE)?;
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().as_deref() {
        Some("seed") => one(arguments),
        Some("soak") => soak(arguments),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos-tests: {error}");
            ExitCode::from(2)
        }
    }
}

/// Plays one seed. Says whether all is well.
fn one(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let seed = number(arguments.next())?;
    let file = match arguments.next().as_deref() {
        Some("--trace") => Some(PathBuf::from(arguments.next().ok_or(USAGE)?)),
        None => None,
        Some(_) => return Err(USAGE.to_owned()),
    };
    if !replay::is_child() {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = replay::command(&program, seed);
        if let Some(file) = file {
            command.arg("--trace").arg(file);
        }
        let status = command.status().map_err(|error| error.to_string())?;
        return Ok(status.success());
    }
    let trace = Trace::new(file.as_deref()).map_err(|error| error.to_string())?;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Those that are part of the plan need no words.
        let text = panic.payload_as_str().unwrap_or_default();
        if text != "asked to panic" {
            usual(panic);
        }
    }));
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let threads = threads.map_err(|error| error.to_string())?;
    let outcome = threads.block_on(run(seed, &trace, || MEMORY.current_usage()));
    trace.flush();
    tell(seed, &outcome);
    Ok(outcome.findings.is_empty())
}

fn tell(seed: u64, outcome: &Outcome) {
    let Outcome { findings, plan, faults, deaths, memory: [before, after], hash } = outcome;
    if !findings.is_empty() {
        plan.iter().for_each(|planned| println!("{planned}"));
        findings.iter().take(20).for_each(|finding| println!("WRONG {finding}"));
    }
    let total: u64 = faults.values().sum();
    let kinds: Vec<String> = faults.iter().map(|(word, count)| format!("{word} {count}")).collect();
    // Not a part of the line that is the same each time.
    println!("memory in use: {} KiB before the faults, {} after them", before >> 10, after >> 10);
    println!("seed {seed}: faults {total}, deaths {deaths}, hash {hash:016x}; {}", kinds.join(", "));
}

/// Ends a run that hangs, with this process too.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a command to its end, or to the limit.
fn output(command: &mut Command) -> Result<Output, String> {
    let words = |error: std::io::Error| error.to_string();
    let (out, log) = (tempfile::NamedTempFile::new().map_err(words)?, tempfile::NamedTempFile::new().map_err(words)?);
    let stdout = Stdio::from(out.reopen().map_err(words)?);
    let stderr = Stdio::from(log.reopen().map_err(words)?);
    let mut running = Running(command.stdout(stdout).stderr(stderr).spawn().map_err(words)?);
    let began = Instant::now();
    let status = loop {
        match running.0.try_wait().map_err(words)? {
            Some(status) => break Some(status),
            None if began.elapsed() > RUN_LIMIT => break None,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    drop(running);
    let (stdout, mut stderr) = (std::fs::read(out.path()).map_err(words)?, std::fs::read(log.path()).map_err(words)?);
    if status.is_none() {
        stderr.extend_from_slice(format!("it was not over after {RUN_LIMIT:?}\n").as_bytes());
    }
    Ok(Output { status: status.unwrap_or_default(), stdout, stderr })
}

/// Plays seeds until time is over, or one goes wrong.
fn soak(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut minutes, mut seed) = (None, 1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => minutes = Some(number(arguments.next())?),
            "--seed" => seed = number(arguments.next())?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let limit = Duration::from_secs(60 * minutes.ok_or(USAGE)?);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    if !replay::is_exact() {
        println!("libfaketime is missing: runs are not replayed exactly");
    }
    let (began, mut seeds, mut faults) = (Instant::now(), 0_u64, 0_u64);
    while began.elapsed() < limit {
        let run_began = Instant::now();
        let done = output(&mut replay::command(&program, seed))?;
        let text = String::from_utf8_lossy(&done.stdout);
        let last = text.lines().next_back().unwrap_or_default();
        let own = last.split_once("faults ").and_then(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok());
        if !done.status.success() || own.is_none() {
            println!("{text}{}", String::from_utf8_lossy(&done.stderr));
            println!("seed {seed} went wrong; replay with: cargo run -p chaos-tests -- seed {seed}");
            return Ok(false);
        }
        seeds += 1;
        faults += own.unwrap_or_default();
        let rate = faults as f64 / began.elapsed().as_secs_f64();
        println!(
            "{last} [{:.1} s; {seeds} seeds, {faults} faults, {rate:.1} faults/s]",
            run_began.elapsed().as_secs_f64()
        );
        seed += 1;
    }
    println!("{seeds} seeds and {faults} faults in {:.0} s, and nothing is wrong", began.elapsed().as_secs_f64());
    Ok(true)
}
