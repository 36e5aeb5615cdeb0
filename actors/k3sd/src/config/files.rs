//! Finding and reading the config file and its drop-ins. The only part of the configuration that touches the disk, or
//! the network if the file is there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::environment::Environment;
use crate::cli::flags::DEFAULT_CONFIG_FILE;
use crate::config::error::ConfigError;
use crate::config::fetch::{self, Url};
use crate::config::merge::ConfigFile;
use crate::config::origin::Origin;
use crate::config::redact::without_credentials;
use crate::config::yaml;

/// The variable that names the config file. Unlike everywhere else, it beats the flag, as it does in K3s.
pub(crate) const CONFIG_FILE_VAR: &str = "K3S_CONFIG_FILE";

/// Which config file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) place: Place,
    /// Who named it. A file that nobody named need not exist.
    pub(crate) origin: Origin,
}

/// Where a config file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the disk.
    Path(PathBuf),
    /// On a web server. There are no drop-ins beside it, as nobody can list a directory there.
    Url(Url),
}

impl Location {
    /// What everything that is read from there is said to come from: the path, or the URL without its secrets.
    pub(crate) fn shown(&self) -> PathBuf {
        match &self.place {
            Place::Path(path) => path.clone(),
            Place::Url(url) => PathBuf::from(url.to_string()),
        }
    }
}

/// Decides which file to read: the variable, else the last `--config`, else the default.
pub(crate) fn locate(environment: &Environment, flag: Option<&str>) -> Result<Location, ConfigError> {
    let named = match (environment.var(CONFIG_FILE_VAR), flag.filter(|path| !path.is_empty())) {
        (Some(path), _) => Some((path, Origin::Variable(CONFIG_FILE_VAR))),
        (None, Some(path)) => Some((path, Origin::CommandLine)),
        (None, None) => None,
    };
    let Some((path, origin)) = named else {
        let place = Place::Path(environment.well_known(DEFAULT_CONFIG_FILE));
        return Ok(Location { place, origin: Origin::Default });
    };
    let place = if fetch::is_url(path) {
        let url = Url::parse(path);
        Place::Url(url.map_err(|source| not_fetched(without_credentials(path), &origin, source))?)
    } else {
        Place::Path(environment.absolute(path))
    };
    Ok(Location { place, origin })
}

fn not_fetched(url: String, origin: &Origin, source: fetch::FetchError) -> ConfigError {
    ConfigError::NotFetched { url, set_by: set_by(origin), source }
}

/// Who named the config file; it is always the flag `--config` or its variable.
fn set_by(origin: &Origin) -> String {
    match origin {
        Origin::CommandLine => "set by --config".to_owned(),
        other => other.set_by(),
    }
}

/// Reads the file and then its drop-ins in the order of their names. A missing main file is an error only if somebody
/// named it and there is no drop-in either. `variables` name proxies and authorities on the way to a URL.
pub(crate) fn read(location: &Location, variables: &BTreeMap<String, String>) -> Result<Vec<ConfigFile>, ConfigError> {
    match &location.place {
        Place::Path(path) => read_files(path, &location.origin),
        Place::Url(url) => {
            let bytes = fetch::fetch(url, variables);
            let bytes = bytes.map_err(|source| not_fetched(url.to_string(), &location.origin, source))?;
            Ok(vec![parse(&location.shown(), bytes)?])
        }
    }
}

