//! Whether an image has to be pulled, and with which credentials.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// The registry that images without one come from.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The name under which its credentials are kept.
const DEFAULT_REGISTRY_KEY: &str = "index.docker.io";
/// Bytes of a file of the node's own credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Before each start.
    Always,
    /// If it isn't there.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// The policy, with the API's default: always for `latest`, otherwise if it isn't there.
#[must_use]
pub fn policy(named: Option<&str>, image: &str) -> Policy {
    match named {
        Some("Always") => Policy::Always,
        Some("IfNotPresent") => Policy::IfNotPresent,
        Some("Never") => Policy::Never,
        _ => match split(image) {
            (_, Some(tag), None) if tag != "latest" => Policy::IfNotPresent,
            (_, _, Some(_)) => Policy::IfNotPresent,
            _ => Policy::Always,
        },
    }
}

/// Repository, tag, digest.
fn split(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    let tag_at = rest.rfind(':').filter(|at| !rest[*at..].contains('/'));
    match tag_at {
        Some(at) => (&rest[..at], Some(&rest[at + 1..]), digest),
        None => (rest, None, digest),
    }
}

/// Whether this can be the name of an image.
#[must_use]
pub fn is_name(image: &str) -> bool {
    let (repository, tag, digest) = split(image);
    let path_ok = repository.split('/').enumerate().all(|(index, part)| {
        let upper = index == 0 && (part.contains(['.', ':']) || part == "localhost");
        !part.is_empty()
            && part.bytes().all(|byte| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || b"._-:".contains(&byte)
                    || (upper && (byte.is_ascii_uppercase() || b"[]".contains(&byte)))
            })
    });
    let tag_ok = tag.is_none_or(|tag| {
        !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    });
    let digest_ok = digest.is_none_or(|digest| digest.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32));
    path_ok && tag_ok && digest_ok
}

/// The name with registry and tag, as runtimes write it.
#[must_use]
pub fn normal(image: &str) -> String {
    let (repository, tag, digest) = split(image);
    let first = repository.split('/').next().unwrap_or_default();
    let has_registry = repository.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let repository = match (has_registry, repository.contains('/')) {
        (true, _) => repository.to_owned(),
        (false, true) => format!("{DEFAULT_REGISTRY}/{repository}"),
        (false, false) => format!("{DEFAULT_REGISTRY}/library/{repository}"),
    };
    match (tag, digest) {
        (None, None) => format!("{repository}:latest"),
        (Some(tag), None) => format!("{repository}:{tag}"),
        (None, Some(digest)) => format!("{repository}@{digest}"),
        (Some(tag), Some(digest)) => format!("{repository}:{tag}@{digest}"),
    }
}

/// The name of an image without tag and digest, with its registry.
#[must_use]
pub fn repository(image: &str) -> String {
    split(&normal(image)).0.to_owned()
}

/// User and password, by the registry or part of it that they are for.
pub type Auths = BTreeMap<String, (String, String)>;

/// Which images something is for: a registry, parts of whose host may be `*`, and the beginning of a path in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    host: Vec<String>,
    port: Option<String>,
    path: String,
}

impl Pattern {
    /// From what a user has written, with or without a scheme and a version.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::of(&key_of(text))
    }

    fn of(place: &str) -> Self {
        let (host, path) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, Some(port.to_owned())),
            _ => (host, None),
        };
        Self { host: host.split('.').map(str::to_owned).collect(), port, path: path.to_owned() }
    }

    /// Whether an image, named in whichever way, is among them.
    #[must_use]
    pub fn matches(&self, image: &str) -> bool {
        let name = repository(image);
        let of_default = name.strip_prefix(DEFAULT_REGISTRY).filter(|rest| rest.starts_with('/'));
        let place = Self::of(&of_default.map_or_else(|| name.clone(), |rest| format!("{DEFAULT_REGISTRY_KEY}{rest}")));
        self.host.len() == place.host.len()
            && self.port == place.port
            && self.host.iter().zip(&place.host).all(|(pattern, text)| glob(pattern, text))
            && place.path.starts_with(&self.path)
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Clone, Default, Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

/// Credentials, by the images that they are for. The nearest come first; of those equally near, those that were put in
/// first.
#[derive(Default)]
pub struct Keyring(Vec<(String, Pattern, AuthConfig)>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never what it holds.
        write!(f, "Keyring({} entries)", self.0.len())
    }
}

