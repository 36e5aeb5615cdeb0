//! Pods and templates of pods.

mod containers;
mod environment;
mod mounts;
mod probes;
mod scheduling;
mod security;
mod update;
mod volumes;

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3sd_objects::names;
use k3sd_objects::status::field::Error;

use super::Context;
use super::meta;
use super::read::{At, Errors};
use super::resources;

pub(super) use self::probes::check_port;
pub(super) use self::scheduling::{EFFECTS, check_node_selector, check_selector, check_tolerations};
pub(super) use self::update::{check_binding, check_ephemeral_update, check_resize, check_status, check_update};
pub(super) use self::volumes::{check_descending, check_volume_source};

/// Name servers that a pod can bring.
const NAME_SERVERS_MAX: usize = 3;

/// Search domains that a pod can bring.
const SEARCH_DOMAINS_MAX: usize = 32;

/// All search domains of a pod, with spaces between.
const SEARCH_DOMAINS_BYTES_MAX: usize = 2048;

/// What parts of a pod's spec need to know of the rest.
struct Pod<'a> {
    spec: At<'a>,
    /// Names of the pod's claims on devices.
    claims: Vec<&'a str>,
    /// `terminationGracePeriodSeconds`.
    grace: i64,
}

impl<'a> Pod<'a> {
    fn new(spec: At<'a>) -> Self {
        let claims = spec.items("resourceClaims").map(|claim| claim.text("name")).collect();
        let grace = spec.number("terminationGracePeriodSeconds").unwrap_or_default();
        Self { spec, claims, grace }
    }

    /// The volume with a name.
    fn volume(&self, name: &str) -> Option<At<'a>> {
        self.spec.items("volumes").find(|volume| volume.text("name") == name)
    }

    /// The names of containers in these lists.
    fn names(&self, lists: &[&str]) -> BTreeSet<&'a str> {
        lists.iter().flat_map(|list| self.spec.items(list)).map(|container| container.text("name")).collect()
    }

    /// Whether its users are those of the node.
    fn host_users(&self) -> bool {
        !self.spec.has("hostUsers") || self.spec.flag("hostUsers")
    }
}

