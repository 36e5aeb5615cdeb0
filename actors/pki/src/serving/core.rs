//! The certificate as a Secret, which names it gets, and which of two wins: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::error::MaterialError;
use crate::key::{PrivateKey, hex};
use crate::plan::{Reason, Wanted, shortcoming};
use crate::publish::{AuthorityPair, KeyPair};
use crate::x509::{Certificate, San, Usage, pem};

/// `CN` and `O` of the certificate.
const SUBJECT: (&str, &[&str]) = ("k3s", &["k3s"]);
/// More names than this are not learned: a certificate goes over the wire in each handshake, and until the nodes of the
/// cluster are known everybody may ask for any name.
pub(crate) const NAMES_MAX: usize = 256;
/// The longest host name there can be.
const NAME_BYTES_MAX: usize = 253;

const ANNOTATION_NAME: &str = "listener.cattle.io/cn-";
const ANNOTATION_FINGERPRINT: &str = "listener.cattle.io/fingerprint";
const ANNOTATION_STATIC: &str = "listener.cattle.io/static";
/// Longer keys, and those with characters that a key can't have, are shortened to so many bytes and told apart by a hash.
const ANNOTATION_BYTES: (usize, usize) = (64, 56);
/// Hexadecimal digits of that hash.
const ANNOTATION_HASH_CHARACTERS: usize = 6;

/// The certificate that is held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Certificate and key.
    pub pair: KeyPair,
    /// Whether an operator forbade to change it.
    pub fixed: bool,
}

/// A Secret of the type `kubernetes.io/tls`, as much of it as is needed.
#[derive(Serialize, Deserialize)]
struct Secret {
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default, rename = "type")]
    kind_of_secret: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Held {
    /// Reads it from a Secret.
    ///
    /// # Errors
    /// It is none, or certificate and key can't be used together.
    pub(crate) fn of_secret(json: &[u8]) -> Result<Self, MaterialError> {
        let secret: Secret = serde_json::from_slice(json).map_err(|error| MaterialError::Pem(error.to_string()))?;
        let part = |name: &'static str| {
            let text = secret.data.get(name).ok_or(MaterialError::Absent { what: name })?;
            STANDARD.decode(text).map_err(|error| MaterialError::Pem(error.to_string()))
        };
        let pair = KeyPair::new(pem::certificates(&part("tls.crt")?)?, PrivateKey::of_pem(&part("tls.key")?)?)?;
        let annotations = secret.metadata.annotations.unwrap_or_default();
        let fixed = annotations.get(ANNOTATION_STATIC).is_some_and(|value| value == "true");
        Ok(Self { pair, fixed })
    }

    /// As a Secret, in JSON.
    pub(crate) fn to_secret(&self) -> String {
        let certificate = self.pair.certificate();
        let names = certificate.sans.iter().map(San::to_string);
        let mut annotations: BTreeMap<String, String> = names.map(|name| (annotation(&name), name)).collect();
        annotations.insert(ANNOTATION_FINGERPRINT.to_owned(), fingerprint(certificate));
        if self.fixed {
            annotations.insert(ANNOTATION_STATIC.to_owned(), "true".to_owned());
        }
        let metadata = Metadata {
            name: "k3s-serving".to_owned(),
            namespace: "kube-system".to_owned(),
            annotations: Some(annotations),
        };
        let encoded = |name: &str, text: String| (name.to_owned(), STANDARD.encode(text));
        let secret = Secret {
            kind: "Secret".to_owned(),
            api_version: "v1".to_owned(),
            metadata,
            data: BTreeMap::from([
                encoded("tls.crt", pem::bundle(self.pair.certificates())),
                encoded("tls.key", self.pair.key().to_pem()),
            ]),
            kind_of_secret: "kubernetes.io/tls".to_owned(),
        };
        serde_json::to_string(&secret).expect("strings have a form in JSON")
    }

    /// The names that it lacks.
    pub(crate) fn lacks(&self, names: &[San]) -> Vec<San> {
        names.iter().filter(|name| !self.pair.certificate().sans.contains(name)).cloned().collect()
    }

    /// Why it can't stay as it is, given the names it has to have.
    pub(crate) fn shortcoming(&self, names: &[San], authority: &AuthorityPair, now: Duration) -> Option<Reason> {
        let wanted = Wanted { common_name: SUBJECT.0, organizations: SUBJECT.1, sans: names };
        shortcoming(self.pair.certificate(), &wanted, authority.certificates(), now).filter(|_| !self.fixed)
    }
}

