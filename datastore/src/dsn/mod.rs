//! The datastore endpoint: which store, and where. The grammar and the defaults are kine's, so that an operator's
//! setting goes on to work.
//!
//! | Form | Store |
//! |---|---|
//! | nothing, `sqlite://PATH?OPTIONS`, `litestream://` | a SQLite file |
//! | `mysql://USER:PASSWORD@tcp(HOST:PORT)/DATABASE?OPTIONS` | MySQL or MariaDB |
//! | `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS` | PostgreSQL |
//! | `http://`, `https://`, `unix://`, `unixs://`, several with commas | etcd |
//! | `memory://` | this process |

mod network;

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

pub use self::network::{MySqlDsn, PostgresDsn, ServerAddress};
pub(crate) use self::network::{host_and_port, percent_decoded};

/// The file kine takes when it is told nothing, below the directory it runs in.
const SQLITE_PATH_DEFAULT: &str = "./db/state.db";

/// A parsed endpoint.
#[derive(Clone, PartialEq, Eq)]
pub enum Dsn {
    /// A file.
    Sqlite(SqliteDsn),
    /// A MySQL or MariaDB server.
    MySql(MySqlDsn),
    /// A PostgreSQL server.
    Postgres(PostgresDsn),
    /// The members of an etcd cluster, as URLs.
    Etcd {
        /// At least one.
        endpoints: Vec<String>,
    },
    /// Nothing outlives the process.
    Memory,
}

/// Without the login that an etcd endpoint may have; the other forms see to that themselves.
impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(dsn) => f.debug_tuple("Sqlite").field(dsn).finish(),
            Self::MySql(dsn) => f.debug_tuple("MySql").field(dsn).finish(),
            Self::Postgres(dsn) => f.debug_tuple("Postgres").field(dsn).finish(),
            Self::Etcd { endpoints } => {
                let shown: Vec<_> = endpoints.iter().map(|endpoint| without_login(endpoint)).collect();
                f.debug_struct("Etcd").field("endpoints", &shown).finish()
            }
            Self::Memory => f.write_str("Memory"),
        }
    }
}

/// An endpoint as it may be shown: what stands before the last at-sign may hold a password.
pub(crate) fn without_login(endpoint: &str) -> String {
    match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => endpoint.to_owned(),
    }
}

/// What the SQLite form says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteDsn {
    /// The database file.
    pub path: PathBuf,
    /// `_kine_disable_startup_vacuum`: do not rewrite the file when it is opened.
    pub keep_layout: bool,
    /// Either of the switches that leave the log to somebody else, such as a replicating program beside us.
    pub keep_log: bool,
    /// What else was given, in order. kine hands it to its driver; our journal mode and durability are not negotiable.
    pub options: Vec<(String, String)>,
}

/// Why an endpoint can't be understood. Never holds the text itself, which may have a password in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DsnError {
    /// kine has a store of that name and we do not, or nobody has.
    #[error("no datastore is called {scheme:?}; known are sqlite, mysql, postgres, etcd's http and https, and memory")]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// The part behind `://` does not follow the form.
    #[error("a {form} endpoint is malformed: {reason}")]
    Malformed {
        /// Of which store.
        form: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Dsn {
    /// Reads an endpoint. `tls` tells whether certificates were given beside it, which changes the defaults of servers.
    ///
    /// # Errors
    /// See [`DsnError`].
    pub fn parse(text: &str, tls: bool) -> Result<Self, DsnError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Ok(Self::Sqlite(SqliteDsn::parse("", false))),
                _ => Err(DsnError::Scheme { scheme: String::new() }),
            };
        };
        match scheme {
            "sqlite" => Ok(Self::Sqlite(SqliteDsn::parse(rest, false))),
            "litestream" => Ok(Self::Sqlite(SqliteDsn::parse(rest, true))),
            "mysql" => MySqlDsn::parse(rest, tls).map(Self::MySql),
            "postgres" | "postgresql" => PostgresDsn::parse(rest, tls).map(Self::Postgres),
            "http" | "https" | "unix" | "unixs" => etcd(text),
            "memory" => Ok(Self::Memory),
            _ => Err(DsnError::Scheme { scheme: scheme.to_owned() }),
        }
    }
}

