//! `CredentialProviderConfig`: which program knows about which images.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k3sd_client::arguments::go_duration;
use k3sd_objects::decode;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Versions of the file.
const FILE_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
/// The version of what is said to programs that knows of service accounts.
const WITH_ACCOUNTS: &str = "credentialprovider.kubelet.k8s.io/v1";
/// All of them.
const PROGRAM_VERSIONS: [&str; 3] =
    [WITH_ACCOUNTS, "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"];
/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Endings of files in a directory.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Why credentials from programs can't be used.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// A file or directory.
    #[error("read {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What a file says.
    #[error("{path:?}: {reason}")]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provider {
    /// Its file's name.
    pub name: String,
    /// Images that it knows about, with `*` for any text in parts of the host.
    pub match_images: Vec<String>,
    /// How long an answer holds that doesn't say so itself.
    #[serde(deserialize_with = "duration")]
    pub default_cache_duration: Duration,
    /// How it is spoken to.
    pub api_version: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables beside those of this process.
    #[serde(default)]
    pub env: Vec<Variable>,
    /// What it wants to know about service accounts; without it, nothing.
    #[serde(default)]
    pub token_attributes: Option<TokenAttributes>,
    /// Where it is.
    #[serde(skip)]
    pub program: PathBuf,
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What a program wants to know about a pod's service account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenAttributes {
    /// For whom the token is.
    pub service_account_token_audience: String,
    /// What answers are kept for.
    pub cache_type: CacheType,
    /// Whether pods without a service account get nothing.
    pub require_service_account: bool,
    /// Annotations without which an account's pods get nothing.
    #[serde(default)]
    pub required_service_account_annotation_keys: Vec<String>,
    /// Annotations that are passed on if they are there.
    #[serde(default)]
    pub optional_service_account_annotation_keys: Vec<String>,
}

/// What answers about service accounts are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum CacheType {
    /// All pods of the account.
    ServiceAccount,
    /// The pod whose token it was.
    Token,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    go_duration(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time such as 10m")))
}

