//! Which families of addresses a Service has, and how its fields about that fit together.
//!
//! A Service goes from one family to two, or back, only if somebody says so: by its policy, or by what it lists.

use k3sd_objects::status::field::{Error, Path};
use serde_json::{Value, json};

use super::ranges::Family;
use crate::special::read::{text, texts};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";
/// In place of an address: the Service has none.
const NONE: &str = "None";

/// The families of the cluster, the one that Services get by default first. At least one, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Families(pub(crate) Vec<Family>);

impl Families {
    fn has(&self, family: Family) -> bool {
        self.0.contains(&family)
    }
}

/// Whether it is a name for something outside of the cluster.
pub(crate) fn is_external_name(service: &Value) -> bool {
    text(service, "/spec/type") == "ExternalName"
}

/// Whether clients find the pods themselves.
pub(crate) fn is_headless(service: &Value) -> bool {
    cluster_ips(service).first() == Some(&NONE)
}

/// The addresses, or `None` alone.
pub(crate) fn cluster_ips(service: &Value) -> Vec<&str> {
    texts(service, "/spec/clusterIPs")
}

/// The names of the families.
pub(crate) fn families(service: &Value) -> Vec<&str> {
    texts(service, "/spec/ipFamilies")
}

fn policy(service: &Value) -> &str {
    text(service, "/spec/ipFamilyPolicy")
}

fn has_selector(service: &Value) -> bool {
    service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty())
}

fn spec(field: &str) -> Path {
    Path::new("spec").child(field)
}

/// Puts a list into the specification; an empty one is left out, as everywhere.
pub(crate) fn set_list(service: &mut Value, field: &str, list: &[String]) {
    let Some(spec) = service["spec"].as_object_mut() else { return };
    if list.is_empty() {
        spec.remove(field);
    } else {
        spec.insert(field.to_owned(), json!(list));
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Whether nothing about addresses changes in a Service that has as many families as there happened to be.
pub(crate) fn keeps_preferred(new: &Value, old: &Value) -> bool {
    let addressed = ["ClusterIP", "NodePort", "LoadBalancer"].contains(&text(new, "/spec/type"));
    addressed
        && text(new, "/spec/type") == text(old, "/spec/type")
        && policy(new) == PREFER
        && ["", PREFER].contains(&policy(old))
        && cluster_ips(new) == cluster_ips(old)
        && families(new) == families(old)
}

/// Fills in policy and families, and refuses what doesn't fit together. `old` is what the Service was, if it was.
///
/// # Errors
/// The faults of its fields. The Service may be half filled in then.
pub(crate) fn fill_in(new: &mut Value, old: Option<&Value>, cluster: &Families) -> Result<(), Vec<Error>> {
    if is_external_name(new) || old.is_some_and(|old| keeps_preferred(new, old)) {
        return Ok(());
    }
    let free = text(new, "/spec/clusterIP") == NONE && !has_selector(new);
    if policy(new).is_empty() {
        let kept = old.map(policy).filter(|policy| !policy.is_empty());
        let policy = kept.unwrap_or(if free { REQUIRE } else { SINGLE });
        new["spec"]["ipFamilyPolicy"] = policy.into();
    }
    faulty(check(new))?;
    let mut errors = Vec::new();
    if let Some(old) = old {
        reduce(new, old, &mut errors);
    }
    check_single(new, &mut errors);
    infer(new, cluster, &mut errors);
    faulty(errors)?;
    if free {
        let mut list = owned(&families(new));
        if list.is_empty() {
            list.push(cluster.0[0].word().to_owned());
        }
        add_other(&mut list, policy(new) != SINGLE);
        set_list(new, "ipFamilies", &list);
        return Ok(());
    }
    faulty(configured(new, cluster))?;
    let mut list = owned(&families(new));
    if list.is_empty() {
        list.push(cluster.0[0].word().to_owned());
    }
    add_other(&mut list, policy(new) != SINGLE && cluster.0.len() == 2);
    set_list(new, "ipFamilies", &list);
    Ok(())
}

fn faulty(errors: Vec<Error>) -> Result<(), Vec<Error>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn add_other(list: &mut Vec<String>, wanted: bool) {
    if let (true, [only]) = (wanted, list.as_slice())
        && let Some(family) = Family::parse(only)
    {
        list.push(family.other().word().to_owned());
    }
}

/// A Service that goes back to one family loses the second of what it has; otherwise nothing is lost in passing.
fn reduce(new: &mut Value, old: &Value, errors: &mut Vec<Error>) {
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let list = |service: &Value| owned(&texts(&service["spec"][field], ""));
        let (now, before) = (list(new), list(old));
        if policy(new) == SINGLE {
            if now == before && now.len() > 1 {
                set_list(new, field, &now[..1]);
            }
        } else if !now.is_empty() && now.len() < before.len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(Error::invalid(&spec("ipFamilyPolicy"), policy(new), detail));
        }
    }
}