fn read_files(path: &Path, origin: &Origin) -> Result<Vec<ConfigFile>, ConfigError> {
    let drop_ins = drop_ins(path)?;
    let mut files = Vec::with_capacity(drop_ins.len() + 1);
    match fs::read(path) {
        Ok(bytes) => files.push(parse(path, bytes)?),
        Err(error) if is_absent(&error) => {
            if *origin != Origin::Default && drop_ins.is_empty() {
                return Err(ConfigError::Missing { path: path.to_owned(), set_by: set_by(origin) });
            }
        }
        Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    }
    for path in drop_ins {
        match fs::read(&path) {
            Ok(bytes) => files.push(parse(&path, bytes)?),
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }
    Ok(files)
}

/// A path below something that is no directory is as absent as one that is not there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The files `*.yaml` and `*.yml` in the directory named after the config file with `.d` appended, sorted by name.
fn drop_ins(config_file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut directory = config_file.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let unreadable = |source| ConfigError::Unreadable { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let is_yaml = path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml"));
        if is_yaml && !entry.file_type().map_err(unreadable)?.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn parse(path: &Path, bytes: Vec<u8>) -> Result<ConfigFile, ConfigError> {
    let error = |line, column, problem| ConfigError::Yaml { path: path.to_owned(), line, column, problem };
    let text = String::from_utf8(bytes).map_err(|not_utf8| {
        let valid = &not_utf8.as_bytes()[..not_utf8.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = 1 + valid.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
        error(line, column, "the file is not UTF-8 text".to_owned())
    })?;
    // A byte order mark is a Windows editor's signature, not a part of the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let entries = yaml::parse(text).map_err(|yaml| error(yaml.line, yaml.column, yaml.problem))?;
    Ok(ConfigFile { path: Arc::from(path), entries })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn environment(var: Option<&str>) -> Environment {
        let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
        environment.cwd = "/somewhere".into();
        environment.vars.extend(var.map(|value| (CONFIG_FILE_VAR.to_owned(), value.to_owned())));
        environment
    }

    #[test]
    fn the_variable_beats_the_flag_beats_the_default() {
        let variable = Origin::Variable(CONFIG_FILE_VAR);
        let rows = [
            (None, None, DEFAULT_CONFIG_FILE, Origin::Default),
            (None, Some("/flag.yaml"), "/flag.yaml", Origin::CommandLine),
            (Some("/var.yaml"), Some("/flag.yaml"), "/var.yaml", variable.clone()),
            (Some(""), Some("relative.yaml"), "/somewhere/relative.yaml", Origin::CommandLine),
            (Some("var.yaml"), None, "/somewhere/var.yaml", variable),
            (None, Some(""), DEFAULT_CONFIG_FILE, Origin::Default),
        ];
        for (var, flag, path, origin) in rows {
            let location = locate(&environment(var), flag).unwrap();
            assert_eq!(location, Location { place: Place::Path(path.into()), origin }, "{var:?} {flag:?}");
        }
    }

    #[test]
    fn urls_stay_urls_and_show_no_password() {
        let location = locate(&environment(None), Some("HTTPS://me:hush@host/k3s.yaml?token=hush")).unwrap();
        assert!(matches!(location.place, Place::Url(_)));
        assert_eq!(location.shown(), PathBuf::from("https://host/k3s.yaml?(not shown)"));
        assert!(!format!("{location:?}").contains("hush"));
        let error = locate(&environment(Some("http://me:hush@/k3s.yaml")), None).unwrap_err();
        let line = crate::config::one_line(&error);
        assert!(line.starts_with("config file http://(not shown)@/k3s.yaml can't be fetched (set by "), "{line}");
        assert!(
            line.contains(CONFIG_FILE_VAR) && line.ends_with("its host is neither a name nor an address"),
            "{line}"
        );
    }

    fn read(location: &Location) -> Result<Vec<ConfigFile>, ConfigError> {
        super::read(location, &BTreeMap::new())
    }

    struct Folder {
        directory: tempfile::TempDir,
    }

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self { directory }
        }

        fn read(&self, origin: Origin) -> Result<Vec<String>, ConfigError> {
            let files = read(&Location { place: Place::Path(self.directory.path().join("c.yaml")), origin })?;
            let name = |file: &ConfigFile| file.path.strip_prefix(self.directory.path()).unwrap().display().to_string();
            Ok(files.iter().map(name).collect())
        }
    }

    #[test]
    fn drop_ins_follow_in_the_order_of_their_names() {
        let folder = Folder::with(&[
            ("c.yaml", "a: 1"),
            ("c.yaml.d/20.yaml", "a: 1"),
            ("c.yaml.d/10.YML", "a: 1"),
            ("c.yaml.d/Z.Yaml", "a: 1"),
            ("c.yaml.d/notes.txt", "not: [yaml"),
            ("c.yaml.d/backup.yaml~", "not: [yaml"),
            ("c.yaml.d/folder.yaml/x.yaml", "not: [yaml"),
        ]);
        let expected = ["c.yaml", "c.yaml.d/10.YML", "c.yaml.d/20.yaml", "c.yaml.d/Z.Yaml"];
        assert_eq!(folder.read(Origin::Default).unwrap(), expected);
    }

    #[test]
    fn a_missing_file_matters_only_if_named_and_alone() {
        let empty = Folder::with(&[]);
        assert_eq!(empty.read(Origin::Default).unwrap(), Vec::<String>::new());
        let error = empty.read(Origin::CommandLine).unwrap_err();
        assert!(matches!(error, ConfigError::Missing { .. }), "{error}");
        let drop_in = Folder::with(&[("c.yaml.d/a.yaml", "a: 1")]);
        assert_eq!(drop_in.read(Origin::CommandLine).unwrap(), ["c.yaml.d/a.yaml"]);
    }

    #[test]
    fn what_is_no_file_is_unreadable() {
        let folder = Folder::with(&[("c.yaml/inside", "")]);
        let error = folder.read(Origin::Default).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn text_that_is_not_utf8_is_located() {
        let folder = Folder::with(&[]);
        let path = folder.directory.path().join("c.yaml");
        fs::write(&path, b"a: 1\nb: \xff").unwrap();
        let error = read(&Location { place: Place::Path(path), origin: Origin::Default }).unwrap_err();
        assert!(matches!(error, ConfigError::Yaml { line: 2, column: 4, .. }), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let folder = Folder::with(&[("c.yaml", "\u{feff}a: 1")]);
        let place = Place::Path(folder.directory.path().join("c.yaml"));
        let files = read(&Location { place, origin: Origin::Default }).unwrap();
        assert_eq!(files[0].entries[0].key, "a");
    }
}
