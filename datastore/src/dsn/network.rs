//! Endpoints of database servers.

use std::path::PathBuf;

use super::{DsnError, Password, options};

/// The database that is used, and created, when none is named.
const DATABASE_DEFAULT: &str = "kubernetes";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// Over the network.
    Tcp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// On this machine: a socket, or for PostgreSQL the directory it is in.
    Unix(PathBuf),
}

/// What the MySQL form says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MySqlDsn {
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: Password,
    /// Where.
    pub address: ServerAddress,
    /// Into which database.
    pub database: String,
    /// Parameters for the driver, in order.
    pub options: Vec<(String, String)>,
}

/// What the PostgreSQL form says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresDsn {
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: Password,
    /// Where.
    pub address: ServerAddress,
    /// Into which database; in lower case, as PostgreSQL itself folds names.
    pub database: String,
    /// Parameters for the driver, in order; `sslmode=verify-full` first, if there are certificates and it isn't given.
    pub options: Vec<(String, String)>,
}

/// `host`, `host:port`, `[v6]:port` or a bare `v6`.
pub(crate) fn host_and_port(text: &str, port: u16) -> Option<ServerAddress> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None if text.matches(':').count() > 1 => (text, ""),
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => digits.parse().ok()?,
        None if rest.is_empty() => port,
        None => return None,
    };
    (!host.is_empty()).then(|| ServerAddress::Tcp { host: host.to_owned(), port })
}

impl MySqlDsn {
    const PORT: u16 = 3306;
    const SOCKET: &str = "/var/run/mysqld/mysqld.sock";

    /// The Go driver's form: `user:password@protocol(address)/database?options`, everything but the slash optional.
    /// A password may hold any of these signs, so the last at-sign and the last slash count.
    pub(super) fn parse(rest: &str, tls: bool) -> Result<Self, DsnError> {
        let malformed = |reason| DsnError::Malformed { form: "mysql", reason };
        let default = if tls { "root@tcp(127.0.0.1)/".to_owned() } else { format!("root@unix({})/", Self::SOCKET) };
        let rest = if rest.is_empty() { default.as_str() } else { rest };
        let (server, path) = rest.rsplit_once('/').ok_or(malformed("there is no slash before the database"))?;
        let (database, query) = path.split_once('?').unwrap_or((path, ""));
        let (login, place) = match server.rsplit_once('@') {
            Some((login, place)) => (login, place),
            None => ("", server),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (protocol, address) = match place.split_once('(') {
            Some((protocol, address)) => {
                (protocol, address.strip_suffix(')').ok_or(malformed("a parenthesis is not closed"))?)
            }
            None => (place, ""),
        };
        let address = match (protocol, address) {
            ("unix", "") => ServerAddress::Unix(Self::SOCKET.into()),
            ("unix", path) => ServerAddress::Unix(path.into()),
            ("" | "tcp", "") => ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Self::PORT },
            ("" | "tcp", address) => {
                host_and_port(address, Self::PORT).ok_or(malformed("the address is no host and port"))?
            }
            _ => return Err(malformed("the protocol is neither tcp nor unix")),
        };
        Ok(Self {
            user: user.to_owned(),
            password: Password(password.to_owned()),
            address,
            database: if database.is_empty() { DATABASE_DEFAULT } else { database }.to_owned(),
            options: options(query),
        })
    }
}

impl PostgresDsn {
    const PORT: u16 = 5432;
    const DEFAULT: &str = "postgres:postgres@localhost/";

    /// A URL without its scheme. Signs that mean something there are written as percent and two digits.
    pub(super) fn parse(rest: &str, tls: bool) -> Result<Self, DsnError> {
        let malformed = |reason| DsnError::Malformed { form: "postgres", reason };
        let text =
            |part: &str| percent_decoded(part).ok_or(malformed("a percent sign is not followed by two hex digits"));
        let rest = if rest.is_empty() { Self::DEFAULT } else { rest };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, path) = place.split_once('/').unwrap_or((place, ""));
        let (login, host) = match server.rsplit_once('@') {
            Some((login, host)) => (login, host),
            None => ("", server),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let mut options = options(query);
        // A socket has no place in a URL, so it comes as an option.
        let socket = options.iter().position(|(name, value)| name == "host" && value.starts_with('/'));
        let address = match socket {
            Some(at) => ServerAddress::Unix(text(&options.remove(at).1)?.into()),
            None if host.is_empty() => ServerAddress::Tcp { host: "localhost".to_owned(), port: Self::PORT },
            None => host_and_port(host, Self::PORT).ok_or(malformed("the address is no host and port"))?,
        };
        if tls && !options.iter().any(|(name, _)| name == "sslmode") {
            options.insert(0, ("sslmode".to_owned(), "verify-full".to_owned()));
        }
        let database = text(path)?.to_lowercase();
        Ok(Self {
            user: if user.is_empty() { "postgres".to_owned() } else { text(user)? },
            password: Password(text(password)?),
            address,
            database: if database.is_empty() { DATABASE_DEFAULT.to_owned() } else { database },
            options,
        })
    }
}

