//! Kubeconfigs as text. They are YAML of a fixed shape, in which only strings vary; a string that is not plain is written
//! as JSON writes it, which YAML reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Where a certificate or key is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// In a file of this name.
    File(&'a str),
    /// Here.
    Inline(&'a str),
}

/// What a kubeconfig says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kubeconfig<'a> {
    /// The API server.
    pub url: &'a str,
    /// Names of cluster, user and context.
    pub names: (&'a str, &'a str, &'a str),
    /// Who may have signed the API server.
    pub authority: Source<'a>,
    /// Who the user is.
    pub certificate: Source<'a>,
    /// Its key.
    pub key: Source<'a>,
}

fn string(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@".contains(&byte);
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if starts
        && text.bytes().all(plain)
        && !text.ends_with(':')
        && !word.iter().any(|word| text.eq_ignore_ascii_case(word))
    {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

fn field(name: &str, source: Source<'_>) -> String {
    match source {
        Source::File(path) => format!("    {name}: {}\n", string(path)),
        Source::Inline(text) => format!("    {name}-data: {}\n", STANDARD.encode(text)),
    }
}

impl Kubeconfig<'_> {
    /// The text of the file.
    pub(crate) fn to_yaml(self) -> String {
        let (cluster, user, context) = self.names;
        let [url, cluster, user, context] = [self.url, cluster, user, context].map(string);
        let authority = field("certificate-authority", self.authority);
        let certificate = field("client-certificate", self.certificate);
        let key = field("client-key", self.key);
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n{authority}    server: {url}\n  name: {cluster}\n\
             contexts:\n- context:\n    cluster: {cluster}\n    user: {user}\n  name: {context}\n\
             current-context: {context}\nkind: Config\nusers:\n- name: {user}\n  user:\n{certificate}{key}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_where_yaml_would_read_something_else() {
        for (text, wanted) in [
            ("default", "default"),
            ("https://[::1]:6443", "\"https://[::1]:6443\""),
            ("https://127.0.0.1:6443", "https://127.0.0.1:6443"),
            ("/var/lib/rancher/k3s/server/tls/client-ca.crt", "/var/lib/rancher/k3s/server/tls/client-ca.crt"),
            ("no", "\"no\""),
            ("1e3", "\"1e3\""),
            ("a: b", "\"a: b\""),
            ("a:", "\"a:\""),
            ("", "\"\""),
            ("a \"b\"", "\"a \\\"b\\\"\""),
        ] {
            assert_eq!(string(text), wanted);
        }
    }

    #[test]
    fn files_are_named_and_data_is_carried() {
        let config = Kubeconfig {
            url: "https://127.0.0.1:6444",
            names: ("local", "user", "Default"),
            authority: Source::File("/tls/ca.crt"),
            certificate: Source::Inline("abc"),
            key: Source::File("/tls/a.key"),
        };
        let wanted = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority: /tls/ca.crt\n    server: \
                      https://127.0.0.1:6444\n  name: local\ncontexts:\n- context:\n    cluster: local\n    user: user\n  \
                      name: Default\ncurrent-context: Default\nkind: Config\nusers:\n- name: user\n  user:\n    \
                      client-certificate-data: YWJj\n    client-key: /tls/a.key\n";
        assert_eq!(config.to_yaml(), wanted);
    }
}
