//! `--kube-apiserver-arg`: which flags of kube-apiserver mean something here.
//!
//! What means nothing here is refused by name, with the reason.

use std::time::Duration;

use k3sd_client::arguments::Rule::{Lists, Only, Refused, Sets};
use k3sd_client::arguments::{self, ArgumentError, Rule, boolean, count, duration, list, text};

use crate::config::ApiServerConfig;

const ELSEWHERE: &str = "k3sd has a flag of its own for it";
const PROCESS: &str = "k3sd is one process, and its own flags decide about files, logs and profiles";
const STORAGE: &str = "the datastore is k3sd's own, and set up with --datastore-endpoint";
const CACHES: &str = "watch caches size themselves";
const LATER: &str = "it isn't there yet";
const NO_CLOUD: &str = "there is no cloud provider in here";

/// All flags that mean something, or are worth a reason.
const FLAGS: &[(&str, Rule<ApiServerConfig>)] = &[
    ("admission-control-config-file", Refused(LATER)),
    ("advertise-address", Refused(ELSEWHERE)),
    ("aggregator-reject-forwarding-redirect", Only(&["true"])),
    ("allow-privileged", Sets(|config, value| boolean(value).map(|on| config.allow_privileged = on))),
    ("anonymous-auth", Sets(|config, value| boolean(value).map(|on| config.anonymous = on))),
    ("api-audiences", Lists(|config| &mut config.audiences)),
    ("audit-log-compress", Refused(LATER)),
    ("audit-log-format", Refused(LATER)),
    ("audit-log-maxage", Refused(LATER)),
    ("audit-log-maxbackup", Refused(LATER)),
    ("audit-log-maxsize", Refused(LATER)),
    ("audit-log-path", Refused(LATER)),
    ("audit-policy-file", Refused(LATER)),
    ("audit-webhook-config-file", Refused(LATER)),
    ("authentication-config", Refused(LATER)),
    ("authentication-token-webhook-config-file", Refused(LATER)),
    ("authorization-config", Refused(LATER)),
    ("authorization-mode", Only(&["Node,RBAC"])),
    ("authorization-webhook-config-file", Refused(LATER)),
    ("bind-address", Refused(ELSEWHERE)),
    ("cert-dir", Refused(PROCESS)),
    ("client-ca-file", Refused(ELSEWHERE)),
    ("cloud-config", Refused(NO_CLOUD)),
    ("cloud-provider", Refused(NO_CLOUD)),
    ("contention-profiling", Refused(PROCESS)),
    ("cors-allowed-origins", Refused(LATER)),
    (
        "default-not-ready-toleration-seconds",
        Sets(|config, value| whole(value).map(|time| config.toleration_seconds.0 = time)),
    ),
    (
        "default-unreachable-toleration-seconds",
        Sets(|config, value| whole(value).map(|time| config.toleration_seconds.1 = time)),
    ),
    ("default-watch-cache-size", Refused(CACHES)),
    ("delete-collection-workers", Refused("a collection is deleted as fast as the store writes")),
    ("disable-admission-plugins", Lists(|config| &mut config.admission_off)),
    ("egress-selector-config-file", Refused(ELSEWHERE)),
    ("enable-admission-plugins", Lists(|config| &mut config.admission_on)),
    ("enable-aggregator-routing", Refused(LATER)),
    ("enable-bootstrap-token-auth", Sets(|config, value| boolean(value).map(|on| config.bootstrap_tokens = on))),
    ("enable-garbage-collector", Only(&["true"])),
    ("enable-priority-and-fairness", Only(&["true"])),
    ("encryption-provider-config", Refused(ELSEWHERE)),
    ("endpoint-reconciler-type", Only(&["lease"])),
    ("etcd-cafile", Refused(STORAGE)),
    ("etcd-certfile", Refused(STORAGE)),
    ("etcd-compaction-interval", Sets(|config, value| duration(value).map(|time| config.compaction_interval = time))),
    ("etcd-count-metric-poll-period", Refused(STORAGE)),
    ("etcd-keyfile", Refused(STORAGE)),
    ("etcd-prefix", Only(&["/registry"])),
    ("etcd-servers", Refused(STORAGE)),
    ("event-ttl", Sets(|config, value| duration(value).map(|ttl| config.event_ttl = ttl))),
    ("feature-gates", Refused("features are as they are in Kubernetes v1.34 by default")),
    ("goaway-chance", Only(&["0"])),
    ("http2-max-streams-per-connection", Refused("there is one limit for all connections")),
    ("kubelet-certificate-authority", Refused(ELSEWHERE)),
    ("kubelet-client-certificate", Refused(ELSEWHERE)),
    ("kubelet-client-key", Refused(ELSEWHERE)),
    ("livez-grace-period", Only(&["0", "0s"])),
    ("log-flush-frequency", Refused(PROCESS)),
    ("logging-format", Refused(PROCESS)),
    ("max-connection-bytes-per-sec", Only(&["0"])),
    ("max-mutating-requests-inflight", Sets(|config, value| count(value).map(|count| config.in_flight.1 = count))),
    ("max-requests-inflight", Sets(|config, value| count(value).map(|count| config.in_flight.0 = count))),
    ("min-request-timeout", Sets(|config, value| seconds(value).map(|time| config.watch_timeout_min = time))),
    ("oidc-issuer-url", Refused(LATER)),
    ("permit-address-sharing", Refused(PROCESS)),
    ("permit-port-sharing", Refused(PROCESS)),
    ("profiling", Only(&["false"])),
    ("proxy-client-cert-file", Refused(ELSEWHERE)),
    ("proxy-client-key-file", Refused(ELSEWHERE)),
    ("request-timeout", Sets(|config, value| duration(value).map(|time| config.request_timeout = time))),
    ("requestheader-allowed-names", Lists(|config| &mut config.front_proxy.allowed_names)),
    ("requestheader-client-ca-file", Refused(ELSEWHERE)),
    ("requestheader-extra-headers-prefix", Lists(|config| &mut config.front_proxy.extra_prefixes)),
    ("requestheader-group-headers", Lists(|config| &mut config.front_proxy.group_headers)),
    ("requestheader-uid-headers", Lists(|config| &mut config.front_proxy.uid_headers)),
    ("requestheader-username-headers", Lists(|config| &mut config.front_proxy.name_headers)),
    ("runtime-config", Sets(runtime_config)),
    ("secure-port", Refused(ELSEWHERE)),
    (
        "service-account-extend-token-expiration",
        Sets(|config, value| boolean(value).map(|on| config.token_extension = on)),
    ),
    ("service-account-issuer", Lists(|config| &mut config.issuers)),
    ("service-account-jwks-uri", Sets(|config, value| text(value).map(|uri| config.jwks_uri = Some(uri)))),
    ("service-account-key-file", Refused(ELSEWHERE)),
    ("service-account-lookup", Only(&["true"])),
    (
        "service-account-max-token-expiration",
        Sets(|config, value| duration(value).map(|time| config.token_lifetime_max = Some(time))),
    ),
    ("service-account-signing-key-file", Refused(ELSEWHERE)),
    ("service-cluster-ip-range", Refused(ELSEWHERE)),
    ("service-node-port-range", Refused(ELSEWHERE)),
    ("shutdown-delay-duration", Sets(|config, value| duration(value).map(|time| config.shutdown_delay = time))),
    ("shutdown-send-retry-after", Only(&["false"])),
    ("storage-backend", Only(&["etcd3"])),
    ("storage-media-type", Only(&["application/json"])),
    (
        "strict-transport-security-directives",
        Sets(|config, value| list(value).map(|all| config.strict_transport_security = Some(all.join("; ")))),
    ),
    ("tls-cert-file", Refused(ELSEWHERE)),
    ("tls-cipher-suites", Lists(|config| &mut config.tls.suites)),
    ("tls-min-version", Sets(|config, value| text(value).map(|version| config.tls.version_min = Some(version)))),
    ("tls-private-key-file", Refused(ELSEWHERE)),
    ("tls-sni-cert-key", Refused(LATER)),
    ("token-auth-file", Refused("read the file, and pass its users on")),
    ("tracing-config-file", Refused(PROCESS)),
    ("v", Refused(PROCESS)),
    ("vmodule", Refused(PROCESS)),
    ("watch-cache", Only(&["true"])),
    ("watch-cache-sizes", Refused(CACHES)),
];

