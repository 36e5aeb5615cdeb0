//! Keeps secrets out of the process list.
//!
//! Everybody on a machine can read the arguments of every process, and a process that would overwrite its own needs
//! unsafe code. So the program starts itself again, as the same process, with nothing but the name of the command, and
//! hands its real arguments over in a file that has no name and is emptied by whoever reads it:
//!
//! ```text
//!   k3sd server --token=...  ── exec ──▶  k3sd server
//!        └── file in memory, its descriptor in a variable ──▲
//! ```

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::cli::Environment;

/// The variable that names the descriptor of the file with the arguments.
const VARIABLE: &str = "K3SD_ARGUMENTS_FD";
/// What the kernel calls the file. It is how a descriptor is known to be ours.
const NAME: &str = "k3sd-arguments";

/// Takes the arguments over from the process that this one was. Says whether there were any; if not, nothing changes.
///
/// # Errors
/// When there are some and they can't be read.
pub fn take_over(environment: &mut Environment) -> io::Result<bool> {
    let Some(descriptor) = environment.vars.remove(VARIABLE).and_then(|text| text.parse::<u32>().ok()) else {
        return Ok(false);
    };
    let path = format!("/proc/self/fd/{descriptor}");
    let is_ours = fs::read_link(&path).is_ok_and(|name| name.to_string_lossy().starts_with(&format!("/memfd:{NAME}")));
    if !is_ours {
        return Ok(false);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // Programs started from here inherit the descriptor, and shall find nothing.
    file.set_len(0)?;
    let Some(bytes) = bytes.strip_suffix(b"\0") else {
        // Somebody took them before: we were started by one who had been handed his.
        return Ok(false);
    };
    environment.args = bytes.split(|byte| *byte == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect();
    Ok(true)
}

/// Starts the program again with `title` as its only visible argument. Comes back only if that fails.
#[must_use]
pub fn start_again(environment: &Environment, title: &str) -> io::Error {
    match again(environment, title) {
        Ok((mut command, _arguments)) => command.exec(),
        Err(error) => error,
    }
}

/// A command that starts this program once more, and the file it reads its arguments from, which has to stay open until
/// it has started.
pub(super) fn again(environment: &Environment, title: &str) -> io::Result<(Command, File)> {
    let unknown = || io::Error::new(ErrorKind::NotFound, "the program's own file is not known; is /proc there?");
    let exe = environment.exe.as_ref().ok_or_else(unknown)?;
    let mut file = File::from(memfd_create(NAME, MemfdFlags::empty())?);
    for arg in &environment.args {
        file.write_all(arg.as_bytes())?;
        file.write_all(b"\0")?;
    }
    let mut command = Command::new(exe);
    command.arg0(&environment.argv0).arg(title).env(VARIABLE, file.as_raw_fd().to_string());
    Ok((command, file))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn environment(descriptor: &str) -> Environment {
        let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
        environment.args = vec!["as".into(), "before".into()];
        environment.vars.insert(VARIABLE.to_owned(), descriptor.to_owned());
        environment
    }

    #[test]
    fn arguments_are_handed_over_once_whatever_they_hold() {
        let args = [OsString::from("server"), OsString::new(), OsString::from_vec(b"--token=\xff\n".to_vec())];
        let mut first = environment("");
        first.args = args.to_vec();
        first.exe = Some("/proc/self/exe".into());
        let (command, file) = again(&first, "server").expect("there is room for a file");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["server"]);
        let descriptor = file.as_raw_fd().to_string();
        let mut second = environment(&descriptor);
        assert!(take_over(&mut second).expect("it can be read"));
        assert_eq!(second.args, args);
        assert!(!second.vars.contains_key(VARIABLE));
        let mut third = environment(&descriptor);
        assert!(!take_over(&mut third).expect("it can be read"), "they are gone");
        assert_eq!(third.args, ["as", "before"]);
    }

    #[test]
    fn what_is_no_file_of_ours_is_left_alone() {
        let other = tempfile::tempfile().expect("a file");
        for descriptor in [other.as_raw_fd().to_string(), "999999".to_owned(), "-1".to_owned(), "x".to_owned()] {
            let mut environment = environment(&descriptor);
            assert!(!take_over(&mut environment).expect("it is none of ours"), "{descriptor}");
            assert_eq!(environment.args, ["as", "before"]);
        }
    }
}
