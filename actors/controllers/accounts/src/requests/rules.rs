//! Who may have which certificate, by upstream's rules. Pure.

use std::time::Duration;

use k3sd_client::controller::setup::{CertificateAuthority, RequestedCertificate};
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;

/// The longest time for which a certificate is valid, unless a flag says otherwise.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest, however short somebody asks for.
const DURATION_MIN: Duration = Duration::from_secs(600);
/// How far back validity begins, for the sake of clocks that are late.
const BACKDATED: Duration = Duration::from_secs(300);
/// A time so short is counted from now; what is longer, from where validity begins.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// The signers of Kubernetes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignerName {
    /// Clients of the API.
    ApiServerClient,
    /// Nodes, as clients of the API.
    KubeletClient,
    /// Nodes, as servers.
    KubeletServing,
    /// Anything, without a promise that anybody believes it.
    LegacyUnknown,
}

impl SignerName {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "kubernetes.io/kube-apiserver-client" => Self::ApiServerClient,
            "kubernetes.io/kube-apiserver-client-kubelet" => Self::KubeletClient,
            "kubernetes.io/kubelet-serving" => Self::KubeletServing,
            "kubernetes.io/legacy-unknown" => Self::LegacyUnknown,
            _ => return None,
        })
    }

    /// Who signs, as K3s sets it up.
    pub(super) fn authority(self) -> CertificateAuthority {
        match self {
            Self::ApiServerClient | Self::KubeletClient => CertificateAuthority::Client,
            Self::KubeletServing | Self::LegacyUnknown => CertificateAuthority::Server,
        }
    }

    /// Whether the signer signs such a request; otherwise the error says what is wrong with it.
    pub(super) fn permits(self, request: &RequestedCertificate, usages: &[String]) -> Result<(), String> {
        match self {
            Self::ApiServerClient => client_usages(usages),
            Self::KubeletClient => kubelet_client(request, usages),
            Self::KubeletServing => kubelet_serving(request, usages),
            Self::LegacyUnknown => Ok(()),
        }
    }
}

/// Exactly these usages, of which key encipherment may be missing.
fn has_usages(usages: &[String], wanted: &str) -> bool {
    let known = ["digital signature", "key encipherment", wanted];
    usages.iter().all(|usage| known.contains(&usage.as_str()))
        && ["digital signature", wanted].iter().all(|needed| usages.iter().any(|usage| usage == needed))
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    let is_client = usages.iter().any(|usage| usage == "client auth");
    if is_client && usages.iter().all(|usage| known.contains(&usage.as_str())) {
        return Ok(());
    }
    Err(format!("invalid usages: {}", usages.join(", ")))
}

/// What the certificates of nodes have in common.
fn is_node(request: &RequestedCertificate) -> Result<(), String> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node: ".to_owned());
    }
    Ok(())
}

pub(super) fn kubelet_client(request: &RequestedCertificate, usages: &[String]) -> Result<(), String> {
    is_node(request)?;
    let names = request.names;
    for (count, what) in [
        (names.hosts, "DNS subjectAltNames are not allowed"),
        (names.emails, "Email subjectAltNames are not allowed"),
        (names.addresses, "IP subjectAltNames are not allowed"),
        (names.uris, "URI subjectAltNames are not allowed"),
    ] {
        if count > 0 {
            return Err(what.to_owned());
        }
    }
    if has_usages(usages, "client auth") { Ok(()) } else { Err("usages did not match expected values".to_owned()) }
}

fn kubelet_serving(request: &RequestedCertificate, usages: &[String]) -> Result<(), String> {
    is_node(request)?;
    let names = request.names;
    if names.hosts + names.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if names.emails > 0 {
        return Err("Email subjectAltNames are not allowed".to_owned());
    }
    if names.uris > 0 {
        return Err("URI subjectAltNames are not allowed".to_owned());
    }
    if has_usages(usages, "server auth") { Ok(()) } else { Err("usages did not match expected values".to_owned()) }
}

/// What a node may have without a person saying so, if it may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recognized {
    /// The subresource that whoever asks has to be allowed to create.
    pub(super) subresource: &'static str,
    /// What the approval says.
    pub(super) message: &'static str,
}

/// How a request may be approved, most particular first.
pub(super) fn recognized(spec: &CertificateSigningRequestSpec, request: &RequestedCertificate) -> Vec<Recognized> {
    let usages = spec.usages.as_deref().unwrap_or_default();
    let is_kubelet = SignerName::of(&spec.signer_name) == Some(SignerName::KubeletClient);
    if !is_kubelet || kubelet_client(request, usages).is_err() {
        return Vec::new();
    }
    let own = Recognized {
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    };
    let any = Recognized {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    };
    if spec.username.as_deref() == Some(&request.common_name) { vec![own, any] } else { vec![any] }
}

