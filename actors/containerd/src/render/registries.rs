//! `registries.yaml`: mirrors of registries, and how to speak to each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k3sd_objects::decode;
use serde_json::{Map, Value};

/// The largest file that is read.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// A name under which a host is known to others.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// See the fields. `Debug` shows no secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registries {
    /// By host, or `*` for all that have no entry of their own.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By host: of a registry, or of a mirror's endpoint.
    pub configs: BTreeMap<String, HostConfig>,
    /// An older way to say who we are, by host or URL.
    pub legacy_auths: BTreeMap<String, Auth>,
}

/// Where a registry's images are, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// URLs in the order in which they are tried.
    pub endpoints: Vec<String>,
    /// Patterns of repositories and what they become.
    pub rewrites: BTreeMap<String, String>,
}

/// How to speak to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostConfig {
    pub auth: Option<Auth>,
    pub tls: Option<Tls>,
}

/// Who we are to a host.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Auth {
    pub username: String,
    pub password: String,
    /// User and password in base64.
    pub auth: String,
    pub identity_token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

/// TLS to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

impl Registries {
    /// Reads the file. What is wrong is told by where it is; values are never repeated, they may be secrets.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let read = decode::yaml(bytes, None).map_err(|error| error.to_string())?;
        let root = At { path: String::new(), value: &read.value };
        let mut found = Self::default();
        for (host, at) in root.key("mirrors")?.entries()? {
            found.mirrors.insert(host, mirror(&at)?);
        }
        for (host, at) in root.key("configs")?.entries()? {
            let config = HostConfig { auth: auth(&at.key("auth")?)?, tls: tls(&at.key("tls")?)? };
            found.configs.insert(host, config);
        }
        for (host, at) in root.key("auths")?.entries()? {
            found.legacy_auths.extend(auth(&at)?.map(|auth| (host, auth)));
        }
        Ok(found)
    }

    /// How to speak to a host; Docker's registry has two names.
    pub(crate) fn config(&self, host: &str) -> Option<&HostConfig> {
        let alias = || DOCKER_HUB.contains(&host).then(|| DOCKER_HUB.iter().find_map(|name| self.configs.get(*name)));
        self.configs.get(host).or_else(|| alias().flatten())
    }

    /// Who we are to each host.
    pub(crate) fn auths(&self) -> BTreeMap<&str, &Auth> {
        let mut all: BTreeMap<&str, &Auth> =
            self.legacy_auths.iter().map(|(host, auth)| (host_of(host), auth)).collect();
        for (host, config) in &self.configs {
            // containerd looks for Docker's registry under the name that it speaks to.
            let name = if host == DOCKER_HUB[0] { DOCKER_HUB[1] } else { host };
            all.extend(config.auth.as_ref().map(|auth| (name, auth)));
        }
        all
    }
}

/// The host of a URL, or of a host.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn mirror(at: &At<'_>) -> Result<Mirror, String> {
    let mut mirror = Mirror::default();
    for item in at.key("endpoint")?.items()? {
        mirror.endpoints.push(item.text()?);
    }
    for (pattern, to) in at.key("rewrite")?.entries()? {
        mirror.rewrites.insert(pattern, to.text()?);
    }
    Ok(mirror)
}

fn auth(at: &At<'_>) -> Result<Option<Auth>, String> {
    if at.value.is_null() {
        return Ok(None);
    }
    let read = Auth {
        username: at.key("username")?.text()?,
        password: at.key("password")?.text()?,
        auth: at.key("auth")?.text()?,
        identity_token: at.key("identity_token")?.text()?,
    };
    Ok(Some(read))
}

fn tls(at: &At<'_>) -> Result<Option<Tls>, String> {
    if at.value.is_null() {
        return Ok(None);
    }
    let file = |key: &str| at.key(key)?.text().map(|text| (!text.is_empty()).then(|| PathBuf::from(text)));
    let read = Tls {
        ca_file: file("ca_file")?,
        cert_file: file("cert_file")?,
        key_file: file("key_file")?,
        insecure_skip_verify: at.key("insecure_skip_verify")?.flag()?,
    };
    Ok(Some(read))
}