impl Keyring {
    /// Reads secrets of both kinds; what can't be read is skipped.
    #[must_use]
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut ring = Self::default();
        for secret in secrets {
            let data = |key: &str| secret.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice());
            let auths = match secret.type_.as_deref() {
                Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
                    .and_then(|bytes| serde_json::from_slice::<DockerConfig>(bytes).ok())
                    .map(|config| config.auths),
                Some("kubernetes.io/dockercfg") => {
                    data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok())
                }
                _ => None,
            };
            ring.add_all(auths.unwrap_or_default().into_iter().filter_map(|(key, auth)| Some((key, config(auth)?))));
        }
        ring
    }

    /// The node's own credentials, from `config.json` or, as it once was, `.dockercfg` in the kubelet's directory.
    #[must_use]
    pub fn of_node(root: &Path) -> Self {
        let read = |name: &str| {
            let path = root.join(name);
            let size = fs::metadata(&path).ok()?.len();
            if size > FILE_BYTES_MAX { None } else { fs::read(&path).ok() }
        };
        let new = read("config.json").and_then(|bytes| serde_json::from_slice::<DockerConfig>(&bytes).ok());
        let old = || serde_json::from_slice(&read(".dockercfg")?).ok();
        let mut ring = Self::default();
        let auths: BTreeMap<String, DockerAuth> = new.map(|config| config.auths).or_else(old).unwrap_or_default();
        ring.add_all(auths.into_iter().filter_map(|(key, auth)| Some((key, config(auth)?))));
        ring
    }

    /// From what programs said.
    #[must_use]
    pub fn of_auths(auths: Auths) -> Self {
        let mut ring = Self::default();
        ring.add_all(
            auths
                .into_iter()
                .map(|(key, (username, password))| (key, AuthConfig { username, password, ..AuthConfig::default() })),
        );
        ring
    }

    fn add_all(&mut self, all: impl IntoIterator<Item = (String, AuthConfig)>) {
        self.0.extend(all.into_iter().map(|(key, auth)| (key_of(&key), Pattern::new(&key), auth)));
        // The longest, that is the nearest, is tried first.
        self.0.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    }

    /// The credentials for an image, the nearest first.
    #[must_use]
    pub fn lookup(&self, image: &str) -> Vec<AuthConfig> {
        self.0.iter().filter(|(_, pattern, _)| pattern.matches(image)).map(|(.., auth)| auth.clone()).collect()
    }
}

/// What a registry is called in secrets, without scheme and version.
fn key_of(registry: &str) -> String {
    let bare = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == DEFAULT_REGISTRY { DEFAULT_REGISTRY_KEY.to_owned() } else { bare.to_owned() }
}

/// One part of a host, with `*` for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
}

