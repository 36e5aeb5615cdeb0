//! `completion bash|zsh [-i]`: the script, or its installation in the shell's start file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap_complete::{Shell, generate};
use thiserror::Error;

use crate::cli::{CompletionShell, clap_command};

/// Why completions could not be installed. The start file is as it was.
#[derive(Debug, Error)]
pub enum CompletionError {
    /// Nobody knows where the start file would be.
    #[error("there is no home directory to install completions in; set HOME")]
    NoHome,
    /// The start file can't be read or written.
    #[error("completions can't be added to {path}; check its permissions")]
    File {
        /// The start file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The completion script.
#[must_use]
pub fn script(program: &'static str, shell: CompletionShell) -> String {
    let mut script = Vec::new();
    let generator = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
    };
    generate(generator, &mut clap_command(program), program, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Makes the shell load the script whenever it starts, and says what was done. Doing it twice changes nothing.
///
/// # Errors
/// When there is no home directory, or the start file can't be read or added to.
pub fn install(program: &str, shell: CompletionShell, home: Option<&Path>) -> Result<String, CompletionError> {
    let (name, file) = match shell {
        CompletionShell::Bash => ("bash", ".bashrc"),
        CompletionShell::Zsh => ("zsh", ".zshrc"),
    };
    let path = home.ok_or(CompletionError::NoHome)?.join(file);
    let marker = format!("# completions of {program}: begin");
    let failed = |source| CompletionError::File { path: path.clone(), source };
    let before = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    if String::from_utf8_lossy(&before).lines().any(|line| line == marker) {
        return Ok(format!("{} loads the completions of {program} already\n", path.display()));
    }
    let newline = if before.is_empty() || before.ends_with(b"\n") { "" } else { "\n" };
    let block = format!("{newline}{marker}\nsource <({program} completion {name})\n# completions of {program}: end\n");
    // One write, so that a full disk leaves at worst a shorter block and never touches what was there.
    let mut start_file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
    start_file.write_all(block.as_bytes()).map_err(failed)?;
    Ok(format!("{} now loads the completions of {program}; start a new {name} to use them\n", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_commands_and_flags() {
        for (shell, start) in [(CompletionShell::Bash, "_k3sd()"), (CompletionShell::Zsh, "#compdef k3sd")] {
            let script = script("k3sd", shell);
            assert!(script.contains(start));
            for word in ["etcd-snapshot", "--flannel-backend", "--inspect-socket", "rotate-ca"] {
                assert!(script.contains(word), "{shell:?} knows {word}");
            }
        }
    }

    #[test]
    fn installing_appends_one_block_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".bashrc");
        fs::write(&path, "alias ll='ls -l'").unwrap();
        install("k3sd", CompletionShell::Bash, Some(home.path())).unwrap();
        let once = fs::read_to_string(&path).unwrap();
        let expected = "alias ll='ls -l'\n# completions of k3sd: begin\nsource <(k3sd completion bash)\n\
                        # completions of k3sd: end\n";
        assert_eq!(once, expected);
        let answer = install("k3sd", CompletionShell::Bash, Some(home.path())).unwrap();
        assert!(answer.contains("already"), "{answer}");
        assert_eq!(fs::read_to_string(&path).unwrap(), once);
        install("k3s", CompletionShell::Bash, Some(home.path())).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with(&once), "another name gets its own block");
    }

    #[test]
    fn a_missing_start_file_is_made() {
        let home = tempfile::tempdir().unwrap();
        install("k3sd", CompletionShell::Zsh, Some(home.path())).unwrap();
        assert!(fs::read_to_string(home.path().join(".zshrc")).unwrap().starts_with("# completions"));
    }

    #[test]
    fn no_home_and_no_permission_are_errors() {
        assert!(matches!(install("k3sd", CompletionShell::Zsh, None), Err(CompletionError::NoHome)));
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".zshrc")).unwrap();
        let error = install("k3sd", CompletionShell::Zsh, Some(home.path())).unwrap_err();
        assert!(matches!(error, CompletionError::File { .. }), "{error}");
    }
}
