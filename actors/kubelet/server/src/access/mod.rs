//! Who asks, and whether he may: the API server is asked, and its answers are kept for a while.
//!
//! [`rules`] says what a request needs, [`actor`] asks and remembers.

mod actor;
mod cache;
mod rules;

pub(crate) use self::actor::{Access, AccessArgs, AccessHandle};
pub(crate) use self::rules::needs;

use std::collections::BTreeMap;

use x509_cert::der::{Decode as _, Tag, Tagged as _};

/// Identifiers of what a certificate's name is made of.
const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";
/// The group of everybody who is known.
const AUTHENTICATED: &str = "system:authenticated";

/// Somebody who is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct User {
    /// The name.
    pub(crate) name: String,
    /// An identifier, if there is one.
    pub(crate) uid: String,
    /// The groups.
    pub(crate) groups: Vec<String>,
    /// What else is known of him.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whom a certificate names, that was verified in the handshake. `None` without a common name.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?;
        let mut user = Self::default();
        for attribute in certificate.tbs_certificate().subject().iter() {
            let text = match attribute.value.tag() {
                Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(attribute.value.value()),
                _ => continue,
            };
            match (attribute.oid.to_string().as_str(), text) {
                (COMMON_NAME, Ok(text)) => text.clone_into(&mut user.name),
                (ORGANIZATION, Ok(text)) => user.groups.push(text.to_owned()),
                _ => {}
            }
        }
        user.groups.push(AUTHENTICATED.to_owned());
        (!user.name.is_empty()).then_some(user)
    }
}