fn config(auth: DockerAuth) -> Option<AuthConfig> {
    let (mut username, mut password) = (auth.username, auth.password);
    if !auth.auth.is_empty() {
        let plain = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
        let (user, word) = plain.split_once(':')?;
        (username, password) = (user.to_owned(), word.trim_end_matches('\0').to_owned());
    }
    Some(AuthConfig { username, password, identity_token: auth.identitytoken, ..AuthConfig::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_defaults() {
        for (named, image, expected) in [
            (None, "a", Policy::Always),
            (None, "a:latest", Policy::Always),
            (None, "a:1", Policy::IfNotPresent),
            (None, "host:5000/a", Policy::Always),
            (None, "a@sha256:00", Policy::IfNotPresent),
            (Some("Never"), "a", Policy::Never),
            (Some("IfNotPresent"), "a", Policy::IfNotPresent),
            (Some("Always"), "a:1", Policy::Always),
        ] {
            assert_eq!(policy(named, image), expected, "{named:?} {image}");
        }
    }

    #[test]
    fn names_are_made_whole() {
        for (image, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/b", "localhost/b:latest"),
            ("host:5000/b", "host:5000/b:latest"),
            ("r.io/b@sha256:0", "r.io/b@sha256:0"),
        ] {
            assert_eq!(normal(image), expected);
        }
        for (image, good) in [
            ("busybox", true),
            ("Busybox", false),
            ("a b", false),
            ("a:", false),
            ("", false),
            ("a//b", false),
            ("r.io:5000/a/b:v1", true),
            ("a@sha256:12", false),
        ] {
            assert_eq!(is_name(image), good, "{image}");
        }
    }

    #[test]
    fn patterns_are_for_images() {
        for (pattern, image, expected) in [
            ("r.io", "r.io/a/b:1", true),
            ("r.io", "x.r.io/a", false),
            ("*.r.io", "x.r.io/a", true),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu.amazonaws.com/a", true),
            ("*", "localhost:5000/a", false),
            ("localhost:5000", "localhost:5000/a", true),
            ("localhost", "localhost:5000/a", false),
            ("https://r.io/v1/", "r.io/a", true),
            ("r.io/team", "r.io/team/a", true),
            ("r.io/team", "r.io/other", false),
            ("docker.io", "busybox", true),
            ("docker.io", "docker.iox/a", false),
            ("[::1]:5000", "[::1]:5000/a", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(image), expected, "{pattern} {image}");
        }
    }

    #[test]
    fn the_nodes_own_credentials_are_read() {
        let place = tempfile::tempdir().unwrap();
        let users = || -> Vec<String> {
            Keyring::of_node(place.path()).lookup("r.io/a").into_iter().map(|auth| auth.username).collect()
        };
        assert!(users().is_empty());
        fs::write(place.path().join(".dockercfg"), r#"{"r.io": {"username": "old"}}"#).unwrap();
        assert_eq!(users(), ["old"]);
        fs::write(place.path().join("config.json"), r#"{"auths": {"r.io": {"username": "new"}}}"#).unwrap();
        assert_eq!(users(), ["new"]);
        let auths = Auths::from([("r.io".to_owned(), ("u".to_owned(), "p".to_owned()))]);
        assert_eq!(Keyring::of_auths(auths).lookup("r.io/a")[0].password, "p");
    }

    fn secret(kind: &str, key: &str, json: &str) -> Secret {
        let data = serde_json::json!({"type": kind, "data": {key: STANDARD.encode(json)}});
        serde_json::from_value(data).unwrap()
    }

    #[test]
    fn the_nearest_credentials_come_first() {
        let secrets = [
            secret(
                "kubernetes.io/dockerconfigjson",
                ".dockerconfigjson",
                &format!(
                    r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{}"}}, "r.io": {{"username": "host", "password": "p"}}, "r.io/team": {{"username": "team"}}, "*.example.com": {{"username": "any"}}}}}}"#,
                    STANDARD.encode("hub:word")
                ),
            ),
            secret("kubernetes.io/dockercfg", ".dockercfg", r#"{"old.io": {"username": "old"}}"#),
            secret("Opaque", ".dockercfg", r#"{"no.io": {"username": "no"}}"#),
            secret("kubernetes.io/dockercfg", ".dockercfg", "garbage"),
        ];
        let ring = Keyring::of(&secrets);
        for (image, expected) in [
            ("busybox", vec!["hub"]),
            ("docker.io/library/busybox:1", vec!["hub"]),
            ("r.io/team/a", vec!["team", "host"]),
            ("r.io/other", vec!["host"]),
            ("x.example.com/a", vec!["any"]),
            ("x.y.example.com/a", vec![]),
            ("old.io/a", vec!["old"]),
            ("no.io/a", vec![]),
        ] {
            let users: Vec<_> = ring.lookup(image).into_iter().map(|auth| auth.username).collect();
            assert_eq!(users, expected, "{image}");
        }
        assert!(!format!("{ring:?}").contains("word"));
    }
}
