//! Acting as somebody else: `Impersonate-User` and its companions.

use thiserror::Error;

use super::{ANONYMOUS, AUTHENTICATED, Headers, UNAUTHENTICATED};
use crate::{RequestInfo, User};

/// The group of reviews of users, in which uids and extras are kept apart from names.
const GROUP: &str = "authentication.k8s.io";

/// Why the headers make no sense. Served as 500, as upstream does.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImpersonationError {
    /// Something about a user, and no user.
    #[error("requested {asked} without impersonating a user")]
    NoUser {
        /// What was asked for.
        asked: String,
    },
}

/// Whom a request wants to count as, and the rights it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// What the real user must be allowed, every one; the first refusal is the answer.
    pub requests: Vec<RequestInfo>,
    /// Whom the request counts as then.
    pub user: User,
}

impl Impersonation {
    /// Reads the headers; `None` if nobody is impersonated.
    ///
    /// # Errors
    ///
    /// Fails if groups, a uid or extras come without a user.
    pub fn from_headers(headers: Headers<'_>) -> Result<Option<Self>, ImpersonationError> {
        let name = headers.first("Impersonate-User").to_owned();
        let uid = headers.first("Impersonate-Uid").to_owned();
        let groups: Vec<String> = headers.all("Impersonate-Group").map(str::to_owned).collect();
        let extra = headers.extras("Impersonate-Extra-");
        if name.is_empty() {
            let asked = asked(&groups, &extra, &uid);
            return if asked.is_empty() {
                Ok(None)
            } else {
                Err(ImpersonationError::NoUser { asked: format!("[{}]", asked.join(" ")) })
            };
        }
        let account = account(&name);
        let mut requests = vec![match account {
            Some((namespace, name)) => request("", "serviceaccounts", "", namespace, name),
            None => request("", "users", "", "", &name),
        }];
        requests.extend(groups.iter().map(|group| request("", "groups", "", "", group)));
        for (key, values) in &extra {
            requests.extend(values.iter().map(|value| request(GROUP, "userextras", key, "", value)));
        }
        if !uid.is_empty() {
            requests.push(request(GROUP, "uids", "", "", &uid));
        }
        let groups = match account {
            Some((namespace, _)) if groups.is_empty() => {
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
            }
            _ => groups,
        };
        let groups = with_state(&name, groups);
        Ok(Some(Self { requests, user: User { name, uid, groups, extra } }))
    }

    /// Whether a header is part of this. Such headers go no further.
    #[must_use]
    pub fn is_consumed(header: &str) -> bool {
        let begins = |prefix: &str| header.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let whole = ["Impersonate-User", "Impersonate-Uid", "Impersonate-Group"];
        whole.iter().any(|name| header.eq_ignore_ascii_case(name)) || begins("Impersonate-Extra-")
    }
}

/// Namespace and name of the service account that a user name stands for.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    // What can't be the name of a namespace or of an account is a plain user of an odd name.
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |text: &str| {
        let edges = [text.bytes().next(), text.bytes().next_back()];
        edges.into_iter().all(|byte| byte.is_some_and(alphanumeric))
            && text.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
    };
    let fine = namespace.len() <= 63 && label(namespace) && name.len() <= 253 && name.split('.').all(label);
    fine.then_some((namespace, name))
}

fn request(group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> RequestInfo {
    RequestInfo {
        is_resource: true,
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    }
}

/// Adds the group of those we know, or of those we don't, unless the headers chose.
fn with_state(name: &str, mut groups: Vec<String>) -> Vec<String> {
    let has = |wanted: &str| groups.iter().any(|group| group == wanted);
    if name == ANONYMOUS {
        if !has(UNAUTHENTICATED) {
            groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !has(AUTHENTICATED) && !has(UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    groups
}

/// What was asked for, in the form in which upstream happens to print it: kind, namespace, name, uid, version, resource
/// version and field of a reference, most of them empty.
fn asked(groups: &[String], extra: &std::collections::BTreeMap<String, Vec<String>>, uid: &str) -> Vec<String> {
    let mut asked: Vec<String> = groups.iter().map(|group| format!("{{Group  {group}    }}")).collect();
    for (key, values) in extra {
        asked.extend(values.iter().map(|value| format!("{{UserExtra  {value}  {GROUP}/v1  {key}}}")));
    }
    if !uid.is_empty() {
        asked.push(format!("{{UID  {uid}  {GROUP}/v1  }}"));
    }
    asked
}
