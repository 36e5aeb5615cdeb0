//! The program: reads what the process was started with, once, and carries out what the command line asks for.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use k3sd::actors_command;
use k3sd::cli::{Alias, Environment, Invocation};
use k3sd::commands::{check_config, completion, external, kine, token_generate};
use k3sd::config::{self, Loaded, one_line};
use k3sd::process::{hide, init};

/// Any failure. K3s knows no other code, and scripts compare with it.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let mut environment = environment();
    // The container runtime starts it so, once for each pod: before anything else is read.
    let name = Path::new(&environment.argv0).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if k3sd_kubelet::is_plugin(name) {
        return k3sd_kubelet::run_plugin(name);
    }
    let program = Alias::of(&environment.argv0).program();
    let done = hide::take_over(&mut environment).map_err(Into::into);
    match done.and_then(|hidden| carry_out(&environment, program, hidden)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{program}: {}", one_line(&*error));
            ExitCode::from(FAILURE)
        }
    }
}

/// The process as it was started. Nothing below reads any of this again.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment and the clock")]
fn environment() -> Environment {
    let mut args = std::env::args_os();
    let argv0 = args.next().unwrap_or_default().to_string_lossy().into_owned();
    let var = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let vars: std::collections::BTreeMap<String, String> = std::env::vars_os().filter_map(var).collect();
    Environment {
        argv0,
        args: args.collect(),
        home: vars.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
        vars,
        // Without a working directory, relative paths fail where they are used, with a message of their own.
        cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        is_root: rustix::process::getuid().is_root(),
        now: SystemTime::now(),
        pid: std::process::id(),
        exe: std::env::current_exe().and_then(std::fs::canonicalize).ok(),
        root: PathBuf::from("/"),
    }
}

/// `hidden` says that the process list does not show the arguments.
fn carry_out(
    environment: &Environment,
    program: &'static str,
    hidden: bool,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let invocation = k3sd::cli::parse(environment)?;
    let secret = invocation.with_secrets();
    if let Some(title) = secret.filter(|_| !hidden) {
        let error = hide::start_again(environment, title);
        eprintln!("{program}: everybody on this machine can read the secrets on the command line: {error}");
    }
    if invocation.is_daemon() && init::is_first(environment) {
        return Ok(init::run(environment, secret)?);
    }
    match invocation {
        Invocation::Print(text) => print(&text),
        Invocation::Run { role, command_line } => match config::load(environment, role, &command_line)? {
            Loaded::Run(config) => Ok(k3sd::run::run(&config, environment)?),
            Loaded::Print { text, problem } => {
                print(&text)?;
                problem.map_or(Ok(ExitCode::SUCCESS), |problem| Err(problem.into()))
            }
        },
        Invocation::Actors { options, command } => {
            actors_command::run(&options, &command)?;
            Ok(ExitCode::SUCCESS)
        }
        Invocation::Kine(options) => Ok(kine::run(*options)?),
        Invocation::Completion { shell, install: false } => print(&completion::script(program, shell)),
        Invocation::Completion { shell, install: true } => {
            print(&completion::install(program, shell, environment.home.as_deref())?)
        }
        Invocation::TokenGenerate => print(&format!("{}\n", token_generate::run()?)),
        Invocation::CheckConfig { file } => check_kernel(environment, file.as_deref()),
        Invocation::External { tool, args, data_dir } => {
            Err(external::run(environment, tool, &args, data_dir.as_deref()).into())
        }
        Invocation::Unavailable { command, feature } => {
            let provider = feature.provider();
            Err(format!("`{command}` is not available yet: {provider} is not part of this build").into())
        }
    }
}

/// Prints, and takes a reader that left early (`| head`) for success.
fn print(text: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// The exit code is the number of options that are missing.
fn check_kernel(environment: &Environment, file: Option<&Path>) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let report = check_config::run(environment, file)?;
    print(&report.text)?;
    Ok(ExitCode::from(u8::try_from(report.failures).unwrap_or(u8::MAX)))
}
