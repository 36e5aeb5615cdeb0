//! What the options of an endpoint mean for a connection: those of the Go driver, which kine uses. What it doesn't know
//! is a variable of the session.

use std::time::Duration;

use crate::dsn::{MySqlDsn, percent_decoded};
use crate::error::StoreError;
use crate::tls::TlsFiles;

/// How long to wait for a host that says nothing, unless the endpoint says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take for an answer, unless the endpoint says: longer than any list of a cluster takes, and
/// short enough to notice a host that is gone without a word.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Options that mean something to the Go driver's own workings, and nothing here.
const MEANINGLESS: [&str; 18] = [
    "allowAllFiles",
    "allowDeprecatedPasswords",
    "allowNativePasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "multiStatements",
    "parseTime",
    "rejectReadOnly",
    "serverPubKey",
    "strict",
    "timeTruncate",
    "maxExecutionTime",
];

/// The Go driver's degrees of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// None.
    Off,
    /// If the server has it; nothing is verified.
    Preferred,
    /// Or no connection; nothing is verified.
    Unverified,
    /// With a certificate that a known authority has signed for this host.
    Verified,
}

/// The options, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub tls_mode: TlsMode,
    pub tls: TlsFiles,
    /// A server without TLS will do as well.
    pub plain_will_do: bool,
    pub connect_timeout: Duration,
    pub answer_limit: Duration,
    /// The password may be sent as it is to a server that asks for that.
    pub cleartext_password: bool,
    /// Passwords in the form of MySQL before 4.1.
    pub old_password: bool,
    pub compress: bool,
    /// The largest packet; what the server says, unless it is given.
    pub packet_bytes_max: Option<usize>,
    /// Variables of the session, as SQL.
    pub variables: Vec<(String, String)>,
}

impl Settings {
    /// Fails without repeating a value.
    pub(super) fn new(dsn: &MySqlDsn, tls: &TlsFiles) -> Result<Self, StoreError> {
        let any_file = *tls != TlsFiles::default();
        let mut settings = Self {
            tls_mode: if any_file { TlsMode::Verified } else { TlsMode::Off },
            tls: tls.clone(),
            plain_will_do: false,
            connect_timeout: CONNECT_TIMEOUT,
            answer_limit: ANSWER_LIMIT,
            cleartext_password: false,
            old_password: false,
            compress: false,
            packet_bytes_max: None,
            variables: Vec::new(),
        };
        let mut answer_limit = Duration::ZERO;
        for (name, value) in &dsn.options {
            match name.as_str() {
                "tls" => settings.tls_mode = tls_mode(value)?,
                "allowFallbackToPlaintext" => settings.plain_will_do = flag(name, value)?,
                "allowCleartextPasswords" => settings.cleartext_password = flag(name, value)?,
                "allowOldPasswords" => settings.old_password = flag(name, value)?,
                "compress" => settings.compress = flag(name, value)?,
                "timeout" => settings.connect_timeout = limit(name, value)?.unwrap_or(CONNECT_TIMEOUT),
                "readTimeout" | "writeTimeout" => {
                    answer_limit = answer_limit.max(limit(name, value)?.unwrap_or_default());
                }
                "maxAllowedPacket" => {
                    let bytes: usize = value.parse().map_err(|_| malformed(name, "number of bytes"))?;
                    settings.packet_bytes_max = Some(bytes).filter(|bytes| *bytes > 0);
                }
                name if MEANINGLESS.contains(&name) => {}
                _ => settings.variables.push(variable(name, value)?),
            }
        }
        if !answer_limit.is_zero() {
            settings.answer_limit = answer_limit;
        }
        if tls.ca.is_some() {
            // As in kine, an authority is there to be asked.
            settings.tls_mode = TlsMode::Verified;
        }
        if tls.cert.is_some() != tls.key.is_some() {
            return Err(StoreError::invalid("a client certificate and its key have to be given together"));
        }
        Ok(settings)
    }
}

fn malformed(option: &str, what: &str) -> StoreError {
    StoreError::invalid(format!("{option} of the mysql endpoint is no {what}"))
}

fn tls_mode(value: &str) -> Result<TlsMode, StoreError> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "skip-verify" => TlsMode::Unverified,
        "preferred" => TlsMode::Preferred,
        _ if flag("tls", value)? => TlsMode::Verified,
        _ => TlsMode::Off,
    })
}

