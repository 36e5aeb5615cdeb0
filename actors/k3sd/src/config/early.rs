//! Looking up the data directory before, or without, understanding the whole command line.
//!
//! `kubectl` and its like need it to find programs, and a mistake in the daemon's config file is no reason for them to
//! fail. So nothing here is an error, and the order is K3s's own for this case: variable, argument, config file.

use std::path::PathBuf;

use crate::cli::environment::Environment;
use crate::cli::flags::Role;
use crate::config::build::{DATA_DIR_HOME, DATA_DIR_ROOT};
use crate::config::files;
use crate::config::merge::merge;
use crate::config::yaml::Node;

/// The data directory, `argument` being what a `--data-dir` before the sub-command says.
pub(crate) fn early_data_dir(environment: &Environment, argument: Option<&str>) -> PathBuf {
    let named = environment.var("K3S_DATA_DIR").or(argument).filter(|path| !path.is_empty()).map(str::to_owned);
    if let Some(path) = named.or_else(|| from_config_file(environment)) {
        return environment.absolute(path);
    }
    match &environment.home {
        Some(home) if !environment.is_root => home.join(DATA_DIR_HOME),
        _ => environment.well_known(DATA_DIR_ROOT),
    }
}

/// The `data-dir` of the config file, if there is a readable one that sets it.
fn from_config_file(environment: &Environment) -> Option<String> {
    let location = files::locate(environment, None).ok()?;
    let keys = merge(&files::read(&location, &environment.vars).ok()?);
    let is_data_dir = |key: &str| Role::Server.flag(key).is_some_and(|flag| flag.name == "data-dir");
    let value = keys.iter().filter(|key| is_data_dir(&key.key)).flat_map(|key| &key.values).next_back()?;
    match &value.node {
        Node::Scalar(scalar) if !scalar.text.is_empty() => Some(scalar.text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn variable_then_argument_then_file_then_default() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/rancher/k3s");
        fs::create_dir_all(&folder).unwrap();
        let mut environment = Environment::empty(SystemTime::UNIX_EPOCH);
        environment.root = root.path().to_owned();
        assert_eq!(early_data_dir(&environment, None), root.path().join("var/lib/rancher/k3s"));
        environment.is_root = false;
        environment.home = Some("/home/me".into());
        assert_eq!(early_data_dir(&environment, None), PathBuf::from("/home/me/.rancher/k3s"));
        fs::write(folder.join("config.yaml"), "broken: [").unwrap();
        assert_eq!(early_data_dir(&environment, None), PathBuf::from("/home/me/.rancher/k3s"));
        fs::write(folder.join("config.yaml"), "d: /file").unwrap();
        assert_eq!(early_data_dir(&environment, None), PathBuf::from("/file"));
        assert_eq!(early_data_dir(&environment, Some("/argument")), PathBuf::from("/argument"));
        environment.vars.insert("K3S_DATA_DIR".to_owned(), "/variable".to_owned());
        assert_eq!(early_data_dir(&environment, Some("/argument")), PathBuf::from("/variable"));
    }
}
