//! Bootstrap tokens: what their Secrets say, and the two controllers that look at them.
//!
//! * `tokencleaner` deletes those whose time is over.
//! * `bootstrapsigner` signs the ConfigMap `cluster-info` with each token that may sign, so that a node which knows one
//!   can tell whether what it reads before it trusts anybody is genuine.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, InformerArgs, informer};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use ring::hmac;

/// Where tokens are, and what their type is.
const NAMESPACE: &str = "kube-system";
const TYPE: &str = "type=bootstrap.kubernetes.io/token";
/// The ConfigMap that is signed, its entry, and how entries with signatures begin.
const SIGNED: (&str, &str) = ("kube-public", "cluster-info");
const ENTRY: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

/// A token that is well formed.
#[derive(Debug, PartialEq, Eq)]
struct Token<'a> {
    id: &'a str,
    secret: &'a [u8],
}

/// What time is left for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It doesn't end.
    Endless,
    /// Until then.
    Until(Timestamp),
    /// It is over, or can't be told: such a token is worth nothing.
    Over,
}

fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(name).map(|value| value.0.as_slice())
}

fn life(secret: &Secret, now: Timestamp) -> Life {
    let Some(expiration) = field(secret, "expiration").filter(|text| !text.is_empty()) else { return Life::Endless };
    let due = std::str::from_utf8(expiration).ok().and_then(|text| text.parse::<Timestamp>().ok());
    due.filter(|due| *due > now).map_or(Life::Over, Life::Until)
}

/// The token of a Secret that may sign now.
fn signing(secret: &Secret, now: Timestamp) -> Option<Token<'_>> {
    let id = std::str::from_utf8(field(secret, "token-id")?).ok()?;
    let value = field(secret, "token-secret")?;
    let plain = |text: &[u8]| text.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    let is_formed = id.len() == 6 && plain(id.as_bytes()) && value.len() == 16 && plain(value);
    let is_named = secret.metadata.name.as_deref().and_then(|name| name.strip_prefix("bootstrap-token-")) == Some(id);
    let may_sign = field(secret, "usage-bootstrap-signing") == Some(b"true");
    (is_formed && is_named && may_sign && life(secret, now) != Life::Over).then_some(Token { id, secret: value })
}

/// A signature without what is signed: JWS with HS256, RFC 7515 appendix F.
fn signature(token: &Token<'_>, content: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id));
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, token.secret), input.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The ConfigMap with the signatures that it should have; `None` if it has them.
fn signed<'a>(map: &ConfigMap, secrets: impl Iterator<Item = &'a Secret>, now: Timestamp) -> Option<ConfigMap> {
    let data = map.data.clone().unwrap_or_default();
    let mut wanted: BTreeMap<String, String> =
        data.iter().filter(|(name, _)| !name.starts_with(SIGNATURE)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(content) = data.get(ENTRY) {
        let tokens = secrets.filter_map(|secret| signing(secret, now));
        wanted.extend(tokens.map(|token| (format!("{SIGNATURE}{}", token.id), signature(&token, content))));
    }
    (wanted != data).then(|| ConfigMap { data: Some(wanted), ..map.clone() })
}

struct Cleaner {
    client: Client,
    secrets: Informer<Secret>,
}

impl Controller for Cleaner {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let shown = self.secrets.snapshot();
        let Some(secret) = shown.as_ref().and_then(|secrets| secrets.get(NAMESPACE, key)) else { return Ok(()) };
        match life(secret, turn.now()) {
            Life::Endless => {}
            Life::Until(due) => turn.again_at(due),
            Life::Over => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
                let uid = secret.metadata.uid.clone();
                let params = DeleteParams {
                    preconditions: Some(Preconditions { uid, resource_version: None }),
                    ..DeleteParams::default()
                };
                match api.delete(key, &params).await.map_err(Failure::from) {
                    Ok(_) => turn.deleted(&self.secrets, secret),
                    // Gone already, or another one by now.
                    Err(failure) if failure.is_stale() => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }
}

struct Signer {
    client: Client,
    secrets: Informer<Secret>,
    maps: Informer<ConfigMap>,
}

impl Controller for Signer {
    /// There is one ConfigMap to sign; the key is its name.
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let (maps, secrets) = (self.maps.snapshot(), self.secrets.snapshot());
        let (Some(maps), Some(secrets)) = (maps, secrets) else { return Ok(()) };
        let Some(map) = maps.get(SIGNED.0, key) else { return Ok(()) };
        let now = turn.now();
        for secret in secrets.iter() {
            if let Life::Until(due) = life(secret, now) {
                turn.again_at(due);
            }
        }
        if let Some(map) = signed(map, secrets.iter().map(AsRef::as_ref), now) {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), SIGNED.0);
            let written = api.replace(key, &PostParams::default(), &map).await?;
            turn.wrote(&self.maps, &written);
        }
        Ok(())
    }
}

