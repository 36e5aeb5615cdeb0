//! The rows that the tables of roles are made of. Lists are written as words with spaces between them.

use super::super::rule::PolicyRule;
use super::words;

/// All that only reads.
pub(super) const READ: &str = "get list watch";
/// All that changes something.
pub(super) const WRITE: &str = "create update patch delete deletecollection";
/// Both.
pub(super) const READ_WRITE: &str = "get list watch create update patch delete deletecollection";
/// Reading, and changing what is there.
pub(super) const READ_UPDATE: &str = "get list watch update patch";
/// How the core group is written in the tables, for its true name is empty.
pub(super) const CORE: &str = "core";

/// One rule.
#[derive(Clone, Copy)]
pub(super) struct Row {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

/// Verbs on resources of these groups.
pub(super) const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> Row {
    Row { verbs, groups, resources, names: "", urls: "" }
}

/// Verbs on single objects.
pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Row {
    Row { verbs, groups, resources, names, urls: "" }
}

/// Verbs on paths.
pub(super) const fn urls(verbs: &'static str, urls: &'static str) -> Row {
    Row { verbs, groups: "", resources: "", names: "", urls }
}

/// To report events, of both groups that have them.
pub(super) const EVENTS: Row = on("create update patch", "core events.k8s.io", "events");

impl Row {
    /// The rule, with lists in the order of the alphabet as upstream writes them.
    pub(super) fn policy(&self) -> PolicyRule {
        let list = |text: &str| words(text).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut groups: Vec<String> =
            list(self.groups).into_iter().map(|group| if group == CORE { String::new() } else { group }).collect();
        groups.sort_unstable();
        PolicyRule {
            verbs: list(self.verbs),
            groups,
            resources: list(self.resources),
            names: list(self.names),
            urls: list(self.urls),
        }
    }
}

/// One role.
pub(super) struct RoleRow<'a> {
    pub(super) name: &'a str,
    /// Into which of `admin`, `edit` and `view` its rules flow; empty for none.
    pub(super) aggregate_to: &'a str,
    /// Whether its own rules are those that flow into it.
    pub(super) aggregates: bool,
    pub(super) rules: &'a [Row],
}

impl RoleRow<'_> {
    pub(super) const EMPTY: RoleRow<'static> = RoleRow { name: "", aggregate_to: "", aggregates: false, rules: &[] };
}

/// A role of these rules.
pub(super) const fn role(name: &'static str, rules: &'static [Row]) -> RoleRow<'static> {
    RoleRow { name, aggregate_to: "", aggregates: false, rules }
}

/// One binding. Accounts are written as namespace and name with a slash between.
pub(super) struct BindingRow<'a> {
    pub(super) name: &'a str,
    pub(super) role: &'a str,
    pub(super) users: &'a str,
    pub(super) groups: &'a str,
    pub(super) accounts: &'a str,
}

impl BindingRow<'_> {
    pub(super) const EMPTY: BindingRow<'static> =
        BindingRow { name: "", role: "", users: "", groups: "", accounts: "" };
}
