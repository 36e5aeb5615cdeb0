//! PEM: how keys and certificates lie in files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::Certificate;
use crate::error::MaterialError;

/// Characters of base64 in a line; what every writer of PEM uses.
const LINE_CHARACTERS: usize = 64;

/// One section.
pub(crate) fn section(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(LINE_CHARACTERS));
        out.push_str(line);
        out.push('\n');
        rest = others;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// All certificates of a file, in their order.
///
/// # Errors
/// There is none, or one of them can't be read.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, MaterialError> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| MaterialError::Pem(error.to_string()))?;
        found.push(Certificate::parse(der.into_owned())?);
    }
    if found.is_empty() {
        return Err(MaterialError::Absent { what: "certificate" });
    }
    Ok(found)
}

/// Certificates as one file.
pub(crate) fn bundle(certificates: &[Certificate]) -> String {
    certificates.iter().map(Certificate::to_pem).collect()
}
