//! What a request needs: a verb on a subresource of this node. Pure.

/// What somebody has to be allowed to do, one of several things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The verb; empty for a method that no rule names.
    pub(crate) verb: &'static str,
    /// Subresources of `nodes`, of which one suffices; the narrowest first.
    pub(crate) subresources: &'static [&'static str],
}

/// Paths, and all below them, with what they need.
const PATHS: &[(&str, &[&str])] = &[
    ("/stats", &["stats"]),
    ("/metrics", &["metrics"]),
    ("/logs", &["log"]),
    ("/checkpoint", &["checkpoint"]),
    ("/pods", &["pods", "proxy"]),
    ("/runningpods", &["pods", "proxy"]),
    ("/healthz", &["healthz", "proxy"]),
    ("/configz", &["configz", "proxy"]),
];

/// What a request needs.
pub(crate) fn needs(method: &str, path: &str) -> Needs {
    let verb = match method {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let is_at = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let found = PATHS.iter().find(|(place, _)| is_at(place));
    Needs { verb, subresources: found.map_or(&["proxy"], |(_, subresources)| subresources) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_needs_what_it_shows() {
        for (method, path, verb, subresources) in [
            ("GET", "/stats/summary", "get", &["stats"] as &[_]),
            ("GET", "/metrics", "get", &["metrics"]),
            ("GET", "/metrics/cadvisor", "get", &["metrics"]),
            ("GET", "/metricsx", "get", &["proxy"]),
            ("GET", "/logs/", "get", &["log"]),
            ("POST", "/checkpoint/n/p/c", "create", &["checkpoint"]),
            ("GET", "/pods", "get", &["pods", "proxy"]),
            ("GET", "/runningpods/", "get", &["pods", "proxy"]),
            ("GET", "/healthz/ping", "get", &["healthz", "proxy"]),
            ("GET", "/configz", "get", &["configz", "proxy"]),
            ("POST", "/exec/n/p/c", "create", &["proxy"]),
            ("GET", "/containerLogs/n/p/c", "get", &["proxy"]),
            ("HEAD", "/", "", &["proxy"]),
        ] {
            assert_eq!(needs(method, path), Needs { verb, subresources }, "{method} {path}");
        }
    }
}
