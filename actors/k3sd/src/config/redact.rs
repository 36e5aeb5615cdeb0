//! Showing values without the secrets in them.

use crate::cli::flag::{Flag, Secrecy};

/// What stands in the place of something secret.
pub(crate) const NOT_SHOWN: &str = "(not shown)";

/// What may be shown of a flag's value.
pub(crate) fn shown(flag: &Flag, text: &str) -> String {
    match flag.secrecy {
        _ if text.is_empty() => String::new(),
        Secrecy::Open => text.to_owned(),
        Secrecy::Secret => NOT_SHOWN.to_owned(),
        Secrecy::Credentials => without_credentials(text),
    }
}

/// A value in quotes for an error message, or words in its place when it must not be seen.
pub(crate) fn quoted(flag: &Flag, text: &str) -> String {
    match flag.secrecy {
        Secrecy::Open => format!("{text:?}"),
        Secrecy::Secret | Secrecy::Credentials => format!("the value {NOT_SHOWN}"),
    }
}

/// A URL or data source name with user, password and parameters replaced; a password can be among the parameters.
/// Text that is neither is replaced whole, unless it is a single word.
pub(crate) fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return if is_word { text.to_owned() } else { NOT_SHOWN.to_owned() };
    };
    // A password may hold a `/` or a `?`; only the last `@` tells where it ends.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{NOT_SHOWN}@"), rest),
        None => (String::new(), rest),
    };
    match rest.split_once('?') {
        Some((rest, _)) => format!("{scheme}://{user}{rest}?{NOT_SHOWN}"),
        None => format!("{scheme}://{user}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::Role;

    #[test]
    fn credentials_and_parameters_are_replaced() {
        let rows = [
            ("none", "none"),
            ("https://host/path", "https://host/path"),
            ("mysql://u:p@tcp(h:3306)/db", "mysql://(not shown)@tcp(h:3306)/db"),
            ("postgres://u:p/a@b?c@h/db", "postgres://(not shown)@h/db"),
            ("postgres://h/db?password=p", "postgres://h/db?(not shown)"),
            ("https://u:p@a:2379,https://u:p@b:2379", "https://(not shown)@b:2379"),
            ("u:p@tcp(h)/db", "(not shown)"),
            ("host=h password=p", "(not shown)"),
        ];
        for (text, expected) in rows {
            assert_eq!(without_credentials(text), expected, "{text}");
        }
    }

    #[test]
    fn secret_flags_show_nothing() {
        for name in
            ["token", "agent-token", "etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token", "vpn-auth"]
        {
            let flag = Role::Server.flag(name).unwrap();
            assert_eq!(shown(flag, "hush"), NOT_SHOWN, "--{name}");
            assert!(!quoted(flag, "hush").contains("hush"), "--{name}");
        }
        for name in ["datastore-endpoint", "etcd-s3-proxy"] {
            let flag = Role::Server.flag(name).unwrap();
            assert!(!shown(flag, "x://me:hush@h").contains("hush"), "--{name}");
        }
        assert_eq!(shown(Role::Server.flag("token").unwrap(), ""), "", "an empty secret is none");
    }
}