/// Both loops, and what they read: Secrets of this one type, and one ConfigMap.
pub(crate) fn bootstrap_tokens(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    let reader = setup.informers.connect();
    let tokens = InformerArgs::<Secret>::at(reader.clone(), |client| Api::namespaced(client, NAMESPACE)).fields(TYPE);
    let (tokens_child, secrets) = informer("bootstrap-tokens", tokens);
    let info = InformerArgs::<ConfigMap>::at(reader, |client| Api::namespaced(client, SIGNED.0));
    let (info_child, maps) = informer("cluster-info", info.fields(&format!("metadata.name={}", SIGNED.1)));

    let cleaner = Cleaner { client: setup.connect("token-cleaner").client(), secrets: secrets.clone() };
    let cleaner = Loop::new(cleaner, setup.leading.clone())
        .watch(&secrets, |_, new, keys| keys.extend(new.and_then(|new| new.metadata.name.clone())))
        .child("tokencleaner");
    let client = setup.connect("bootstrap-signer").client();
    let signer = Signer { client, secrets: secrets.clone(), maps: maps.clone() };
    let signer = Loop::new(signer, setup.leading.clone())
        .watch(&maps, |_, _, keys| keys.push(SIGNED.1.to_owned()))
        .watch(&secrets, |_, _, keys| keys.push(SIGNED.1.to_owned()))
        .child("bootstrapsigner");
    vec![tokens_child, info_child, cleaner, signer]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn token(fields: &[(&str, &str)]) -> Secret {
        let base = [("token-id", "07401b"), ("token-secret", "f395accd246ae52d"), ("usage-bootstrap-signing", "true")];
        let all = base.iter().chain(fields).map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(all.collect()), ..Secret::default() };
        secret.metadata.name = Some("bootstrap-token-07401b".to_owned());
        secret
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn tokens_live_until_their_expiration() {
        let now = at("2030-01-01T00:00:00Z");
        for (expiration, wanted) in [
            (None, Life::Endless),
            (Some(""), Life::Endless),
            (Some("2030-01-01T00:00:01Z"), Life::Until(at("2030-01-01T00:00:01Z"))),
            (Some("2030-01-01T02:00:00+02:00"), Life::Over),
            (Some("2029-12-31T00:00:00Z"), Life::Over),
            (Some("tomorrow"), Life::Over),
        ] {
            let fields: Vec<_> = expiration.iter().map(|text| ("expiration", *text)).collect();
            assert_eq!(life(&token(&fields), now), wanted, "{expiration:?}");
        }
    }

    #[test]
    fn only_sound_tokens_sign() {
        let now = at("2030-01-01T00:00:00Z");
        assert!(signing(&token(&[]), now).is_some());
        for wrong in [
            ("token-id", "07401B"),
            ("token-id", "07401"),
            ("token-id", "aaaaaa"),
            ("token-secret", "short"),
            ("usage-bootstrap-signing", "yes"),
            ("expiration", "2029-01-01T00:00:00Z"),
        ] {
            assert_eq!(signing(&token(&[wrong]), now), None, "{wrong:?}");
        }
    }

    #[test]
    fn signatures_come_and_go_with_their_tokens() {
        let now = at("2030-01-01T00:00:00Z");
        let data = [("kubeconfig", "x"), ("jws-kubeconfig-abcdef", "old"), ("other", "y")];
        let data: BTreeMap<_, _> = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        let secrets = [token(&[])];
        let signed_map = signed(&map, secrets.iter(), now).expect("it changes");
        let data = signed_map.data.clone().expect("data");
        assert_eq!(data.keys().collect::<Vec<_>>(), ["jws-kubeconfig-07401b", "kubeconfig", "other"]);
        let parts: Vec<&str> = data["jws-kubeconfig-07401b"].split('.').collect();
        let header = URL_SAFE_NO_PAD.decode(parts[0]).expect("base64");
        assert_eq!(header, br#"{"alg":"HS256","kid":"07401b"}"#);
        assert_eq!(parts[1], "");
        let input = format!("{}.{}", parts[0], URL_SAFE_NO_PAD.encode("x"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"f395accd246ae52d");
        let tag = URL_SAFE_NO_PAD.decode(parts[2]).expect("base64");
        hmac::verify(&key, input.as_bytes(), &tag).expect("it is genuine");
        assert_eq!(signed(&signed_map, secrets.iter(), now), None);
        assert!(signed(&signed_map, [].into_iter(), now).is_some(), "the token is gone");
    }
}
