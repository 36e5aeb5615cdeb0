//! The user that a client certificate names.

use thiserror::Error;

use crate::User;

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";
/// Kubernetes' own attribute for the uid of a user.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// Why a certificate names nobody, though it could. Served as 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// The subject has more than one uid.
    #[error("unable to parse UID: expected 1 UID, but found multiple")]
    SeveralUids,
    /// The subject has a uid without text.
    #[error("unable to parse UID: UID cannot be an empty string")]
    EmptyUid,
}

/// The user that the subject of a verified certificate names: attributes as object identifier and text, in their order.
/// `None` without a common name. `digest` is the SHA-256 of the certificate; it tells in logs which one it was.
///
/// # Errors
///
/// Fails if the uid in the subject isn't one text.
pub fn user_of_certificate(subject: &[(&str, &str)], digest: &[u8; 32]) -> Result<Option<User>, CertificateError> {
    let all = |wanted: &'static str| {
        subject.iter().filter(move |(identifier, _)| *identifier == wanted).map(|(_, text)| (*text).to_owned())
    };
    let Some(name) = all(COMMON_NAME).next_back().filter(|name| !name.is_empty()) else { return Ok(None) };
    let uids: Vec<String> = all(UID).collect();
    let uid = match uids.as_slice() {
        [] => String::new(),
        [uid] if uid.is_empty() => return Err(CertificateError::EmptyUid),
        [uid] => uid.clone(),
        _ => return Err(CertificateError::SeveralUids),
    };
    let mut user = User { name, uid, groups: all(ORGANIZATION).collect(), ..User::default() };
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={hex}")]);
    Ok(Some(user))
}
