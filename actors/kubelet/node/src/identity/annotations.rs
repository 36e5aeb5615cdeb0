//! What K3s writes down about how an agent was started: arguments and environment, with secrets masked, and a hash of both.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

/// The arguments, a JSON list.
pub const NODE_ARGS: &str = "k3s.io/node-args";
/// The environment, a JSON object.
pub const NODE_ENV: &str = "k3s.io/node-env";
/// The hash of both.
pub const NODE_CONFIG_HASH: &str = "k3s.io/node-config-hash";

/// Stands for a secret.
const MASK: &str = "********";
/// Variables whose values are secret.
const SECRET_VARIABLES: [&str; 7] = [
    "K3S_TOKEN",
    "K3S_DATASTORE_ENDPOINT",
    "K3S_AGENT_TOKEN",
    "K3S_CLUSTER_SECRET",
    "K3S_VPN_AUTH",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
];
/// Flags whose values are.
const SECRET_FLAGS: [&str; 7] = [
    "-t",
    "--token",
    "--agent-token",
    "--datastore-endpoint",
    "--etcd-s3-access-key",
    "--etcd-s3-secret-key",
    "--vpn-auth",
];

/// Makes the annotations from the arguments, beginning with the subcommand, and the environment, of which only variables
/// of K3s count. No secret is in them, nor in what is hashed.
#[must_use]
pub fn node_annotations<'a>(
    arguments: &[String],
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, String> {
    let environment: BTreeMap<&str, &str> =
        environment.into_iter().filter(|(name, _)| name.starts_with("K3S_")).collect();
    let masked_environment: BTreeMap<&str, &str> = environment
        .iter()
        .map(|(name, value)| (*name, if SECRET_VARIABLES.contains(name) { MASK } else { *value }))
        .collect();
    let arguments = masked(arguments);
    let (args, env) = (json(&arguments), json(&masked_environment));
    let hash = base32(digest(&SHA256, format!("{args}{env}").as_bytes()).as_ref());
    let rows = [(NODE_ARGS, args), (NODE_ENV, env), (NODE_CONFIG_HASH, hash)];
    rows.map(|(name, value)| (name.to_owned(), value)).into()
}

/// `--flag=value` as two, and the values of secret flags masked.
fn masked(arguments: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for argument in arguments {
        match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') => all.extend([flag.to_owned(), value.to_owned()]),
            _ => all.push(argument.clone()),
        }
    }
    for index in 1..all.len() {
        if SECRET_FLAGS.contains(&all[index - 1].as_str()) {
            all[index] = MASK.to_owned();
        }
    }
    all
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts are JSON")
}

/// RFC 4648, upper case, padded.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for block in bytes.chunks(5) {
        let mut five = [0; 8];
        five[3..3 + block.len()].copy_from_slice(block);
        let bits = u64::from_be_bytes(five);
        let used = (block.len() * 8).div_ceil(5);
        for place in 0..8 {
            let index = usize::try_from(bits >> (35 - 5 * place) & 31).expect("five bits");
            text.push(if place < used { char::from(LETTERS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_rfc_4648s() {
        let rows = [
            ("", ""),
            ("f", "MY======"),
            ("fo", "MZXQ===="),
            ("foo", "MZXW6==="),
            ("foob", "MZXW6YQ="),
            ("fooba", "MZXW6YTB"),
        ];
        for (plain, expected) in rows {
            assert_eq!(base32(plain.as_bytes()), expected);
        }
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI======");
    }

    #[test]
    fn secrets_are_masked_and_only_variables_of_k3s_count() {
        let arguments = ["agent", "--token=abc", "--server", "https://a:6443", "-t", "def", "--node-label=a=b"];
        let arguments = arguments.map(str::to_owned);
        let environment =
            [("K3S_TOKEN", "secret"), ("K3S_NODE_NAME", "one"), ("AWS_ACCESS_KEY_ID", "no"), ("HOME", "/")];
        let made = node_annotations(&arguments, environment);
        let args = "[\"agent\",\"--token\",\"********\",\"--server\",\"https://a:6443\",\"-t\",\"********\",\"--node-label\",\"a=b\"]";
        assert_eq!(made[NODE_ARGS], args);
        assert_eq!(made[NODE_ENV], "{\"K3S_NODE_NAME\":\"one\",\"K3S_TOKEN\":\"********\"}");
        assert_eq!(made[NODE_CONFIG_HASH].len(), 56);
        let other = node_annotations(&arguments[..1], environment);
        assert_ne!(made[NODE_CONFIG_HASH], other[NODE_CONFIG_HASH]);
    }
}
