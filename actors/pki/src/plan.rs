//! What has to be made, from what is there, what is wanted, and the time: pure. The rules are K3s'.
//!
//! An authority that is there is never made again, whatever is wrong with it: every node trusts it. A leaf is made again
//! for any [`Reason`], with a new key; one whose certificate alone is missing keeps its key, as that is what a start that
//! was cut short leaves behind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::config::PkiConfig;
use crate::error::MaterialError;
use crate::key::PrivateKey;
use crate::table::{AUTHORITIES, Authority, LEAVES, Leaf, SHARED_KEYS, SharedKey};
use crate::x509::{Certificate, San};

/// A leaf with less than this left is made again.
pub(crate) const RENEWAL_WINDOW: Duration = Duration::from_secs(120 * 24 * 3600);

/// One file of a pair, as it was found.
#[derive(Clone, Debug)]
pub(crate) enum Half<T> {
    /// There is none.
    Missing,
    /// There is one, but it can't be used.
    Broken(MaterialError),
    /// As it should be.
    Good(T),
}

impl<T> Half<T> {
    fn good(&self) -> Option<&T> {
        if let Self::Good(found) = self { Some(found) } else { None }
    }
}

/// A certificate with those above it, and its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The first is the one that the key belongs to.
    pub certificates: Half<Vec<Certificate>>,
    /// Its key.
    pub key: Half<PrivateKey>,
}

/// All that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The authorities.
    pub authorities: BTreeMap<Authority, Pair>,
    /// The leaves that are wanted.
    pub leaves: BTreeMap<Leaf, Pair>,
    /// The shared keys, in the order of their table.
    pub shared_keys: Vec<Half<PrivateKey>>,
}

/// Why something is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its certificate is not there.
    CertificateMissing,
    /// Its key is not there.
    KeyMissing,
    /// One of its files can't be used.
    Broken(MaterialError),
    /// It is of no use before a time that is still to come.
    NotYetValid,
    /// Less than the renewal window is left.
    Expires,
    /// Another `CN` is wanted.
    CommonName,
    /// Other `O`s are wanted.
    Organizations,
    /// A name is wanted that it does not have.
    SanMissing(San),
    /// Its authority is made now.
    NewAuthority,
    /// It names another key of an authority than ours has.
    OtherAuthority,
    /// No certificate of its authority verifies it.
    NotSigned,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateMissing => f.write_str("there is no certificate"),
            Self::KeyMissing => f.write_str("there is no key"),
            Self::Broken(error) => error.fmt(f),
            Self::NotYetValid => f.write_str("it is not valid yet"),
            Self::Expires => f.write_str("it expires soon"),
            Self::CommonName => f.write_str("its common name is another"),
            Self::Organizations => f.write_str("its organization is another"),
            Self::SanMissing(san) => write!(f, "{san} is not among its names"),
            Self::NewAuthority => f.write_str("its authority is new"),
            Self::OtherAuthority => f.write_str("it names another authority"),
            Self::NotSigned => f.write_str("its authority did not sign it"),
        }
    }
}

/// What to do about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Keep,
    /// Make it.
    Make {
        /// Why.
        reason: Reason,
        /// Whether the key is made too.
        new_key: bool,
    },
}

impl Action {
    fn with_key(reason: Reason) -> Self {
        Self::Make { reason, new_key: true }
    }
}

/// What to do about everything, in the order in which it is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The authorities.
    pub authorities: Vec<(Authority, Action)>,
    /// The leaves.
    pub leaves: Vec<(Leaf, Action)>,
    /// The shared keys that are to be made.
    pub shared_keys: Vec<&'static SharedKey>,
}