/// Text of a URL, or nothing when a percent sign is not followed by two hex digits.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ServerAddress {
        ServerAddress::Tcp { host: host.to_owned(), port }
    }

    fn unix(path: &str) -> ServerAddress {
        ServerAddress::Unix(path.into())
    }

    #[test]
    fn mysql_forms() {
        let socket = "/var/run/mysqld/mysqld.sock";
        for (text, tls, user, password, address, database) in [
            ("", false, "root", "", unix(socket), "kubernetes"),
            ("", true, "root", "", tcp("127.0.0.1", 3306), "kubernetes"),
            ("u:p@tcp(db:3307)/k3s", false, "u", "p", tcp("db", 3307), "k3s"),
            ("u:p@ss/w:rd@tcp(db)/", false, "u", "p@ss/w:rd", tcp("db", 3306), "kubernetes"),
            ("u@tcp([::1]:3308)/x", false, "u", "", tcp("::1", 3308), "x"),
            ("u@unix(/run/my.sock)/x", false, "u", "", unix("/run/my.sock"), "x"),
            ("/x", false, "", "", tcp("127.0.0.1", 3306), "x"),
        ] {
            let dsn = MySqlDsn::parse(text, tls).unwrap();
            assert_eq!((dsn.user.as_str(), dsn.password.expose()), (user, password), "{text:?}");
            assert_eq!((dsn.address, dsn.database.as_str()), (address, database), "{text:?}");
        }
        let dsn = MySqlDsn::parse("u@tcp(db)/x?tls=skip-verify&timeout=5s", false).unwrap();
        assert_eq!(dsn.options[1], ("timeout".to_owned(), "5s".to_owned()));
        for text in ["u:p@tcp(db:3306)", "u@tcp(db/x", "u@udp(db)/x", "u@tcp(db:port)/x", "u@tcp(:1)/x"] {
            assert!(MySqlDsn::parse(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn postgres_forms() {
        for (text, user, password, address, database) in [
            ("", "postgres", "postgres", tcp("localhost", 5432), "kubernetes"),
            ("u:p@db:5433/K3S", "u", "p", tcp("db", 5433), "k3s"),
            ("u:p%40%2F@db", "u", "p@/", tcp("db", 5432), "kubernetes"),
            ("u@[::1]:1/x", "u", "", tcp("::1", 1), "x"),
            ("u@/x?host=/run/postgresql", "u", "", unix("/run/postgresql"), "x"),
        ] {
            let dsn = PostgresDsn::parse(text, false).unwrap();
            assert_eq!((dsn.user.as_str(), dsn.password.expose()), (user, password), "{text:?}");
            assert_eq!((dsn.address, dsn.database.as_str()), (address, database), "{text:?}");
            assert_eq!(dsn.options, [], "{text:?}");
        }
        let mode = |text| PostgresDsn::parse(text, true).unwrap().options;
        assert_eq!(mode("u@db/x?a=b")[0], ("sslmode".to_owned(), "verify-full".to_owned()));
        assert_eq!(mode("u@db/x?sslmode=require"), [("sslmode".to_owned(), "require".to_owned())]);
        for text in ["u:%4@db/x", "u:%zz@db/x", "u@db:port/x", "u@[::1/x", "u@[::1]x/x"] {
            assert!(PostgresDsn::parse(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let dsn = MySqlDsn::parse("u:hunter2@tcp(db)/x", false).unwrap();
        assert!(!format!("{dsn:?}").contains("hunter2"));
        let error = MySqlDsn::parse("u:hunter2@tcp(db/x", false).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
