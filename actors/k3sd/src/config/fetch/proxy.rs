//! Which proxy, if any, stands between us and a server. The variables and their meaning are those of Go's programs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::cidr::Cidr;
use crate::config::fetch::FetchError;
use crate::config::fetch::url::Url;

/// The proxy for a URL, from `HTTPS_PROXY` or `HTTP_PROXY` unless `NO_PROXY` names the host; each also in lower case.
///
/// # Errors
/// When the variable names something that is no HTTP proxy.
pub(super) fn proxy_for(url: &Url, variables: &BTreeMap<String, String>) -> Result<Option<Url>, FetchError> {
    let named = |names: [&'static str; 2]| {
        let value = |name| variables.get(name).filter(|value| !value.is_empty()).map(|value| (name, value.as_str()));
        names.into_iter().find_map(value)
    };
    let proxy = if url.tls {
        named(["HTTPS_PROXY", "https_proxy"])
    } else if variables.contains_key("REQUEST_METHOD") {
        // In a CGI program a client could set HTTP_PROXY with a header.
        None
    } else {
        named(["HTTP_PROXY", "http_proxy"])
    };
    let Some((variable, proxy)) = proxy else { return Ok(None) };
    let exceptions = named(["NO_PROXY", "no_proxy"]).map_or("", |(_, value)| value);
    if is_near(&url.host) || exceptions.split(',').any(|exception| is_meant(exception.trim(), url)) {
        return Ok(None);
    }
    let proxy = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    Url::parse(&proxy).map(Some).map_err(|_| FetchError::Proxy(variable))
}

/// Whether the host is this machine, which no proxy can know better.
fn is_near(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether one entry of `NO_PROXY` means the URL: `*`, an address, a network, a name (with all names below it), or
/// `.name` (the names below it alone); each but the network with a port, if it is for that port only.
fn is_meant(exception: &str, url: &Url) -> bool {
    let exception = exception.to_ascii_lowercase();
    if exception.is_empty() || exception == "*" {
        return exception == "*";
    }
    let address = url.host.parse::<IpAddr>().ok();
    if let Ok(network) = exception.parse::<Cidr>() {
        return address.is_some_and(|address| network.contains(address));
    }
    let (host, port) = host_and_port(&exception);
    if port.is_some_and(|port| port != url.port) {
        return false;
    }
    if let Some(address) = address {
        return host.parse() == Ok(address);
    }
    let is_below = |domain: &str| url.host.strip_suffix(domain).is_some_and(|name| name.ends_with('.'));
    match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
        Some(domain) => is_below(domain),
        None => url.host == host || is_below(host),
    }
}

fn host_and_port(text: &str) -> (&str, Option<u16>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let url = Url::parse(url).expect("it is a URL");
        proxy_for(&url, &variables).expect("the proxy is one").map(|proxy| proxy.authority())
    }

    #[test]
    fn the_scheme_decides_which_variable_counts() {
        let both = [("HTTP_PROXY", "plain:1"), ("https_proxy", "https://tls:2")];
        assert_eq!(proxy("http://host/", &both).as_deref(), Some("plain:1"));
        assert_eq!(proxy("https://host/", &both).as_deref(), Some("tls:2"));
        assert_eq!(proxy("https://host/", &both[..1]), None);
        assert_eq!(proxy("http://host/", &[("HTTP_PROXY", "x:1"), ("REQUEST_METHOD", "GET")]), None);
        assert_eq!(proxy("http://host/", &[("HTTP_PROXY", "")]), None);
        for near in ["http://localhost/", "http://127.0.0.1:8/", "http://[::1]/"] {
            assert_eq!(proxy(near, &both), None, "{near}");
        }
        let socks = BTreeMap::from([("HTTP_PROXY".to_owned(), "socks5://me:hush@h".to_owned())]);
        let error =
            proxy_for(&Url::parse("http://host/").expect("a URL"), &socks).expect_err("it is SOCKS").to_string();
        assert!(error.contains("HTTP_PROXY") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn exceptions_name_hosts_domains_networks_and_ports() {
        let rows = [
            ("http://a.example/", "example", true),
            ("http://example/", "example", true),
            ("http://badexample/", "example", false),
            ("http://example/", ".example", false),
            ("http://a.example/", ".Example", true),
            ("http://a.example/", "*.example", true),
            ("http://a.example:81/", "other, a.example:81", true),
            ("http://a.example/", "a.example:81", false),
            ("http://a.example/", "*", true),
            ("http://10.1.2.3/", "10.0.0.0/8", true),
            ("http://10.1.2.3/", "10.1.2.3", true),
            ("http://10.1.2.3/", "10.1.2.3:81", false),
            ("http://[fd00::1]/", "fd00::1", true),
            ("http://[fd00::1]:81/", "[fd00::1]:81", true),
            ("http://a.example/", ",", false),
        ];
        for (url, exceptions, direct) in rows {
            let found = proxy(url, &[("http_proxy", "p:1"), ("no_proxy", exceptions)]);
            assert_eq!(found.is_none(), direct, "{url} {exceptions}");
        }
    }
}
