//! Requests for certificates, PKCS#10, of those who say themselves what the certificate should say.

use std::net::IpAddr;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};

use super::{COMMON_NAME, ORGANIZATION, San, attributes, san, verify};
use crate::error::MaterialError;

/// A request that was read: whoever sent it has the key that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// `CN`, empty when there is none.
    pub common_name: String,
    /// All `O`, in their order.
    pub organizations: Vec<String>,
    /// Hosts and addresses among the alternative names.
    pub sans: Vec<San>,
    /// Mail addresses among the alternative names.
    pub emails: Vec<String>,
    /// URIs among the alternative names.
    pub uris: Vec<String>,
    pub(super) subject: Vec<u8>,
    pub(super) public_key_info: Vec<u8>,
    /// The alternative names as they were written.
    pub(super) names: Option<Vec<u8>>,
}

fn unusable(error: impl ToString) -> MaterialError {
    MaterialError::Request(error.to_string())
}

impl CertificateRequest {
    /// Reads the first request in a text in PEM.
    ///
    /// # Errors
    /// [`MaterialError::Request`], or [`MaterialError::Signature`]: it wasn't signed with the key that it is for.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MaterialError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(unusable)?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, MaterialError> {
        let parsed = CertReq::from_der(der).map_err(unusable)?.info;
        let public_key_info = parsed.public_key.to_der().map_err(unusable)?;
        verify(der, &public_key_info)?;
        let mut extensions = Vec::new();
        for attribute in parsed.attributes.iter().filter(|attribute| attribute.oid == ExtensionReq::OID) {
            for value in attribute.values.iter() {
                let value = value.to_der().map_err(unusable)?;
                extensions.extend(Vec::<Extension>::from_der(&value).map_err(unusable)?);
            }
        }
        let names = extensions.iter().find(|extension| extension.extn_id == SubjectAltName::OID);
        let names = names.map(|extension| extension.extn_value.as_bytes().to_vec());
        let all = names.as_deref().map(SubjectAltName::from_der).transpose().map_err(unusable)?;
        let all = all.map(|names| names.0).unwrap_or_default();
        let text = |wanted: fn(&GeneralName) -> Option<String>| all.iter().filter_map(wanted).collect();
        Ok(Self {
            common_name: attributes(&parsed.subject, COMMON_NAME).into_iter().next_back().unwrap_or_default(),
            organizations: attributes(&parsed.subject, ORGANIZATION),
            emails: text(|name| if let GeneralName::Rfc822Name(text) = name { Some(text.to_string()) } else { None }),
            uris: text(|name| {
                if let GeneralName::UniformResourceIdentifier(text) = name { Some(text.to_string()) } else { None }
            }),
            sans: all.into_iter().filter_map(san).collect(),
            subject: parsed.subject.to_der().map_err(unusable)?,
            public_key_info,
            names,
        })
    }

    /// The hosts among the alternative names.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.sans.iter().filter_map(|san| if let San::Dns(name) = san { Some(name.as_str()) } else { None })
    }

    /// The addresses among the alternative names.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.sans.iter().filter_map(|san| if let San::Ip(address) = san { Some(*address) } else { None })
    }
}

/// What a certificate on request may be used for, and when.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Usages by Kubernetes' names, such as `digital signature` or `client auth`.
    pub usages: &'a [String],
    /// First second it is valid, since 1970.
    pub not_before: Duration,
    /// Last second it is valid, since 1970; never later than that of its authority.
    pub not_after: Duration,
}
