//! URLs, as Go reads those of requests: absolute ones, and absolute paths.

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    pub(crate) scheme: String,
    /// With its port.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|c| c.is_ascii_control() || c == ' ') {
            return None;
        }
        // What is behind a hash is no part of what is requested.
        let (before, query) = text.split_once('?').unwrap_or((text, ""));
        let (scheme, host, path) = if let Some((scheme, rest)) = before.split_once("://") {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            (scheme, host, path)
        } else if before.starts_with('/') {
            ("", "", before)
        } else {
            return None;
        };
        let letters = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let named = text.starts_with('/') || scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        let good = letters && named && Self::is_host(host) && decode(path).is_some();
        good.then(|| Self {
            text: text.to_owned(),
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    fn is_host(host: &str) -> bool {
        let port = match host.rfind(']') {
            Some(end) => {
                let inner = host.strip_prefix('[').and_then(|host| host.get(..end.checked_sub(1)?));
                let address = inner.map(|inner| inner.split('%').next().unwrap_or_default());
                if address.is_none_or(|address| address.parse::<std::net::Ipv6Addr>().is_err()) {
                    return false;
                }
                &host[end + 1..]
            }
            None => host.find(':').map_or("", |colon| &host[colon..]),
        };
        let digits = port.strip_prefix(':').unwrap_or(port);
        (port.is_empty() || port.starts_with(':')) && digits.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// Without the port, and without the brackets of an address.
    pub(crate) fn host_name(&self) -> &str {
        if let Some((inner, _)) = self.host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            return inner;
        }
        self.host.split(':').next().unwrap_or_default()
    }

    pub(crate) fn port(&self) -> &str {
        let behind = self.host.rsplit_once(']').map_or(self.host.as_str(), |(_, behind)| behind);
        behind.split_once(':').map_or("", |(_, port)| port)
    }

    /// The path with its letters escaped where they have to be.
    pub(crate) fn escaped_path(&self) -> String {
        let mut escaped = String::with_capacity(self.path.len());
        for byte in self.path.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*%[]".contains(&byte) {
                escaped.push(char::from(byte));
            } else {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
        escaped
    }

    /// Names and values of the query, in the order they are written.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        pairs
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
            })
            .collect()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Without escapes; `None` if one of them is none.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits =
            std::str::from_utf8(&digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