/// The words that the Go driver takes for yes and no.
fn flag(option: &str, value: &str) -> Result<bool, StoreError> {
    match value {
        "1" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(malformed(option, if option == "tls" { "degree of TLS" } else { "yes or no" })),
    }
}

/// A duration as Go writes it, such as `1m30s`; none for 0.
fn limit(option: &str, value: &str) -> Result<Option<Duration>, StoreError> {
    let malformed = || malformed(option, "duration with units, such as 30s or 1m30s");
    let (mut total, mut rest) = (Duration::ZERO, value);
    if value != "0" && value.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.').ok_or_else(malformed)?;
        let number: f64 = rest[..digits].parse().map_err(|_| malformed())?;
        rest = &rest[digits..];
        let unit = rest.find(|sign: char| sign.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(malformed()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| malformed())?;
        total = total.checked_add(part).ok_or_else(malformed)?;
        rest = &rest[unit..];
    }
    Ok((!total.is_zero()).then_some(total))
}

/// A variable to set: its name is a word, its value SQL as the operator wrote it, quotes included.
fn variable(name: &str, value: &str) -> Result<(String, String), StoreError> {
    let word = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || sign == '.';
    if name.is_empty() || !name.chars().all(word) {
        return Err(StoreError::invalid("an option of the mysql endpoint has no name that a variable can have"));
    }
    let decoded = percent_decoded(&value.replace('+', " ")).filter(|value| !value.is_empty() && !value.contains(';'));
    let value = decoded.ok_or_else(|| malformed(name, "value that a variable can have"))?;
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsn::Dsn;

    fn settings(options: &str, tls: &TlsFiles) -> Result<Settings, StoreError> {
        match Dsn::parse(&format!("mysql://u@tcp(h)/{options}"), *tls != TlsFiles::default()) {
            Ok(Dsn::MySql(dsn)) => Settings::new(&dsn, tls),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_and_files_decide_on_tls() {
        let none = TlsFiles::default();
        let identity = TlsFiles { ca: None, cert: Some("/c".into()), key: Some("/k".into()) };
        let authority = TlsFiles { ca: Some("/ca".into()), ..TlsFiles::default() };
        for (options, tls, mode) in [
            ("", &none, TlsMode::Off),
            ("?tls=true", &none, TlsMode::Verified),
            ("?tls=skip-verify", &none, TlsMode::Unverified),
            ("?tls=preferred", &none, TlsMode::Preferred),
            ("?tls=false", &none, TlsMode::Off),
            ("", &identity, TlsMode::Verified),
            ("?tls=skip-verify", &identity, TlsMode::Unverified),
            ("", &authority, TlsMode::Verified),
            ("?tls=skip-verify", &authority, TlsMode::Verified),
            ("?tls=false", &authority, TlsMode::Verified),
        ] {
            assert_eq!(settings(options, tls).unwrap().tls_mode, mode, "{options} with {tls:?}");
        }
    }

    #[test]
    fn durations_variables_and_what_means_nothing() {
        let none = TlsFiles::default();
        let found = settings("?timeout=1m30s&readTimeout=500ms&writeTimeout=2s&charset=utf8mb4&parseTime=true", &none);
        let found = found.unwrap();
        assert_eq!(found.connect_timeout, Duration::from_secs(90));
        assert_eq!((found.answer_limit, found.variables), (Duration::from_secs(2), Vec::new()));
        let found = settings("?readTimeout=0&tx_isolation=%27REPEATABLE-READ%27&maxAllowedPacket=0", &none).unwrap();
        assert_eq!(found.answer_limit, ANSWER_LIMIT);
        assert_eq!(found.variables, [("tx_isolation".to_owned(), "'REPEATABLE-READ'".to_owned())]);
        assert_eq!(found.packet_bytes_max, None);
    }

    #[test]
    fn what_is_wrong_is_said_without_values() {
        for options in [
            "tls=hunter2",
            "timeout=hunter2",
            "timeout=3",
            "timeout=",
            "maxAllowedPacket=hunter2",
            "compress=hunter2",
            "x=1;hunter2",
            "x=%hunter2",
            "x-y=hunter2",
        ] {
            let error = settings(&format!("?{options}"), &TlsFiles::default()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let tls = TlsFiles { cert: Some("/hunter2".into()), ..TlsFiles::default() };
        assert!(settings("", &tls).is_err());
    }
}