fn etcd(text: &str) -> Result<Dsn, DsnError> {
    let malformed = |reason| Err(DsnError::Malformed { form: "etcd", reason });
    let endpoints: Vec<String> = text.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
    for endpoint in &endpoints {
        match endpoint.split_once("://") {
            Some(("http" | "https" | "unix" | "unixs", address)) if !address.is_empty() => {}
            Some(("http" | "https" | "unix" | "unixs", _)) => return malformed("an address is empty"),
            _ => return malformed("each of its addresses begins with http://, https://, unix:// or unixs://"),
        }
    }
    Ok(Dsn::Etcd { endpoints })
}

impl SqliteDsn {
    /// The part behind the scheme: a path, or a URI of the kind SQLite knows, and options behind a question mark.
    fn parse(rest: &str, replicated: bool) -> Self {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("file:").unwrap_or(path);
        let path = if path.is_empty() { SQLITE_PATH_DEFAULT } else { path };
        let mut dsn = Self { path: path.into(), keep_layout: replicated, keep_log: replicated, options: Vec::new() };
        for (name, value) in options(query) {
            match name.as_str() {
                "_kine_disable_startup_vacuum" => dsn.keep_layout = true,
                "_kine_disable_compact_wal_checkpoint" | "_kine_disable_wal_autocheckpoint" => dsn.keep_log = true,
                _ => dsn.options.push((name, value)),
            }
        }
        dsn
    }
}

/// `a=1&b` as pairs; what has no value has an empty one.
fn options(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// A word that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps the word.
    pub(crate) fn new(word: String) -> Self {
        Self(word)
    }

    /// The word itself, for the server.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(path: &str, keep_layout: bool, keep_log: bool, options: &[(&str, &str)]) -> Dsn {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Dsn::Sqlite(SqliteDsn { path: path.into(), keep_layout, keep_log, options })
    }

    #[test]
    fn files_and_their_switches() {
        for (text, expected) in [
            ("", sqlite("./db/state.db", false, false, &[])),
            ("sqlite://", sqlite("./db/state.db", false, false, &[])),
            ("sqlite:///var/lib/x/state.db", sqlite("/var/lib/x/state.db", false, false, &[])),
            ("sqlite://file:state.db?cache=shared", sqlite("state.db", false, false, &[("cache", "shared")])),
            (
                "sqlite://a.db?_journal_mode=WAL&_kine_disable_startup_vacuum=true&_txlock",
                sqlite("a.db", true, false, &[("_journal_mode", "WAL"), ("_txlock", "")]),
            ),
            ("sqlite://a.db?_kine_disable_wal_autocheckpoint", sqlite("a.db", false, true, &[])),
            ("litestream://a.db", sqlite("a.db", true, true, &[])),
        ] {
            assert_eq!(Dsn::parse(text, false), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn etcd_takes_several_addresses() {
        let text = "https://a:2379,https://b:2379, http://c:2379";
        let endpoints = ["https://a:2379", "https://b:2379", "http://c:2379"].map(str::to_owned).to_vec();
        assert_eq!(Dsn::parse(text, true), Ok(Dsn::Etcd { endpoints }));
        let secret = Dsn::parse("http://root:hunter2@a:1,http://b:1", false).unwrap();
        assert_eq!(format!("{secret:?}"), r#"Etcd { endpoints: ["http://a:1", "http://b:1"] }"#);
        for text in ["https://a:2379,b:2379", "https://a:2379,", "http://", "https://a,mysql://b"] {
            assert!(matches!(Dsn::parse(text, false), Err(DsnError::Malformed { form: "etcd", .. })), "{text:?}");
        }
    }

    #[test]
    fn other_stores_are_refused_by_name() {
        assert_eq!(Dsn::parse("memory://", false), Ok(Dsn::Memory));
        for (text, name) in [("nats://host", "nats"), ("t4://x", "t4"), ("state.db", ""), ("MySQL://x", "MySQL")] {
            assert_eq!(Dsn::parse(text, false), Err(DsnError::Scheme { scheme: name.to_owned() }), "{text:?}");
        }
    }
}
