//! Addresses on the web: where a config file is, where it was moved to, and where a proxy is.
//!
//! Only what `http` and `https` need. The user and password never leave this module except as a header.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;

use crate::config::fetch::FetchError;
use crate::config::redact::without_credentials;

/// An `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Whether it begins with `https`.
    pub(super) tls: bool,
    /// User and password before the `@`, decoded.
    user: Option<(String, String)>,
    /// A name or an address, without the brackets of IPv6.
    pub(super) host: String,
    /// The port, the scheme's own if none is written.
    pub(super) port: u16,
    /// Path and query, beginning with `/`, fit for a request line.
    pub(super) target: String,
}

/// Whether somebody who wrote this means a URL that can be fetched.
pub(crate) fn is_url(text: &str) -> bool {
    scheme(text).is_some()
}

/// Whether the text begins with `https`, and what follows the scheme; nothing for what is no URL of ours.
fn scheme(text: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some((false, rest)),
        "https" => Some((true, rest)),
        _ => None,
    }
}

impl Url {
    /// Understands what somebody wrote.
    ///
    /// # Errors
    /// When it is not an `http` or `https` URL with a host. The message holds nothing of the text.
    pub(crate) fn parse(text: &str) -> Result<Self, FetchError> {
        let (tls, rest) = scheme(text).ok_or(FetchError::Url("it begins with neither http:// nor https://"))?;
        if rest.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(FetchError::Url("it holds control characters"));
        }
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(credentials(user)?), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host)?;
        Ok(Self { tls, user, host, port: port.unwrap_or(if tls { 443 } else { 80 }), target: request_target(target) })
    }

    /// Where a redirect leads, seen from here. Who moves within the same server keeps user and password.
    ///
    /// # Errors
    /// When it leads nowhere that can be fetched.
    pub(super) fn join(&self, location: &str) -> Result<Self, FetchError> {
        let moved = match location {
            absolute if absolute.split(['/', '?']).next().is_some_and(|first| first.contains(':')) => {
                Self::parse(absolute)?
            }
            same_scheme if same_scheme.starts_with("//") => {
                Self::parse(&format!("{}:{same_scheme}", if self.tls { "https" } else { "http" }))?
            }
            path => {
                let here = self.target.split('?').next().unwrap_or_default();
                let folder = &here[..=here.rfind('/').unwrap_or_default()];
                let path = path.split_once('#').map_or(path, |(path, _)| path);
                let target = match path.as_bytes().first() {
                    None => self.target.clone(),
                    Some(b'/') => path.to_owned(),
                    Some(b'?') => format!("{here}{path}"),
                    Some(_) => format!("{folder}{path}"),
                };
                Self { target: request_target(&without_dots(&target)), ..self.clone() }
            }
        };
        let same_server = (moved.tls, &moved.host, moved.port) == (self.tls, &self.host, self.port);
        let user = moved.user.clone().or_else(|| self.user.clone().filter(|_| same_server));
        Ok(Self { user, ..moved })
    }

    /// Host and port as `CONNECT` names them.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Host and port as the header `Host` names them: the scheme's own port is left out.
    pub(super) fn host_header(&self) -> String {
        let authority = self.authority();
        let usual = if self.tls { ":443" } else { ":80" };
        authority.strip_suffix(usual).map(str::to_owned).unwrap_or(authority)
    }

    /// Without user and password, as a proxy wants it.
    pub(super) fn absolute(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.host_header(), self.target)
    }

    /// The header that says who asks, if the URL does.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.user.as_ref()?;
        let text = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
        let mut value = HeaderValue::try_from(text).expect("base64 is fit for a header");
        value.set_sensitive(true);
        Some(value)
    }
}

/// What may be shown: neither user and password nor the query, which may hold a token.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_credentials(&self.absolute()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

fn credentials(text: &str) -> Result<(String, String), FetchError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok((decoded(user)?, decoded(password)?))
}