/// The key of the annotation that stands for a name.
pub(crate) fn annotation(name: &str) -> String {
    let (long, short) = ANNOTATION_BYTES;
    let whole = format!("{ANNOTATION_NAME}{name}");
    if whole.len() < long && !name.contains([':', '*']) {
        return whole;
    }
    let hash = hex(digest(&SHA256, whole.as_bytes()).as_ref());
    let clean = whole.replace([':', '*'], "_");
    let end = (0..=clean.len().min(short)).rev().find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
    format!("{}-{}", &clean[..end], &hash[..ANNOTATION_HASH_CHARACTERS])
}

fn fingerprint(certificate: &Certificate) -> String {
    let hash = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.der()).as_ref());
    format!("SHA1={}", hash.to_uppercase())
}

/// Whether a name that a client used may be learned at all, whatever the filter says. Names with `*` come from the
/// configuration alone.
pub(crate) fn can_be_learned(name: &San) -> bool {
    match name {
        San::Ip(address) => !address.is_unspecified() && !address.is_multicast(),
        San::Dns(name) => {
            let fine = |label: &str| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            name.len() <= NAME_BYTES_MAX && name.split('.').all(fine)
        }
    }
}

/// A new certificate with these names and those that the old one has, for the same key if there is one.
///
/// # Errors
/// No key can be made, or the authority can't sign.
pub(crate) fn make(
    old: Option<&Held>,
    names: &[San],
    authority: &AuthorityPair,
    now: Duration,
) -> Result<Held, MaterialError> {
    let mut all: Vec<San> = names.to_vec();
    let kept = old.map(|held| held.pair.certificate().sans.clone()).unwrap_or_default();
    let learned = kept.into_iter().filter(|name| !names.contains(name));
    all.extend(learned.take(NAMES_MAX.saturating_sub(names.len())));
    let key = old.map_or_else(PrivateKey::generate_ec, |held| Ok(held.pair.key().clone()))?;
    let made = authority.sign(SUBJECT, &all, Usage::Server, key.public_key_info(), now)?;
    let chain = std::iter::once(made).chain(authority.certificates().iter().cloned()).collect();
    Ok(Held { pair: KeyPair::new(chain, key)?, fixed: false })
}

