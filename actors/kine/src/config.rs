//! What the subtree is told, by whoever read flags and environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::error::ListenAddressError;
use crate::store::StoreConfig;

/// Where the endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A unix socket, for its owner only.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl ListenAddress {
    /// Whether an address as it was written says that there has to be TLS.
    pub fn demands_tls(text: &str) -> bool {
        ["unixs://", "https://", "tls://"].iter().any(|scheme| text.starts_with(scheme))
    }
}

/// `unix://PATH`, `tcp://HOST:PORT`, `http://HOST:PORT` or `HOST:PORT`, as kine takes them, and with TLS `unixs://`,
/// `https://` and `tls://`. Hosts are addresses.
impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "unix" | "unixs" if !rest.is_empty() => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" | "unixs" => Err(ListenAddressError::NoPath),
            "tcp" | "http" | "tls" | "https" => {
                let everywhere = rest.strip_prefix(':').map(|port| format!("0.0.0.0:{port}"));
                let address = everywhere.unwrap_or_else(|| rest.replace("localhost", "127.0.0.1"));
                let parsed = address.parse().map(Self::Tcp);
                parsed.map_err(|source| ListenAddressError::Address { text: text.to_owned(), source })
            }
            _ => Err(ListenAddressError::Scheme { scheme: scheme.to_owned() }),
        }
    }
}

/// When history is dropped without anybody asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactConfig {
    /// Time between two compactions; zero leaves it to the clients. History of one interval is always kept.
    pub interval: Duration,
    /// By how many percent an interval may be longer, so that many stores do not compact at once.
    pub jitter_percent: u32,
}

impl Default for CompactConfig {
    /// kine's.
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), jitter_percent: 0 }
    }
}

/// What clients are told about the server they talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The etcd version that is claimed.
    pub version: String,
}

impl Default for Advertised {
    fn default() -> Self {
        Self { version: "3.6.14".to_owned() }
    }
}

/// When an operation of the database is told about in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowConfig {
    /// From so long on, as information; zero tells nothing at all.
    pub info: Duration,
    /// From so long on, as a warning.
    pub warn: Duration,
}

impl SlowConfig {
    /// Whether it is to be told about.
    pub(crate) fn is_slow(self, took: Duration) -> bool {
        !self.info.is_zero() && took >= self.info.min(self.warn)
    }
}

impl Default for SlowConfig {
    /// kine's.
    fn default() -> Self {
        Self { info: Duration::from_secs(1), warn: Duration::from_secs(5) }
    }
}

/// Everything the subtree needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KineConfig {
    /// The database.
    pub store: StoreConfig,
    /// When history is dropped.
    pub compact: CompactConfig,
    /// How often watchers that want it are told how far they are.
    pub progress_interval: Duration,
    /// What clients are told.
    pub advertised: Advertised,
    /// What is told about slow operations.
    pub slow: SlowConfig,
}

impl KineConfig {
    /// The defaults for a database.
    pub fn new(store: StoreConfig) -> Self {
        let progress_interval = Duration::from_secs(5);
        Self {
            store,
            compact: CompactConfig::default(),
            progress_interval,
            advertised: Advertised::default(),
            slow: SlowConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_as_kine_writes_them() {
        let unix = ListenAddress::Unix("/run/kine.sock".into());
        assert_eq!("unix:///run/kine.sock".parse::<ListenAddress>().expect("it is one"), unix);
        assert_eq!(
            "unix://kine.sock".parse::<ListenAddress>().expect("it is one"),
            ListenAddress::Unix("kine.sock".into())
        );
        for (text, address) in [
            ("0.0.0.0:2379", "0.0.0.0:2379"),
            ("tcp://127.0.0.1:1", "127.0.0.1:1"),
            ("http://localhost:7", "127.0.0.1:7"),
            (":2379", "0.0.0.0:2379"),
            ("tcp://[::1]:2379", "[::1]:2379"),
            ("https://[::1]:2379", "[::1]:2379"),
        ] {
            let wanted = ListenAddress::Tcp(address.parse().expect("an address"));
            assert_eq!(text.parse::<ListenAddress>().expect(text), wanted);
        }
        assert!(ListenAddress::demands_tls("unixs:///k") && !ListenAddress::demands_tls("unix:///k"));
        for text in ["unix://", "ftp://x", "tcp://example:1", "2379"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
