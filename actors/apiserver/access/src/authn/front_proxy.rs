//! A proxy in front of us that says whom it speaks for.
//!
//! It is believed only with a certificate of an authority of its own, which is checked before anything here is asked.

use super::Headers;
use crate::User;

/// Which headers a front proxy uses, and which names its certificate may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxy {
    /// Common names of certificates that are believed; empty for all that the authority issued.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first one that isn't empty counts.
    pub name_headers: Vec<String>,
    /// Headers with the user's uid, likewise.
    pub uid_headers: Vec<String>,
    /// Headers with groups; all of them count.
    pub group_headers: Vec<String>,
    /// What headers with anything else begin with.
    pub extra_prefixes: Vec<String>,
}

impl Default for FrontProxy {
    /// The headers that aggregated API servers are told to look for.
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            allowed_names: Vec::new(),
            name_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl FrontProxy {
    /// Whether a verified certificate of this common name makes its holder a front proxy.
    #[must_use]
    pub fn trusts(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|allowed| allowed == common_name)
    }

    /// Whom the proxy speaks for; `None` if it names nobody.
    #[must_use]
    pub fn user(&self, headers: Headers<'_>) -> Option<User> {
        let first = |names: &[String]| {
            let values = names.iter().map(|name| headers.first(name));
            values.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_owned()
        };
        let name = first(&self.name_headers);
        if name.is_empty() {
            return None;
        }
        let groups = self.group_headers.iter().flat_map(|name| headers.all(name));
        let mut user = User { name, uid: first(&self.uid_headers), ..User::default() };
        user.groups = groups.filter(|group| !group.is_empty()).map(str::to_owned).collect();
        for (key, values) in self.extra_prefixes.iter().flat_map(|prefix| headers.extras(prefix)) {
            user.extra.entry(key).or_default().extend(values);
        }
        Some(user)
    }

    /// Whether a header speaks of the user. Such headers go no further, whoever sent them.
    #[must_use]
    pub fn is_consumed(&self, header: &str) -> bool {
        let mut exact = self.name_headers.iter().chain(&self.uid_headers).chain(&self.group_headers);
        let begins =
            |prefix: &String| header.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        exact.any(|name| name.eq_ignore_ascii_case(header)) || self.extra_prefixes.iter().any(begins)
    }
}