/// From when to when a certificate is valid, since 1970.
pub(super) fn validity(asked: Option<i32>, longest: Duration, now: Duration) -> std::ops::Range<Duration> {
    let asked = asked.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let time = asked.map_or(longest, |asked| asked.max(DURATION_MIN).min(longest));
    let begin = now.saturating_sub(BACKDATED);
    let from = if time < SHORT { now } else { begin };
    begin..from + time
}

#[cfg(test)]
mod tests {
    use k3sd_client::controller::setup::RequestedNames;

    use super::*;

    fn node() -> RequestedCertificate {
        RequestedCertificate {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            names: RequestedNames::default(),
        }
    }

    fn all(usages: &[&str]) -> Vec<String> {
        usages.iter().map(|usage| (*usage).to_owned()).collect()
    }

    #[test]
    fn each_signer_signs_what_upstream_signs() {
        let client = all(&["digital signature", "key encipherment", "client auth"]);
        let short = all(&["digital signature", "client auth"]);
        let server = all(&["digital signature", "server auth"]);
        let other = RequestedCertificate { organizations: vec!["dev".to_owned()], ..node() };
        let host = RequestedCertificate { names: RequestedNames { hosts: 1, ..Default::default() }, ..node() };
        let mail =
            RequestedCertificate { names: RequestedNames { hosts: 1, emails: 1, ..Default::default() }, ..node() };
        let name = RequestedCertificate { common_name: "a".to_owned(), ..node() };
        for (signer, request, usages, wanted) in [
            ("kube-apiserver-client", &other, &client, None),
            ("kube-apiserver-client", &other, &all(&["client auth"]), None),
            ("kube-apiserver-client", &other, &all(&["digital signature"]), Some("invalid usages: digital signature")),
            ("kube-apiserver-client", &other, &server, Some("invalid usages: digital signature, server auth")),
            ("kube-apiserver-client-kubelet", &node(), &client, None),
            ("kube-apiserver-client-kubelet", &node(), &short, None),
            ("kube-apiserver-client-kubelet", &node(), &server, Some("usages did not match expected values")),
            ("kube-apiserver-client-kubelet", &other, &client, Some("subject organization is not system:nodes")),
            ("kube-apiserver-client-kubelet", &host, &client, Some("DNS subjectAltNames are not allowed")),
            (
                "kube-apiserver-client-kubelet",
                &name,
                &client,
                Some("subject common name does not begin with system:node: "),
            ),
            ("kubelet-serving", &host, &server, None),
            ("kubelet-serving", &node(), &server, Some("DNS or IP subjectAltName is required")),
            ("kubelet-serving", &mail, &server, Some("Email subjectAltNames are not allowed")),
            ("kubelet-serving", &host, &client, Some("usages did not match expected values")),
            ("legacy-unknown", &mail, &all(&["any"]), None),
        ] {
            let signer_name = SignerName::of(&format!("kubernetes.io/{signer}")).expect("one of ours");
            assert_eq!(signer_name.permits(request, usages).err().as_deref(), wanted, "{signer} {usages:?}");
        }
        assert_eq!(SignerName::of("example.com/mine"), None);
    }

    #[test]
    fn a_node_may_renew_its_own_and_a_newcomer_may_begin() {
        let spec = |user: &str, signer: &str| CertificateSigningRequestSpec {
            username: Some(user.to_owned()),
            signer_name: signer.to_owned(),
            usages: Some(all(&["digital signature", "client auth"])),
            ..CertificateSigningRequestSpec::default()
        };
        let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
        for (user, signer, wanted) in [
            ("system:node:a", kubelet, &["selfnodeclient", "nodeclient"][..]),
            ("system:bootstrap:abcdef", kubelet, &["nodeclient"]),
            ("system:node:a", "kubernetes.io/kube-apiserver-client", &[]),
        ] {
            let found: Vec<_> = recognized(&spec(user, signer), &node()).iter().map(|it| it.subresource).collect();
            assert_eq!(found, wanted, "{user} {signer}");
        }
        let other = RequestedCertificate { organizations: Vec::new(), ..node() };
        assert!(recognized(&spec("system:node:a", kubelet), &other).is_empty());
    }

    #[test]
    fn certificates_live_as_long_as_asked_within_limits() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let now = hours(1000);
        let begin = now - BACKDATED;
        for (asked, end) in [
            (None, begin + DURATION_MAX),
            (Some(2_000_000_000), begin + DURATION_MAX),
            (Some(86_400), begin + hours(24)),
            (Some(3600), now + hours(1)),
            (Some(1), now + DURATION_MIN),
            (Some(-5), now + DURATION_MIN),
        ] {
            assert_eq!(validity(asked, DURATION_MAX, now), begin..end, "{asked:?}");
        }
        assert_eq!(validity(Some(86_400), hours(2), now), begin..now + hours(2));
    }
}