/// Replaces each `%41` by the byte it stands for.
fn decoded(text: &str) -> Result<String, FetchError> {
    const WRONG: FetchError = FetchError::Url("its user or password is not percent-encoded");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(rest.next()).ok_or(WRONG)?, digit(rest.next()).ok_or(WRONG)?);
                u8::try_from(high * 16 + low).map_err(|_| WRONG)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| WRONG)
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), FetchError> {
    const WRONG_HOST: FetchError = FetchError::Url("its host is neither a name nor an address");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(WRONG_HOST)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| WRONG_HOST)?;
            (address.to_string(), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(fits) {
                return Err(WRONG_HOST);
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(number.parse().ok().filter(|port| *port != 0).ok_or(FetchError::Url("its port is not a port"))?)
        }
        _ => return Err(FetchError::Url("its port is not a port")),
    };
    Ok((host, port))
}

/// Path and query with everything encoded that must not stand in a request line. What is encoded already stays so.
fn request_target(text: &str) -> String {
    let mut target = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        target.push('/');
    }
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            target.push(char::from(byte));
        } else {
            write!(target, "%{byte:02X}").expect("writing to a string never fails");
        }
    }
    target
}

/// Resolves `.` and `..` in the path.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> String {
        match Url::parse(text) {
            Ok(url) => format!("{} {} {}", if url.tls { "tls" } else { "plain" }, url.authority(), url.target),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let rows = [
            ("http://host", "plain host:80 /"),
            ("HTTPS://Host/c.yaml", "tls host:443 /c.yaml"),
            ("http://host:8080?a=b#c", "plain host:8080 /?a=b"),
            ("http://host:/x", "plain host:80 /x"),
            ("https://me:a%40b@[::1]:8443/x%20y z", "tls [::1]:8443 /x%20y%20z"),
            ("http://10.0.0.1/ä", "plain 10.0.0.1:80 /%C3%A4"),
        ];
        for (text, expected) in rows {
            assert_eq!(parts(text), expected, "{text}");
        }
        let wrong = [
            "/etc/k3s.yaml",
            "ftp://host/x",
            "http://",
            "http:///x",
            "http://me@/x",
            "http://host:0/",
            "http://host:70000/",
            "http://host:+1/",
            "http://me:hush/more@host/",
            "http://me:%zz@host/",
            "http://[::1/x",
            "http://[host]/x",
            "http://ho st/x",
            "http://host/\n",
        ];
        for text in wrong {
            let error = Url::parse(text).expect_err(text).to_string();
            assert!(!error.contains("hush") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let url = Url::parse("https://me:hush@host:444/c.yaml?token=hush").expect("it is one");
        for shown in [url.to_string(), format!("{url:?}"), format!("{:?}", url.authorization())] {
            assert!(!shown.contains("hush") && !shown.contains("me:"), "{shown}");
        }
        assert_eq!(url.to_string(), "https://host:444/c.yaml?(not shown)");
        assert_eq!(url.absolute(), "https://host:444/c.yaml?token=hush");
    }

    #[test]
    fn user_and_password_become_a_header() {
        let header = |text| Url::parse(text).expect("it is one").authorization();
        let sent = |text| header(text).expect("somebody asks").to_str().expect("it is text").to_owned();
        assert_eq!(header("http://host/"), None);
        assert_eq!(sent("http://Aladdin:open%20sesame@host/"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(sent("http://me@host/"), "Basic bWU6");
    }

    #[test]
    fn redirects_are_seen_from_where_they_are() {
        let here = Url::parse("http://me:hush@host:8080/a/b/c.yaml?x=1").expect("it is one");
        let rows = [
            ("https://other/d", "tls other:443 /d", false),
            ("http://host:8080/d", "plain host:8080 /d", true),
            ("http://host/d", "plain host:80 /d", false),
            ("//other:1/d", "plain other:1 /d", false),
            ("/d?y=2#z", "plain host:8080 /d?y=2", true),
            ("d", "plain host:8080 /a/b/d", true),
            ("./../../../d", "plain host:8080 /d", true),
            ("..", "plain host:8080 /a/", true),
            ("?y=2", "plain host:8080 /a/b/c.yaml?y=2", true),
            ("", "plain host:8080 /a/b/c.yaml?x=1", true),
        ];
        for (location, expected, authorized) in rows {
            let moved = here.join(location).expect(location);
            let found = format!("{} {} {}", if moved.tls { "tls" } else { "plain" }, moved.authority(), moved.target);
            assert_eq!(found, expected, "{location}");
            assert_eq!(moved.authorization().is_some(), authorized, "{location}");
        }
        assert!(here.join("ftp://host/x").is_err() && here.join("file:///etc/passwd").is_err());
    }
}