/// Which of two certificates is used where they meet, and whether it has to be made first. One that an operator fixed
/// wins; else one that has all names of both, theirs before ours; else a new one with all of them and our key.
///
/// # Errors
/// See [`make`].
pub(crate) fn merge(
    ours: &Held,
    theirs: &Held,
    authority: &AuthorityPair,
    now: Duration,
) -> Result<Held, MaterialError> {
    let all: Vec<San> = [ours, theirs].iter().flat_map(|held| held.pair.certificate().sans.clone()).collect();
    for held in [theirs, ours] {
        if held.fixed {
            return Ok(held.clone());
        }
    }
    for held in [theirs, ours] {
        if held.shortcoming(&all, authority, now).is_none() {
            return Ok(held.clone());
        }
    }
    make(Some(ours), &theirs.pair.certificate().sans, authority, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::self_signed;

    const NOW: Duration = Duration::from_secs(1_767_225_600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn authority() -> AuthorityPair {
        let key = PrivateKey::generate_ec().expect("random");
        let certificate = self_signed("k3s-server-ca@0", &key, NOW).expect("it can be made");
        AuthorityPair::new(KeyPair::new(vec![certificate], key).expect("they fit")).expect("it can be trusted")
    }

    fn sans(names: &[&str]) -> Vec<San> {
        names.iter().map(|name| San::new(name)).collect()
    }

    fn held(names: &[&str], authority: &AuthorityPair) -> Held {
        make(None, &sans(names), authority, NOW).expect("it can be made")
    }

    #[test]
    fn annotations_have_keys_that_are_allowed() {
        assert_eq!(annotation("k3s.example"), "listener.cattle.io/cn-k3s.example");
        for name in ["fd00::1", "*.example", &"a".repeat(64), &"é".repeat(40)] {
            let key = annotation(name);
            assert!(key.len() < 64 && !key.contains([':', '*']), "{key}");
            assert!(key.rsplit_once('-').expect("a hash").1.len() == 6, "{key}");
        }
        assert_ne!(annotation("fd00::1"), annotation("fd00:_1"));
    }

    #[test]
    fn a_secret_gives_back_what_was_put_in() {
        let authority = authority();
        let held = held(&["localhost", "fd00::1"], &authority);
        let json = held.to_secret();
        let again = Held::of_secret(json.as_bytes()).expect("it was just written");
        assert_eq!(again.pair.certificates(), held.pair.certificates());
        assert_eq!(again.to_secret(), json);
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&read["kind"], &read["type"]), (&"Secret".into(), &"kubernetes.io/tls".into()));
        let annotations = &read["metadata"]["annotations"];
        assert_eq!(annotations["listener.cattle.io/cn-localhost"], "localhost");
        assert!(annotations[ANNOTATION_FINGERPRINT].as_str().expect("text").starts_with("SHA1="));
        for broken in ["", "{}", "[]", "{\"data\":{\"tls.crt\":\"!\"}}"] {
            assert!(Held::of_secret(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn names_are_added_and_the_key_is_kept() {
        let authority = authority();
        let old = held(&["localhost"], &authority);
        let new = make(Some(&old), &sans(&["k3s.example"]), &authority, NOW).expect("it can be made");
        assert_eq!(new.pair.key().to_pem(), old.pair.key().to_pem());
        assert_eq!(new.lacks(&sans(&["localhost", "k3s.example", "10.0.0.1"])), sans(&["10.0.0.1"]));
        let certificate = new.pair.certificate();
        assert_eq!(
            (certificate.common_name.as_str(), &certificate.organizations[..]),
            ("k3s", &["k3s".to_owned()][..])
        );
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let authority = authority();
        let many: Vec<San> = (0..NAMES_MAX).map(|number| San::Dns(format!("n{number}.example"))).collect();
        let full = make(None, &many, &authority, NOW).expect("it can be made");
        let new = make(Some(&full), &sans(&["one.more"]), &authority, NOW).expect("it can be made");
        assert_eq!(new.pair.certificate().sans.len(), NAMES_MAX);
        assert!(new.lacks(&sans(&["one.more"])).is_empty());
    }

    #[test]
    fn what_ends_soon_or_is_of_another_authority_is_made_again_unless_it_is_fixed() {
        let (ours, other) = (authority(), authority());
        let mut held = held(&["localhost"], &ours);
        assert_eq!(held.shortcoming(&[], &ours, NOW), None);
        assert_eq!(held.shortcoming(&[], &ours, NOW + YEAR), Some(Reason::Expires));
        assert_eq!(held.shortcoming(&[], &other, NOW), Some(Reason::OtherAuthority));
        held.fixed = true;
        assert_eq!(held.shortcoming(&[], &other, NOW + YEAR), None);
        assert!(Held::of_secret(held.to_secret().as_bytes()).expect("it was just written").fixed);
    }

    #[test]
    fn the_certificate_with_all_names_wins() {
        let authority = authority();
        let (small, large) = (held(&["a"], &authority), held(&["a", "b"], &authority));
        let other = held(&["c"], &authority);
        let key = |held: &Held| held.pair.key().to_pem();
        let merged = |ours, theirs| merge(ours, theirs, &authority, NOW).expect("it can be made");
        assert_eq!(key(&merged(&small, &large)), key(&large));
        assert_eq!(key(&merged(&large, &small)), key(&large));
        let both = merged(&large, &other);
        assert_eq!(key(&both), key(&large));
        assert!(both.lacks(&sans(&["a", "b", "c"])).is_empty());
        let fixed = Held { fixed: true, ..small.clone() };
        assert_eq!(key(&merged(&large, &fixed)), key(&small));
        assert_eq!(key(&merged(&fixed, &large)), key(&small));
    }

    #[test]
    fn strange_names_are_not_learned() {
        for name in ["k3s.example", "one", "10.0.0.1", "fd00::1", "under_score"] {
            assert!(can_be_learned(&San::new(name)), "{name}");
        }
        for name in ["", ".", "a..b", "*.example", "0.0.0.0", "::", "224.0.0.1", "a b", "é", &"a.".repeat(200)] {
            assert!(!can_be_learned(&San::new(name)), "{name}");
        }
    }
}