/// The flag whose file the caller reads: [`ApiServerConfig::static_tokens`].
pub const TOKEN_AUTH_FILE: &str = "token-auth-file";

/// What K3s sets of the flags with one value.
const INITIAL: &[(&str, &str)] =
    &[("allow-privileged", "true"), ("anonymous-auth", "false"), ("enable-bootstrap-token-auth", "true")];

/// Applies arguments; see [`arguments::apply_all`].
///
/// # Errors
/// See [`ArgumentError`]. Some of the arguments may be applied then.
pub fn apply<'a>(
    config: &mut ApiServerConfig,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<(), ArgumentError> {
    arguments::apply_all("kube-apiserver", FLAGS, INITIAL, config, arguments)
}

fn whole(value: &str) -> Result<i64, &'static str> {
    value.parse().map_err(|_| "a number of seconds")
}

fn seconds(value: &str) -> Result<Duration, &'static str> {
    value.parse().map(Duration::from_secs).map_err(|_| "a number of seconds")
}

fn runtime_config(config: &mut ApiServerConfig, value: &str) -> Result<(), &'static str> {
    let mut found = Vec::new();
    for entry in list(value)? {
        let (name, on) = entry.split_once('=').unwrap_or((&entry, "true"));
        found.push((name.to_owned(), boolean(on).map_err(|_| "a list such as api/all=false,apps/v1=true")?));
    }
    config.runtime_config.extend(found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(arguments: &[&str]) -> Result<ApiServerConfig, ArgumentError> {
        let mut config = ApiServerConfig::default();
        apply(&mut config, arguments.iter().copied()).map(|()| config)
    }

    #[test]
    fn what_maps_to_a_setting_works() {
        let config = applied(&[
            "anonymous-auth",
            "--event-ttl=30m",
            "max-requests-inflight=7",
            "runtime-config=api/beta=true,apps/v1=false",
            "enable-admission-plugins+=AlwaysPullImages, EventRateLimit",
            "tls-min-version=VersionTLS13",
            "service-account-issuer=https://a",
            "service-account-issuer=https://b",
            "authorization-mode=Node,RBAC",
            "default-not-ready-toleration-seconds=10",
        ])
        .expect("all of them mean something");
        assert!(config.anonymous && config.runtime_config["api/beta"] && !config.runtime_config["apps/v1"]);
        assert_eq!((config.event_ttl, config.in_flight), (Duration::from_secs(1800), (7, 200)));
        assert_eq!(config.admission_on, ["NodeRestriction", "AlwaysPullImages", "EventRateLimit"]);
        assert_eq!(config.issuers, ["https://a", "https://b"]);
        assert_eq!(config.toleration_seconds, (10, 300));
        assert_eq!(config.tls.version_min.as_deref(), Some("VersionTLS13"));
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (argument, message) in [
            ("no-such-flag=1", "kube-apiserver has no flag --no-such-flag"),
            (
                "authorization-mode=AlwaysAllow",
                "--authorization-mode: \"AlwaysAllow\" is not the one value that it has here",
            ),
            ("event-ttl=soon", "--event-ttl: \"soon\" is not a duration such as 90s or 1h30m"),
            ("max-requests-inflight=0", "--max-requests-inflight: \"0\" is not a number above zero"),
        ] {
            assert_eq!(applied(&[argument]).expect_err(argument).to_string(), message);
        }
        let refused = applied(&["etcd-servers=http://x"]).expect_err("ours");
        assert!(matches!(&refused, ArgumentError::Refused { name, .. } if name == "etcd-servers"), "{refused}");
    }

    #[test]
    fn the_table_is_sorted_and_names_each_flag_once() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn versions_are_served_by_the_most_exact_entry() {
        let beta =
            k3sd_objects::schema::resources().iter().find(|it| it.version.contains("beta")).expect("there is one");
        assert!(!ApiServerConfig::default().serves(beta));
        assert!(applied(&["runtime-config=api/beta"]).unwrap().serves(beta));
        let off = format!("runtime-config=api/beta=true,{}=false", beta.api_version());
        assert!(!applied(&[&off]).unwrap().serves(beta));
        let one = format!("runtime-config=api/all=false,{}/{}=true", beta.api_version(), beta.plural);
        assert!(applied(&[&one]).unwrap().serves(beta));
    }
}
