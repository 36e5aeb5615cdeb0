//! Somebody whom a request was authenticated as.

use std::collections::BTreeMap;

/// The group whose members may do everything.
pub const SYSTEM_MASTERS: &str = "system:masters";

/// Somebody whom a request was authenticated as. The fields are those of `authentication.k8s.io/v1` `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name that roles are bound to.
    pub name: String,
    /// Tells users apart who had the same name at different times; empty if the source knows none.
    pub uid: String,
    /// The groups that roles are bound to.
    pub groups: Vec<String>,
    /// Whatever else the source says, by lower-case key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of this name in these groups.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }
}

/// The user name of a service account.
#[must_use]
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
