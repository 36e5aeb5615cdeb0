//! What to do with what was found: pure.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The variable that tells with what an engine was started. It is read from the environment of the process, so that there
/// is no file that could be wrong about it.
pub(crate) const MARK: &str = "K3SD_ENGINE";

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The whole environment, the mark included.
    pub environment: Vec<(OsString, OsString)>,
    /// Stands for the configuration and everything else that takes a restart to change.
    pub mark: String,
}

/// A process that runs with our configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub pid: u32,
    /// The program's file, unless that was replaced since.
    pub program: Option<PathBuf>,
    /// Its mark, if it has one.
    pub mark: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Watch it.
    Adopt(u32),
    /// End all of them, then start one.
    Replace(Vec<u32>),
    /// Start one.
    Start,
}

/// Decides. More than one can only be ours if a start was cut short; none of them is trusted then.
pub(crate) fn verdict(found: &[Found], wanted: &Launch) -> Verdict {
    match found {
        [] => Verdict::Start,
        [one] if one.program.as_ref() == Some(&wanted.program) && one.mark.as_ref() == Some(&wanted.mark) => {
            Verdict::Adopt(one.pid)
        }
        all => Verdict::Replace(all.iter().map(|found| found.pid).collect()),
    }
}

/// Whether a command line is that of an engine with this configuration file.
pub(crate) fn is_engine(command_line: &[u8], config_file: &Path) -> bool {
    let mut words = command_line.split(|byte| *byte == 0);
    let is_containerd =
        words.next().is_some_and(|program| program.rsplit(|b| *b == b'/').next() == Some(b"containerd"));
    let mut previous: &[u8] = b"";
    is_containerd
        && words.any(|word| {
            let found = previous == b"-c" && word == config_file.as_os_str().as_bytes();
            previous = word;
            found
        })
}

/// A variable in `/proc/<pid>/environ`.
pub(crate) fn variable(environ: &[u8], name: &str) -> Option<String> {
    let prefix = format!("{name}=");
    let found = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()));
    found.map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The environment of an engine, given ours: without what is only for us, and with what is only for it.
pub(crate) fn environment(ours: &[(OsString, OsString)]) -> (Vec<(OsString, OsString)>, Option<String>) {
    const PREFIX: &[u8] = b"CONTAINERD_";
    let mut level = None;
    let mut plain: Vec<(OsString, OsString)> = Vec::new();
    let mut special: Vec<(OsString, OsString)> = Vec::new();
    for (key, value) in ours {
        match key.as_bytes() {
            b"NOTIFY_SOCKET" => {}
            b"CONTAINERD_LOG_LEVEL" => {
                level = Some(value.to_string_lossy().into_owned()).filter(|level| !level.is_empty())
            }
            bytes => match bytes.strip_prefix(PREFIX).filter(|rest| !rest.is_empty()) {
                Some(rest) => special.push((OsString::from_vec(rest.to_vec()), value.clone())),
                None => plain.push((key.clone(), value.clone())),
            },
        }
    }
    plain.retain(|(key, _)| !special.iter().any(|(other, _)| other == key));
    plain.extend(special);
    (plain, level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        let (program, mark) = (PathBuf::from("/usr/bin/containerd"), "m".to_owned());
        Launch { program, arguments: Vec::new(), environment: Vec::new(), mark }
    }

    #[test]
    fn only_the_same_program_with_the_same_settings_is_adopted() {
        let same = Found { pid: 7, program: Some("/usr/bin/containerd".into()), mark: Some("m".to_owned()) };
        let other = Found { mark: Some("n".to_owned()), ..same.clone() };
        let replaced = Found { program: None, ..same.clone() };
        let foreign = Found { mark: None, ..same.clone() };
        assert_eq!(verdict(&[], &launch()), Verdict::Start);
        assert_eq!(verdict(std::slice::from_ref(&same), &launch()), Verdict::Adopt(7));
        for found in [other, replaced, foreign] {
            assert_eq!(verdict(&[found], &launch()), Verdict::Replace(vec![7]));
        }
        assert_eq!(verdict(&[same.clone(), Found { pid: 8, ..same }], &launch()), Verdict::Replace(vec![7, 8]));
    }

    #[test]
    fn an_engine_is_known_by_its_configuration_file() {
        let file = Path::new("/a/config.toml");
        assert!(is_engine(b"/usr/bin/containerd\0-c\0/a/config.toml\0", file));
        assert!(is_engine(b"containerd\0--log-level\0debug\0-c\0/a/config.toml\0-a\0x\0", file));
        assert!(!is_engine(b"containerd\0-c\0/b/config.toml\0", file));
        assert!(!is_engine(b"vi\0-c\0/a/config.toml\0", file));
        assert!(!is_engine(b"", file));
        assert_eq!(variable(b"A=1\0K3SD_ENGINE=x\0", MARK).as_deref(), Some("x"));
        assert_eq!(variable(b"XK3SD_ENGINE=x\0", MARK), None);
    }

    #[test]
    fn what_is_meant_for_the_engine_loses_its_prefix() {
        let pair = |key: &str, value: &str| (OsString::from(key), OsString::from(value));
        let ours = [
            pair("NOTIFY_SOCKET", "/run/notify"),
            pair("HTTP_PROXY", "a"),
            pair("CONTAINERD_HTTP_PROXY", "b"),
            pair("CONTAINERD_LOG_LEVEL", "debug"),
            pair("HOME", "/root"),
        ];
        let (environment, level) = environment(&ours);
        assert_eq!(level.as_deref(), Some("debug"));
        assert_eq!(environment, [pair("HOME", "/root"), pair("HTTP_PROXY", "b")]);
    }
}
