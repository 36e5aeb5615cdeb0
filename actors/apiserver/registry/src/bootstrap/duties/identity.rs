//! A lease by which others see that this server lives; and the end of leases of servers that don't.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_objects::object::Object;
use k3sd_objects::status::{Reason, Status};
use serde_json::{Value, json};

use super::ensure;
use crate::api::Api;
use crate::bootstrap::keeper::Duty;
use crate::special::local;
use crate::special::read::{number, text};

/// How often the lease is renewed; upstream's.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a server counts as there that doesn't renew, in seconds; upstream's.
const LEASE_SECONDS: i64 = 3600;
const LABEL: &str = "apiserver.kubernetes.io/identity";
const NAMESPACE: &str = "kube-system";

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The name of the machine.
    pub(crate) host: String,
    /// Tells this life of the server from others.
    pub(crate) life: String,
}

/// The name of the lease: it is the same for the same machine.
fn name(host: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, host.as_bytes());
    format!("apiserver-{}", base32(&digest.as_ref()[..16]))
}

/// RFC 4648's base32 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut text, mut bits, mut count) = (String::new(), 0_u32, 0);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(LETTERS[(bits >> count & 31) as usize]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(LETTERS[(bits << (5 - count) & 31) as usize]));
    }
    text
}

/// A moment as leases say it, in microseconds.
fn micro_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

impl Identity {
    fn holder(&self) -> String {
        format!("{}_{}", name(&self.host), self.life)
    }

    fn lease(&self, now: Timestamp) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name(&self.host),
                "namespace": NAMESPACE,
                "labels": {LABEL: "kube-apiserver", "kubernetes.io/hostname": self.host},
            },
            "spec": {
                "holderIdentity": self.holder(),
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": micro_time(now),
            },
        })
    }
}

impl Duty for Identity {
    const HOOK: &'static str = "start-kube-apiserver-identity-lease-controller";

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    async fn perform(&self, api: &Api) -> Result<Option<Duration>, Status> {
        let now = local::now(api);
        if let Some(mut lease) = ensure(api, local::LEASES, &self.lease(now)).await? {
            lease["spec"]["holderIdentity"] = self.holder().into();
            lease["spec"]["leaseDurationSeconds"] = LEASE_SECONDS.into();
            lease["spec"]["renewTime"] = micro_time(now).into();
            match local::update(api, local::LEASES, &lease).await {
                // Somebody wrote a label; next time.
                Err(status) if status.reason != Reason::Conflict => return Err(status),
                _ => {}
            }
        }
        let snapshot = local::snapshot(api, local::LEASES);
        let ours = name(&self.host);
        let others = snapshot.in_namespace(NAMESPACE).filter(|lease| lease.label(LABEL).is_some());
        let ended: Vec<Value> = others
            .filter(|lease| lease.name() != ours)
            .map(Object::value)
            .filter(|lease| is_over(lease, now))
            .collect();
        for lease in ended {
            let options = local::only(&lease);
            match local::delete(api, local::LEASES, NAMESPACE, text(&lease, "/metadata/name"), Some(&options)).await {
                Err(status) if ![Reason::Conflict, Reason::NotFound].contains(&status.reason) => return Err(status),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Whether whoever held the lease is gone. A lease without a time is nobody's.
fn is_over(lease: &Value, now: Timestamp) -> bool {
    let renewed = text(lease, "/spec/renewTime").parse::<Timestamp>();
    renewed.map_or(true, |time| time.as_second() + number(lease, "/spec/leaseDurationSeconds") < now.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        // RFC 4648, section 10.
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(name("a").len(), "apiserver-".len() + 26);
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("b"));
    }

    #[test]
    fn leases_end() {
        let identity = Identity { host: "h".to_owned(), life: "1".to_owned() };
        let now: Timestamp = "2025-01-02T03:04:05.678901Z".parse().expect("time");
        let lease = identity.lease(now);
        assert_eq!(text(&lease, "/spec/renewTime"), "2025-01-02T03:04:05.678901Z");
        let later = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).expect("time");
        assert!(!is_over(&lease, later(3600)) && is_over(&lease, later(3601)) && is_over(&json!({}), now));
    }
}