/// A pod that is about to be created.
pub(super) fn check_create(object: &At<'_>, context: &Context, out: &mut Errors) {
    check_pod(object, context, out);
    let spec = object.field("spec");
    if spec.count("ephemeralContainers") > 0 {
        out.push(spec.forbidden("ephemeralContainers", "cannot be set on create"));
    }
    if !spec.text("nodeName").is_empty() && spec.count("schedulingGates") > 0 {
        out.push(spec.forbidden("nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
}

/// A pod's spec, with what is asked of pods and not of templates.
fn check_pod(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    check_spec(&spec, context, out);
    if spec.text("serviceAccountName").is_empty() {
        let sources = spec.items("volumes").flat_map(|volume| volume.field("projected").items("sources"));
        for token in sources.filter_map(|source| source.set("serviceAccountToken")) {
            out.push(token.forbidden("", "must not be specified when serviceAccountName is not set"));
        }
    }
    for container in spec.items("containers").chain(spec.items("initContainers")) {
        containers::check_image_edges(&container, out);
    }
}

/// A template of pods: labels, annotations and spec.
pub(super) fn check_template(template: &At<'_>, context: &Context, out: &mut Errors) {
    let metadata = template.field("metadata");
    meta::check_labels(&metadata, "labels", out);
    if let Some(annotations) = metadata.get("annotations").as_object() {
        out.extend(names::check_annotations(annotations, &template.place("annotations")));
    }
    check_spec(&template.field("spec"), context, out);
    if template.field("spec").count("ephemeralContainers") > 0 {
        out.push(
            template.field("spec").forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template"),
        );
    }
}

/// The spec of a pod or of a template.
fn check_spec(spec: &At<'_>, context: &Context, out: &mut Errors) {
    let pod = Pod::new(spec.clone());
    volumes::check(spec, out);
    check_device_claims(spec, out);
    containers::check(&pod, context, out);
    spec.required_of("restartPolicy", &["Always", "OnFailure", "Never"], out);
    spec.required_of("dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], out);
    scheduling::check_node_labels(spec, out);
    check_host_network(spec, out);
    security::check_pod(&pod, out);
    for secret in spec.items("imagePullSecrets").filter(|secret| secret.text("name").is_empty()) {
        out.push(secret.required("name", ""));
    }
    scheduling::check_affinity(spec, out);
    check_dns(spec, out);
    scheduling::check_gates(spec, out);
    scheduling::check_spreading(spec, out);
    check_host_users(&pod, out);
    check_scalars(spec, out);
    scheduling::check_tolerations(spec, out);
    check_host_aliases(spec, out);
    spec.optional("priorityClassName", names::dns_subdomain, out);
    if spec.has("runtimeClassName") {
        spec.syntax("runtimeClassName", names::dns_subdomain, out);
    }
    spec.optional_of("preemptionPolicy", &["Never", "PreemptLowerPriority"], out);
    for (name, amount) in spec.entries("overhead") {
        resources::check_container_name(name, &amount, out);
        resources::check_amount(name, &amount, out);
    }
    if let Some(os) = spec.set("os") {
        os.required_of("name", &["linux", "windows"], out);
    }
}

fn check_scalars(spec: &At<'_>, out: &mut Errors) {
    spec.optional("serviceAccountName", names::dns_subdomain, out);
    spec.optional("nodeName", names::dns_subdomain, out);
    if spec.has("activeDeadlineSeconds") {
        spec.in_range("activeDeadlineSeconds", 1, i64::from(i32::MAX), out);
    }
    spec.optional("hostname", names::dns_label, out);
    spec.optional("subdomain", names::dns_label, out);
}

fn check_device_claims(spec: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in spec.items("resourceClaims") {
        claim.name("name", names::dns_label, out);
        if !claim.text("name").is_empty() && !seen.insert(claim.text("name")) {
            out.push(claim.duplicate("name"));
        }
        match (claim.set("resourceClaimName"), claim.set("resourceClaimTemplateName")) {
            (Some(_), Some(_)) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                out.push(claim.invalid("", detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                out.push(claim.invalid("", detail));
            }
            (Some(name), None) | (None, Some(name)) => name.syntax("", names::dns_subdomain, out),
        }
    }
}

/// With the network of the node, a port of a container is that of the node.
fn check_host_network(spec: &At<'_>, out: &mut Errors) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for list in ["containers", "initContainers"] {
        for port in spec.items(list).flat_map(|container| container.items("ports")) {
            if port.number("hostPort").unwrap_or_default() != port.number("containerPort").unwrap_or_default() {
                // Upstream names the list here, not the port.
                let place = At { value: port.get("containerPort"), path: spec.place(list) };
                out.push(place.invalid_number("", "must match `hostPort` when `hostNetwork` is true"));
            }
        }
    }
}

/// Users of its own exclude the other namespaces of the node.
fn check_host_users(pod: &Pod<'_>, out: &mut Errors) {
    if pod.host_users() {
        return;
    }
    for name in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.spec.flag(name) {
            let detail = format!("when `hostUsers` is false, `{name}` must not be set");
            out.push(pod.spec.forbidden(name, detail));
        }
    }
}

fn check_dns(spec: &At<'_>, out: &mut Errors) {
    let config = spec.field("dnsConfig");
    if spec.text("dnsPolicy") == "None" && config.count("nameservers") == 0 {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        out.push(config.required(if config.has("") { "nameservers" } else { "" }, detail));
    }
    let (servers, searches) = (config.count("nameservers"), config.count("searches"));
    if servers > NAME_SERVERS_MAX {
        let detail = format!("must not have more than {NAME_SERVERS_MAX} nameservers");
        out.push(config.invalid("nameservers", detail));
    }
    for server in config.items("nameservers").filter(|server| server.text("").parse::<IpAddr>().is_err()) {
        out.push(server.invalid("", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
    if searches > SEARCH_DOMAINS_MAX {
        let detail = format!("must not have more than {SEARCH_DOMAINS_MAX} search paths");
        out.push(config.invalid("searches", detail));
    }
    let bytes: usize = config.texts("searches").map(|domain| domain.len() + 1).sum();
    if bytes.saturating_sub(1) > SEARCH_DOMAINS_BYTES_MAX {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        out.push(config.invalid("searches", detail));
    }
    for domain in config.items("searches") {
        if domain.text("") != "." {
            domain.syntax("", |text| search_domain(text.strip_suffix('.').unwrap_or(text)), out);
        }
    }
    for option in config.items("options").filter(|option| option.text("name").is_empty()) {
        out.push(Error::required(&option.path, "must not be empty"));
    }
}

/// A name of DNS in which underscores are let through.
fn search_domain(text: &str) -> names::Faults {
    names::dns_subdomain(&text.replace('_', "a"))
}

fn check_host_aliases(spec: &At<'_>, out: &mut Errors) {
    for alias in spec.items("hostAliases") {
        if alias.text("ip").parse::<IpAddr>().is_err() {
            out.push(alias.invalid("ip", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
        }
        for host in alias.items("hostnames") {
            // Upstream doesn't say which one of the list it is.
            let host = At { value: host.value, path: alias.place("hostnames") };
            host.syntax("", names::dns_subdomain, out);
        }
    }
}