fn check_single(service: &Value, errors: &mut Vec<Error>) {
    if policy(service) != SINGLE {
        return;
    }
    for (count, what) in [(cluster_ips(service).len(), "cluster IPs"), (families(service).len(), "IP families")] {
        if count == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(Error::invalid(&spec("ipFamilyPolicy"), SINGLE, detail));
        }
    }
}

/// Takes families that aren't listed from the addresses.
fn infer(service: &mut Value, cluster: &Families, errors: &mut Vec<Error>) {
    let mut list = owned(&families(service));
    let addresses = owned(&cluster_ips(service));
    for (index, address) in addresses.iter().enumerate().skip(list.len()) {
        let Ok(address) = address.parse() else { break };
        let family = Family::of(address);
        if cluster.has(family) {
            list.push(family.word().to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            errors.push(Error::invalid(&spec("clusterIPs").index(index), json!(addresses), detail));
        }
    }
    set_list(service, "ipFamilies", &list);
}

fn configured(service: &Value, cluster: &Families) -> Vec<Error> {
    let mut errors = Vec::new();
    if policy(service) == REQUIRE && cluster.0.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(&spec("ipFamilyPolicy"), REQUIRE, detail));
    }
    for (index, family) in families(service).into_iter().enumerate() {
        if !Family::parse(family).is_some_and(|family| cluster.has(family)) {
            errors.push(Error::invalid(&spec("ipFamilies").index(index), family, "not configured on this cluster"));
        }
    }
    errors
}

