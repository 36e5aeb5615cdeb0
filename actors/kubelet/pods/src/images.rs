//! Whether an image has to be pulled, and with which credentials.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// The registry that images without one come from.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The name under which its credentials are kept.
const DEFAULT_REGISTRY_KEY: &str = "index.docker.io";

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

/// Credentials from secrets, by the registry or part of it that they are for.
#[derive(Default)]
pub struct Keyring(Vec<(String, AuthConfig)>);

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
        let mut found = Vec::new();
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
            for (registry, auth) in auths.unwrap_or_default() {
                found.extend(config(auth).map(|auth| (key_of(&registry), auth)));
            }
        }
        // The longest, that is the nearest, is tried first.
        found.sort_by(|(one, _), (other, _)| other.cmp(one));
        Self(found)
    }

    /// The credentials for an image, the nearest first.
    #[must_use]
    pub fn lookup(&self, image: &str) -> Vec<AuthConfig> {
        let name = normal(image);
        let (repository, ..) = split(&name);
        let place = repository
            .strip_prefix(DEFAULT_REGISTRY)
            .map_or_else(|| repository.to_owned(), |rest| format!("{DEFAULT_REGISTRY_KEY}{rest}"));
        self.0.iter().filter(|(key, _)| matches(key, &place)).map(|(_, auth)| auth.clone()).collect()
    }
}

/// What a registry is called in secrets, without scheme and version.
fn key_of(registry: &str) -> String {
    let bare = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == DEFAULT_REGISTRY { DEFAULT_REGISTRY_KEY.to_owned() } else { bare.to_owned() }
}

/// Whether a key, of which parts of the host may be `*`, is for a repository.
fn matches(key: &str, place: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (key_parts, parts): (Vec<_>, Vec<_>) = (key_host.split('.').collect(), host.split('.').collect());
    key_parts.len() == parts.len()
        && key_parts.iter().zip(&parts).all(|(key, part)| glob(key, part))
        && path.starts_with(key_path)
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