/// Reads a file, or all files of a directory in the order of their names.
pub(super) fn load(path: &Path, programs: &Path) -> Result<Vec<Provider>, CredentialError> {
    let read = |source| CredentialError::Read { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if fs::metadata(path).map_err(read)?.is_dir() {
        let is_config = |path: &PathBuf| {
            path.is_file()
                && path.extension().and_then(|ending| ending.to_str()).is_some_and(|one| ENDINGS.contains(&one))
        };
        files = fs::read_dir(path).map_err(read)?.flatten().map(|entry| entry.path()).filter(is_config).collect();
        files.sort();
        if files.is_empty() {
            let reason = "there is no file with the ending json, yaml or yml in it".to_owned();
            return Err(CredentialError::Wrong { path: path.to_owned(), reason });
        }
    }
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for file in files {
        let wrong = |reason| CredentialError::Wrong { path: file.clone(), reason };
        let size = fs::metadata(&file).map_err(|source| CredentialError::Read { path: file.clone(), source })?.len();
        if size > FILE_BYTES_MAX {
            return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let bytes = fs::read(&file).map_err(|source| CredentialError::Read { path: file.clone(), source })?;
        for mut provider in parse(&bytes).map_err(wrong)? {
            if !names.insert(provider.name.clone()) {
                return Err(wrong(format!("provider {:?} is there twice", provider.name)));
            }
            provider.program = programs.join(&provider.name);
            let found = fs::metadata(&provider.program)
                .map_err(|source| CredentialError::Read { path: provider.program.clone(), source })?;
            if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
                return Err(wrong(format!("{:?} is no program", provider.program)));
            }
            all.push(provider);
        }
    }
    Ok(all)
}

/// Reads one file's text.
fn parse(bytes: &[u8]) -> Result<Vec<Provider>, String> {
    let value = decode::yaml(bytes, None).map_err(|error| error.to_string())?.value;
    let file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if file.kind != "CredentialProviderConfig" || !FILE_VERSIONS.contains(&file.api_version.as_str()) {
        return Err(format!("it is a {} of {}, not a CredentialProviderConfig", file.kind, file.api_version));
    }
    if file.providers.is_empty() {
        return Err("at least 1 item in plugins is required".to_owned());
    }
    for provider in &file.providers {
        check(provider).map_err(|error| format!("provider {:?}: {error}", provider.name))?;
    }
    Ok(file.providers)
}

fn check(provider: &Provider) -> Result<(), String> {
    let name = provider.name.as_str();
    if name.is_empty() || name.contains(['/', ' ']) || matches!(name, "." | "..") {
        return Err("the name has to be that of a file, without / and spaces".to_owned());
    }
    if !PROGRAM_VERSIONS.contains(&provider.api_version.as_str()) {
        return Err(format!("apiVersion {:?} is none of {}", provider.api_version, PROGRAM_VERSIONS.join(", ")));
    }
    if provider.match_images.is_empty() {
        return Err("at least 1 item in matchImages is required".to_owned());
    }
    if let Some(pattern) = provider.match_images.iter().find(|pattern| pattern.is_empty() || pattern.contains("://")) {
        return Err(format!("matchImages: {pattern:?} is not the beginning of an image's name"));
    }
    let Some(tokens) = &provider.token_attributes else { return Ok(()) };
    if provider.api_version != WITH_ACCOUNTS {
        return Err(format!("tokenAttributes need apiVersion {WITH_ACCOUNTS}"));
    }
    if tokens.service_account_token_audience.is_empty() {
        return Err("serviceAccountTokenAudience is empty".to_owned());
    }
    if !tokens.require_service_account && !tokens.required_service_account_annotation_keys.is_empty() {
        return Err("requireServiceAccount must be true if requiredServiceAccountAnnotationKeys are set".to_owned());
    }
    let (required, optional) =
        (&tokens.required_service_account_annotation_keys, &tokens.optional_service_account_annotation_keys);
    let mut seen = BTreeSet::new();
    match required.iter().chain(optional).find(|key| key.is_empty() || !seen.insert(*key)) {
        Some(key) => Err(format!("annotation {key:?} is empty or named twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(provider: &str) -> String {
        format!("apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- {provider}\n")
    }

    const GOOD: &str = "{name: ecr, matchImages: ['*.dkr.ecr.*.amazonaws.com'], defaultCacheDuration: 12h, \
        apiVersion: credentialprovider.kubelet.k8s.io/v1, args: [get], env: [{name: A, value: b}]}";

    #[test]
    fn files_are_checked() {
        let good = &parse(file(GOOD).as_bytes()).unwrap()[0];
        assert_eq!((good.name.as_str(), good.default_cache_duration.as_secs()), ("ecr", 43_200));
        let with = |from: &str, to: &str| parse(file(&GOOD.replace(from, to)).as_bytes());
        for (from, to) in [
            ("name: ecr", "name: ../ecr"),
            ("12h", "soon"),
            ("k8s.io/v1,", "k8s.io/v9,"),
            ("['*.dkr.ecr.*.amazonaws.com']", "[]"),
            ("['*.dkr.ecr.*.amazonaws.com']", "['https://r.io']"),
            ("args: [get]", "arguments: [get]"),
            ("args: [get]", "tokenAttributes: {serviceAccountTokenAudience: a, requireServiceAccount: true}"),
            (
                "args: [get]",
                "tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: false, requiredServiceAccountAnnotationKeys: [k]}",
            ),
        ] {
            assert!(with(from, to).is_err(), "{to}");
        }
        let tokens = "tokenAttributes: {serviceAccountTokenAudience: a, cacheType: ServiceAccount, requireServiceAccount: true, optionalServiceAccountAnnotationKeys: [k]}";
        assert!(with("args: [get]", tokens).is_ok());
        assert!(parse(b"apiVersion: v1\nkind: Pod\n").is_err());
        assert!(parse(b"{").is_err());
    }

    #[test]
    fn directories_are_read_in_order_and_programs_looked_for() {
        let place = tempfile::tempdir().unwrap();
        let (files, programs) = (place.path().join("files"), place.path().join("bin"));
        fs::create_dir_all(&files).unwrap();
        fs::create_dir_all(&programs).unwrap();
        assert!(load(&files, &programs).is_err(), "nothing is in it");
        for (name, provider) in [("b.yaml", "ecr"), ("a.yml", "gcr")] {
            fs::write(files.join(name), file(&GOOD.replace("name: ecr", &format!("name: {provider}")))).unwrap();
        }
        fs::write(files.join("readme.txt"), "{").unwrap();
        assert!(load(&files, &programs).is_err(), "the programs aren't there");
        for name in ["ecr", "gcr"] {
            fs::write(programs.join(name), "#!/bin/sh\n").unwrap();
            assert!(load(&files, &programs).is_err(), "it can't be run");
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let names: Vec<_> = load(&files, &programs).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["gcr", "ecr"]);
        assert_eq!(load(&files.join("b.yaml"), &programs).unwrap().len(), 1);
        fs::copy(files.join("b.yaml"), files.join("c.yaml")).unwrap();
        assert!(load(&files, &programs).is_err(), "twice the same");
        assert!(load(&place.path().join("none"), &programs).is_err());
    }
}