/// Whether addresses, families and policy can be read at all, each alone and with the others.
fn check(service: &Value) -> Vec<Error> {
    let mut errors = Vec::new();
    let (single, addresses) = (text(service, "/spec/clusterIP"), cluster_ips(service));
    match (single, addresses.first()) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(Error::invalid(&spec("clusterIPs"), json!(addresses), detail));
        }
        ("", None) => {}
        (_, None) => errors.push(Error::required(&spec("clusterIPs"), "")),
        (single, Some(first)) if single != *first => {
            errors.push(Error::invalid(&spec("clusterIPs"), json!(addresses), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let listed = families(service);
    for (index, family) in listed.iter().enumerate() {
        let place = spec("ipFamilies").index(index);
        if Family::parse(family).is_none() {
            errors.push(Error::not_supported(&place, *family, &["IPv4", "IPv6"]));
        }
        if listed[..index].contains(family) {
            errors.push(Error::duplicate(&place, *family));
        }
    }
    if !["", SINGLE, PREFER, REQUIRE].contains(&policy(service)) {
        errors.push(Error::not_supported(&spec("ipFamilyPolicy"), policy(service), &[PREFER, REQUIRE, SINGLE]));
    }
    check_addresses(&addresses, &listed, &mut errors);
    errors
}

fn check_addresses(addresses: &[&str], listed: &[&str], errors: &mut Vec<Error>) {
    let place = spec("clusterIPs");
    let mut readable = true;
    let mut found = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        if index == 0 && *address == NONE {
            if addresses.len() > 1 {
                readable = false;
                errors.push(Error::invalid(&place, json!(addresses), "'None' must be the first and only value"));
            }
            continue;
        }
        match address.parse() {
            Ok(address) => found.push(Family::of(address)),
            Err(_) => {
                readable = false;
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(Error::invalid(&place.index(index), *address, detail));
            }
        }
    }
    if addresses.len() > 2 {
        errors.push(Error::invalid(&place, json!(addresses), "may only hold up to 2 values"));
    }
    if !readable {
        return;
    }
    if found.len() > 1 && (found.len() > 2 || found[0] == found[1]) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid(&place, json!(addresses), detail));
    }
    if !errors.is_empty() {
        return;
    }
    for (index, (family, wanted)) in found.iter().zip(listed).enumerate() {
        if family.word() != *wanted {
            let article = "expected an";
            let detail = format!("{article} {wanted} value as indicated by `ipFamilies[{index}]`");
            errors.push(Error::invalid(&place.index(index), addresses[index], detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: &[Family] = &[Family::V4];
    const SIX: &[Family] = &[Family::V6];
    const BOTH: &[Family] = &[Family::V4, Family::V6];

    fn filled(cluster: &[Family], old: Option<Value>, spec: Value) -> Result<Value, String> {
        let mut service = json!({"spec": spec});
        let old = old.map(|spec| json!({"spec": spec}));
        match fill_in(&mut service, old.as_ref(), &Families(cluster.to_vec())) {
            Ok(()) => Ok(service["spec"].clone()),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn new_services() {
        let selector = json!({"a": "b"});
        for (cluster, spec, families, policy) in [
            (FOUR, json!({}), json!(["IPv4"]), SINGLE),
            (SIX, json!({}), json!(["IPv6"]), SINGLE),
            (BOTH, json!({}), json!(["IPv4"]), SINGLE),
            (BOTH, json!({"ipFamilyPolicy": PREFER}), json!(["IPv4", "IPv6"]), PREFER),
            (BOTH, json!({"ipFamilyPolicy": PREFER, "ipFamilies": ["IPv6"]}), json!(["IPv6", "IPv4"]), PREFER),
            (FOUR, json!({"ipFamilyPolicy": PREFER}), json!(["IPv4"]), PREFER),
            (BOTH, json!({"ipFamilyPolicy": REQUIRE}), json!(["IPv4", "IPv6"]), REQUIRE),
            (BOTH, json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}), json!(["IPv6"]), SINGLE),
            (FOUR, json!({"clusterIP": NONE, "clusterIPs": [NONE], "selector": selector}), json!(["IPv4"]), SINGLE),
            (FOUR, json!({"clusterIP": NONE, "clusterIPs": [NONE]}), json!(["IPv4", "IPv6"]), REQUIRE),
            (
                FOUR,
                json!({"clusterIP": NONE, "clusterIPs": [NONE], "ipFamilies": ["IPv6"]}),
                json!(["IPv6", "IPv4"]),
                REQUIRE,
            ),
        ] {
            let mut spec = spec;
            spec["type"] = json!("ClusterIP");
            let found = filled(cluster, None, spec.clone()).unwrap_or_else(|error| panic!("{spec}: {error}"));
            assert_eq!((&found["ipFamilies"], text(&found, "/ipFamilyPolicy")), (&families, policy), "{spec}");
        }
        let external = filled(BOTH, None, json!({"type": "ExternalName"})).expect("left alone");
        assert_eq!(external, json!({"type": "ExternalName"}));
    }

    #[test]
    fn refusals() {
        for (cluster, old, spec, expected) in [
            (
                FOUR,
                None,
                json!({"ipFamilyPolicy": REQUIRE}),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                FOUR,
                None,
                json!({"ipFamilies": ["IPv6"]}),
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                FOUR,
                None,
                json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
            ),
            (
                BOTH,
                None,
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
              multiple IP families are specified",
            ),
            (
                BOTH,
                None,
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
                "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`",
            ),
            (
                BOTH,
                None,
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"], "ipFamilyPolicy": PREFER}),
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
            ),
            (
                BOTH,
                None,
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ),
            (
                BOTH,
                None,
                json!({"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": PREFER}),
                "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            ),
            (
                BOTH,
                Some(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": REQUIRE})),
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": REQUIRE}),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP",
            ),
        ] {
            let mut spec = spec;
            spec["type"] = json!("ClusterIP");
            assert_eq!(filled(cluster, old, spec).expect_err("refused"), expected);
        }
    }

    #[test]
    fn changes_of_the_policy() {
        let single = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": SINGLE});
        let mut up = single.clone();
        up["ipFamilyPolicy"] = json!(PREFER);
        let up = filled(BOTH, Some(single), up).expect("upgraded");
        assert_eq!((&up["ipFamilies"], &up["clusterIPs"]), (&json!(["IPv4", "IPv6"]), &json!(["10.0.0.1"])));

        let mut dual = up;
        dual["clusterIPs"] = json!(["10.0.0.1", "fd00::1"]);
        let mut down = dual.clone();
        down["ipFamilyPolicy"] = json!(SINGLE);
        let down = filled(BOTH, Some(dual.clone()), down).expect("downgraded");
        assert_eq!((&down["ipFamilies"], &down["clusterIPs"]), (&json!(["IPv4"]), &json!(["10.0.0.1"])));

        // The cluster lost a family: a Service that merely preferred two keeps what it has.
        assert_eq!(filled(FOUR, Some(dual.clone()), dual.clone()), Ok(dual));
    }
}