/// Decides. Fails with the authority that is there and can't be used.
///
/// # Errors
/// An authority of which a file is damaged, or whose files do not belong together.
pub(crate) fn plan(found: &Found, config: &PkiConfig, now: Duration) -> Result<Plan, (Authority, MaterialError)> {
    let mut authorities = Vec::new();
    for row in AUTHORITIES {
        let pair = found.authorities.get(&row.name).map_or(Ok(Action::with_key(Reason::CertificateMissing)), authority);
        authorities.push((row.name, pair.map_err(|error| (row.name, error))?));
    }
    let bundle = |name: Authority| {
        let kept = authorities.contains(&(name, Action::Keep));
        found.authorities.get(&name).filter(|_| kept).and_then(|pair| pair.certificates.good())
    };
    let mut leaves = Vec::new();
    for row in LEAVES {
        if let Some(pair) = found.leaves.get(&row.name) {
            let (common_name, sans) = (config.common_name(row), config.sans(row));
            let wanted = Wanted { common_name: &common_name, organizations: row.organizations, sans: &sans };
            leaves.push((row.name, leaf(&wanted, pair, bundle(row.signer), now)));
        }
    }
    let missing =
        |(row, half): &(&'static SharedKey, &Half<PrivateKey>)| half.good().is_none() || bundle(row.signer).is_none();
    let shared_keys = SHARED_KEYS.iter().zip(&found.shared_keys).filter(missing).map(|(row, _)| row).collect();
    Ok(Plan { authorities, leaves, shared_keys })
}

fn authority(pair: &Pair) -> Result<Action, MaterialError> {
    match (&pair.certificates, &pair.key) {
        (Half::Broken(error), _) | (_, Half::Broken(error)) => Err(error.clone()),
        (Half::Missing, Half::Missing) => Ok(Action::with_key(Reason::CertificateMissing)),
        (Half::Missing, Half::Good(_)) => Ok(Action::Make { reason: Reason::CertificateMissing, new_key: false }),
        // Without its key an authority can sign nothing, so K3s makes another.
        (Half::Good(_), Half::Missing) => Ok(Action::with_key(Reason::KeyMissing)),
        (Half::Good(certificates), Half::Good(key)) if fits(certificates, key) => Ok(Action::Keep),
        (Half::Good(_), Half::Good(_)) => Err(MaterialError::Mismatch),
    }
}

/// Whether a key is that of the first certificate.
pub(crate) fn fits(certificates: &[Certificate], key: &PrivateKey) -> bool {
    certificates.first().is_some_and(|first| first.public_key_info == key.public_key_info())
}

fn leaf(wanted: &Wanted<'_>, pair: &Pair, bundle: Option<&Vec<Certificate>>, now: Duration) -> Action {
    let Some(bundle) = bundle else { return Action::with_key(Reason::NewAuthority) };
    let key = match &pair.key {
        Half::Good(key) => Some(key),
        Half::Missing => None,
        Half::Broken(error) => return Action::with_key(Reason::Broken(error.clone())),
    };
    let certificates = match &pair.certificates {
        Half::Good(certificates) => certificates,
        Half::Broken(error) => return Action::with_key(Reason::Broken(error.clone())),
        Half::Missing => return Action::Make { reason: Reason::CertificateMissing, new_key: key.is_none() },
    };
    let Some(key) = key else { return Action::with_key(Reason::KeyMissing) };
    if !fits(certificates, key) {
        return Action::with_key(Reason::Broken(MaterialError::Mismatch));
    }
    let first = certificates.first().expect("a bundle holds at least one");
    shortcoming(first, wanted, bundle, now).map_or(Action::Keep, Action::with_key)
}

/// What a certificate should say.
pub(crate) struct Wanted<'a> {
    /// `CN`.
    pub common_name: &'a str,
    /// All `O`, in any order.
    pub organizations: &'a [&'a str],
    /// Names that it has to have; it may have more.
    pub sans: &'a [San],
}

/// Why a certificate can't stay; `None` when it can.
pub(crate) fn shortcoming(
    certificate: &Certificate,
    wanted: &Wanted<'_>,
    bundle: &[Certificate],
    now: Duration,
) -> Option<Reason> {
    if certificate.not_before > now {
        return Some(Reason::NotYetValid);
    }
    if is_due(certificate.not_after, now) {
        return Some(Reason::Expires);
    }
    if certificate.common_name != wanted.common_name {
        return Some(Reason::CommonName);
    }
    let mut organizations: Vec<&str> = certificate.organizations.iter().map(String::as_str).collect();
    organizations.sort_unstable();
    let mut others = wanted.organizations.to_vec();
    others.sort_unstable();
    if organizations != others {
        return Some(Reason::Organizations);
    }
    if let Some(missing) = wanted.sans.iter().find(|san| !certificate.sans.contains(san)) {
        return Some(Reason::SanMissing(missing.clone()));
    }
    let authority_key = bundle.first().and_then(|authority| authority.subject_key.as_ref());
    if certificate.authority_key.as_ref() != authority_key {
        return Some(Reason::OtherAuthority);
    }
    (!bundle.iter().any(|authority| certificate.is_signed_by(authority))).then_some(Reason::NotSigned)
}

/// Whether a certificate with this end is within the renewal window.
pub(crate) fn is_due(not_after: Duration, now: Duration) -> bool {
    now + RENEWAL_WINDOW >= not_after
}