/// A value, and where it is.
struct At<'a> {
    path: String,
    value: &'a Value,
}

static ABSENT: Value = Value::Null;

impl<'a> At<'a> {
    fn wrong<T>(&self, wanted: &str) -> Result<T, String> {
        let place = if self.path.is_empty() { "the file" } else { &self.path };
        Err(format!("{place} has to be {wanted}"))
    }

    fn map(&self) -> Result<Option<&'a Map<String, Value>>, String> {
        match self.value {
            Value::Null => Ok(None),
            Value::Object(map) => Ok(Some(map)),
            _ => self.wrong("a map"),
        }
    }

    fn below(&self, key: &str, value: &'a Value) -> At<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        At { path, value }
    }

    fn key(&self, key: &str) -> Result<At<'a>, String> {
        Ok(self.below(key, self.map()?.and_then(|map| map.get(key)).unwrap_or(&ABSENT)))
    }

    fn entries(&self) -> Result<Vec<(String, At<'a>)>, String> {
        let entry = |(key, value): (&String, &'a Value)| (key.clone(), self.below(key, value));
        Ok(self.map()?.into_iter().flatten().map(entry).collect())
    }

    fn items(&self) -> Result<Vec<At<'a>>, String> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => {
                let item = |(index, value)| At { path: format!("{}[{index}]", self.path), value };
                Ok(items.iter().enumerate().map(item).collect())
            }
            _ => self.wrong("a list"),
        }
    }

    fn text(&self) -> Result<String, String> {
        match self.value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            // A password of digits is one all the same.
            Value::Number(number) => Ok(number.to_string()),
            _ => self.wrong("text"),
        }
    }

    fn flag(&self) -> Result<bool, String> {
        match self.value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => self.wrong("true or false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_errors_name_the_place_but_no_secret() {
        let text = b"mirrors:\n  docker.io:\n    endpoint: [https://m.example]\n    rewrite: {\"^a/(.*)\": \"b/$1\"}\n  '*':\n\
            configs:\n  m.example:\n    auth: {username: u, password: 1234}\n    tls: {ca_file: /ca, insecure_skip_verify: true}\n\
            auths:\n  https://old.example/v1: {identity_token: t}\n";
        let read = Registries::parse(text).unwrap();
        assert_eq!(read.mirrors["docker.io"].endpoints, ["https://m.example"]);
        assert_eq!(read.mirrors["docker.io"].rewrites["^a/(.*)"], "b/$1");
        assert!(read.mirrors["*"].endpoints.is_empty());
        let config = &read.configs["m.example"];
        assert_eq!(config.auth.as_ref().unwrap().password, "1234");
        assert!(config.tls.as_ref().unwrap().insecure_skip_verify);
        assert_eq!(read.auths()["old.example"].identity_token, "t");
        assert!(!format!("{read:?}").contains("1234"));
        let wrong = Registries::parse(b"configs:\n  a:\n    auth: geheim\n").unwrap_err();
        assert_eq!(wrong, "configs.a.auth has to be a map");
        assert_eq!(
            Registries::parse(b"mirrors:\n  a: {endpoint: x}\n").unwrap_err(),
            "mirrors.a.endpoint has to be a list"
        );
        assert_eq!(Registries::parse(b" \n").unwrap(), Registries::default());
        assert!(Registries::parse(b"a: [").is_err());
    }

    #[test]
    fn docker_hub_has_two_names() {
        let read = Registries::parse(b"configs: {docker.io: {auth: {username: u}}}").unwrap();
        assert!(read.config("registry-1.docker.io").is_some() && read.config("quay.io").is_none());
        assert!(read.auths().contains_key("registry-1.docker.io"));
    }
}
