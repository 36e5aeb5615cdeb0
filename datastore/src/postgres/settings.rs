//! What the options of an endpoint mean for a connection: libpq's names, of which the rest are settings of the session.

use std::time::Duration;

use crate::dsn::PostgresDsn;
use crate::error::StoreError;
use crate::tls::TlsFiles;

/// libpq's degrees of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    /// None.
    Disable,
    /// If the server has it; nothing is verified. `allow` means the same here.
    Prefer,
    /// Or no connection. Verified only if an authority is given, and then as [`SslMode::VerifyCa`].
    Require,
    /// With a certificate that a known authority has signed, for whatever name.
    VerifyCa,
    /// With a certificate that a known authority has signed for this host.
    VerifyFull,
}

/// The options, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub sslmode: SslMode,
    pub tls: TlsFiles,
    pub connect_timeout: Option<Duration>,
    /// Settings of the session, such as `search_path`.
    pub session: Vec<(String, String)>,
}

impl Settings {
    /// Fails without repeating a value.
    pub(super) fn new(dsn: &PostgresDsn, tls: &TlsFiles) -> Result<Self, StoreError> {
        let mut tls = tls.clone();
        let any_file = tls.ca.is_some() || tls.cert.is_some();
        let mut sslmode = if any_file { SslMode::VerifyFull } else { SslMode::Prefer };
        let (mut connect_timeout, mut session) = (None, Vec::new());
        for (name, value) in &dsn.options {
            match name.as_str() {
                "sslmode" => {
                    sslmode = match value.as_str() {
                        "disable" => SslMode::Disable,
                        "allow" | "prefer" => SslMode::Prefer,
                        "require" => SslMode::Require,
                        "verify-ca" => SslMode::VerifyCa,
                        "verify-full" => SslMode::VerifyFull,
                        _ => return Err(StoreError::invalid("sslmode is none of libpq's")),
                    }
                }
                "sslrootcert" => tls.ca = Some(value.into()),
                "sslcert" => tls.cert = Some(value.into()),
                "sslkey" => tls.key = Some(value.into()),
                "connect_timeout" => {
                    let seconds = value.parse();
                    let seconds =
                        seconds.map_err(|_| StoreError::invalid("connect_timeout is no number of seconds"))?;
                    connect_timeout = Some(Duration::from_secs(seconds)).filter(|limit| !limit.is_zero());
                }
                _ => session.push((name.clone(), value.clone())),
            }
        }
        if tls.cert.is_some() != tls.key.is_some() {
            return Err(StoreError::invalid("a client certificate and its key have to be given together"));
        }
        Ok(Self { sslmode, tls, connect_timeout, session })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::dsn::Dsn;

    fn settings(endpoint: &str, tls: &TlsFiles) -> Result<Settings, StoreError> {
        match Dsn::parse(endpoint, *tls != TlsFiles::default()) {
            Ok(Dsn::Postgres(dsn)) => Settings::new(&dsn, tls),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_and_files_decide_on_tls() {
        let none = TlsFiles::default();
        let files = TlsFiles { ca: Some("/ca".into()), cert: Some("/c".into()), key: Some("/k".into()) };
        for (options, tls, mode, ca) in [
            ("", &none, SslMode::Prefer, None),
            ("", &files, SslMode::VerifyFull, Some("/ca")),
            ("?sslmode=require", &files, SslMode::Require, Some("/ca")),
            ("?sslmode=verify-ca&sslrootcert=/other", &files, SslMode::VerifyCa, Some("/other")),
            ("?sslmode=disable", &none, SslMode::Disable, None),
            ("?sslmode=allow", &none, SslMode::Prefer, None),
        ] {
            let found = settings(&format!("postgres://h/{options}"), tls).unwrap();
            assert_eq!((found.sslmode, found.tls.ca), (mode, ca.map(PathBuf::from)), "{options}");
        }
        let found = settings("postgres://h/?connect_timeout=3&search_path=a", &none).unwrap();
        assert_eq!(found.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(found.session, [("search_path".to_owned(), "a".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said_without_values() {
        for options in ["sslmode=hunter2", "connect_timeout=hunter2", "sslcert=/hunter2"] {
            let error = settings(&format!("postgres://h/?{options}"), &TlsFiles::default()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
