//! Where the members of a cluster are, and who logs in there.

use std::path::PathBuf;

use crate::dsn::{Password, ServerAddress, host_and_port, percent_decoded};
use crate::error::StoreError;

/// Where etcd's members listen for clients.
const PORT_DEFAULT: u16 = 2379;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub server: ServerAddress,
    pub tls: bool,
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub user: String,
    pub password: Password,
}

impl Address {
    /// Reads `http://host:port` and its likes, and the login in front of the host if there is one.
    ///
    /// Fails without repeating the text, which may hold a password.
    pub(super) fn parse(endpoint: &str) -> Result<(Self, Option<Login>), StoreError> {
        let (scheme, rest) = endpoint.split_once("://").ok_or(StoreError::invalid("an etcd endpoint has no scheme"))?;
        let tls = matches!(scheme, "https" | "unixs");
        match scheme {
            // Everything behind the scheme is a path, and may be relative, as in etcd's own tools.
            "unix" | "unixs" if !rest.is_empty() => {
                Ok((Self { server: ServerAddress::Unix(PathBuf::from(rest)), tls }, None))
            }
            "http" | "https" => {
                let (login, place) = match rest.rsplit_once('@') {
                    Some((login, place)) => (Some(Login::parse(login)?), place),
                    None => (None, rest),
                };
                let place = place.strip_suffix('/').unwrap_or(place);
                let server = host_and_port(place, PORT_DEFAULT);
                let server = server.ok_or(StoreError::invalid("an etcd endpoint is no host and port"))?;
                Ok((Self { server, tls }, login))
            }
            _ => Err(StoreError::invalid("an etcd endpoint begins with http://, https://, unix:// or unixs://")),
        }
    }

    /// For people, and for the `:authority` of requests.
    pub(super) fn authority(&self) -> String {
        match &self.server {
            ServerAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            ServerAddress::Tcp { host, port } => format!("{host}:{port}"),
            ServerAddress::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let malformed = || StoreError::invalid("a percent sign is not followed by two hex digits");
        let user = percent_decoded(user).ok_or_else(malformed)?;
        let password = percent_decoded(password).ok_or_else(malformed)?;
        Ok(Self { user, password: Password::new(password) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Address {
        Address { server: ServerAddress::Tcp { host: host.to_owned(), port }, tls }
    }

    #[test]
    fn endpoints_in_all_forms() {
        for (text, expected, authority) in [
            ("http://db:1", tcp("db", 1, false), "db:1"),
            ("http://db/", tcp("db", 2379, false), "db:2379"),
            ("https://[::1]:4", tcp("::1", 4, true), "[::1]:4"),
            ("unix:///run/etcd", Address { server: ServerAddress::Unix("/run/etcd".into()), tls: false }, "localhost"),
            ("unixs://etcd:0", Address { server: ServerAddress::Unix("etcd:0".into()), tls: true }, "localhost"),
        ] {
            let (address, login) = Address::parse(text).unwrap();
            assert_eq!((address.authority().as_str(), &login), (authority, &None), "{text}");
            assert_eq!(address, expected, "{text}");
        }
        for text in ["db:2379", "http://", "http://db:port", "unix://", "tcp://db", "http://%zz@db"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_login_is_read_and_its_password_never_printed() {
        let (address, login) = Address::parse("https://root:p%40ss@db:1").unwrap();
        let login = login.unwrap();
        assert_eq!((address, login.user.as_str(), login.password.expose()), (tcp("db", 1, true), "root", "p@ss"));
        assert!(!format!("{login:?}").contains("p@ss"));
        let error = Address::parse("https://root:hunter2%@db").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
