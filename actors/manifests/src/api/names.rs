//! Kinds and keys, in the words in which K3s writes them.

use std::fmt;

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Gvk {
    /// Empty for core.
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    pub(crate) fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// Reads what [`Gvk::fmt`] wrote; also without the dash before core's versions.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (version, kind) = text.split_once(", Kind=")?;
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        (!version.is_empty() && !kind.is_empty()).then(|| Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
        })
    }

    /// As objects write it.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Where the group's version is served.
    pub(super) fn root(&self) -> String {
        let version = escape(&self.version);
        if self.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", escape(&self.group))
        }
    }

    /// Whether it is that kind of core, or of that group.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// Namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Empty for objects of the cluster.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A text as part of a path or a query.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                escaped.push(char::from(byte))
            }
            byte => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_and_read() {
        for (api_version, kind, text, root) in [
            ("v1", "ConfigMap", "/v1, Kind=ConfigMap", "/api/v1"),
            ("apps/v1", "Deployment", "apps/v1, Kind=Deployment", "/apis/apps/v1"),
        ] {
            let gvk = Gvk::new(api_version, kind);
            assert_eq!((gvk.to_string().as_str(), gvk.api_version().as_str()), (text, api_version));
            assert_eq!((Gvk::parse(text), gvk.root()), (Some(gvk), root.to_owned()));
        }
        assert_eq!(Gvk::parse("v1, Kind=ConfigMap"), Some(Gvk::new("v1", "ConfigMap")));
        for broken in ["", "v1", ", Kind=", "apps/, Kind=A", "apps/v1, Kind="] {
            assert_eq!(Gvk::parse(broken), None, "{broken:?}");
        }
        assert_eq!(escape("system:a b/ä"), "system:a%20b%2F%C3%A4");
    }
}
