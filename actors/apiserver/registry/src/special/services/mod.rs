//! Addresses and ports of Services: who gets which, when a Service is made, changed or deleted.
//!
//! ```text
//! claim ─▶ carry, families ─▶ addresses (an IPAddress each) ─▶ ports (one RangeAllocation) ─▶ Claim
//!                                                 the Service is validated and written
//! Claim::keep      what the Service doesn't need any more is given back
//! Claim::release   it wasn't written: what it got is given back
//! ```
//!
//! An address belongs to whoever creates the `IPAddress` of that name, a port to whoever sets its bit: the store decides
//! between two servers. Whoever dies between the steps leaves something behind, which `repair` mends.

mod carry;
pub(crate) mod families;
pub(crate) mod ports;
pub(crate) mod ranges;

use std::net::IpAddr;

use k3sd_apiserver_store::ListQuery;
use k3sd_client::storage::{Change, Precondition, StorageError, Write};
use k3sd_objects::object::Object;
use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::{Qualified, Reason, Status};
use serde_json::{Value, json};

use self::families::{Families, cluster_ips, is_external_name, is_headless};
use self::ports::{PortChange, Ports};
pub use self::ports::{PortRange, PortRangeError};
use self::ranges::AddressError;
pub use self::ranges::{Family, Range, RangeError};
use super::local;
use super::read::{items, text};
use crate::api::Api;

/// Who makes `IPAddress`es for Services.
pub(crate) const MANAGED_BY: &str = "ipallocator.k8s.io";
pub(crate) const LABEL_MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(crate) const LABEL_FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// How often ports are tried to be written when others write them too.
const PORT_ATTEMPTS: u32 = 32;

/// What a Service that is being written has got so far. Nothing of it is given back unless one of the two ends is called.
#[must_use = "what was taken stays taken until it is kept or released"]
pub(crate) struct Claim<'a> {
    api: &'a Api,
    addresses: Vec<String>,
    addresses_to_release: Vec<String>,
    ports: PortChange,
}

impl<'a> Claim<'a> {
    fn new(api: &'a Api) -> Self {
        Self { api, addresses: Vec::new(), addresses_to_release: Vec::new(), ports: PortChange::default() }
    }

    /// The Service was written: gives back what it doesn't need any more.
    pub(crate) async fn keep(self) {
        release(self.api, &self.addresses_to_release, &self.ports.released).await;
    }

    /// The Service wasn't written: gives back what it got.
    pub(crate) async fn release(self) {
        release(self.api, &self.addresses, &self.ports.taken).await;
    }
}

/// Gives a Service its addresses and ports, and settles the fields around them. `old` is what it was before, if it was. A
/// trial changes only the fields.
///
/// # Errors
/// 422 for what it may not have, 500 if nothing is left. Nothing is taken then.
pub(crate) async fn claim<'a>(
    api: &'a Api,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Claim<'a>, Status> {
    if let Some(old) = old {
        carry::keep_allocated(new, old);
    }
    carry::agree_on_addresses(new, old);
    let cluster = Families(api.special().service_ranges.iter().map(|range| range.family()).collect());
    families::fill_in(new, old, &cluster).map_err(|errors| invalid(new, &errors))?;
    let mut claim = Claim::new(api);
    let outcome = match take_addresses(api, new, old, dry_run, &mut claim).await {
        Ok(()) => take_ports(api, new, old, dry_run, &mut claim).await,
        Err(status) => Err(status),
    };
    if let Err(status) = outcome {
        claim.release().await;
        return Err(status);
    }
    if let Some(old) = old {
        carry::drop_useless(new, old);
    }
    if dry_run {
        return Ok(Claim::new(api));
    }
    Ok(claim)
}

/// Gives back all that a deleted Service had.
pub(crate) async fn give_back(api: &Api, service: &Value) {
    let mut taken = ports::node_ports(service);
    taken.extend(ports::health_check_port(service));
    release(api, &held_addresses(service), &taken).await;
}

/// The addresses of a Service that has some.
pub(crate) fn held_addresses(service: &Value) -> Vec<String> {
    if is_external_name(service) || is_headless(service) {
        return Vec::new();
    }
    cluster_ips(service).into_iter().map(str::to_owned).collect()
}

fn invalid(service: &Value, errors: &[Error]) -> Status {
    Status::invalid(Qualified::new("", "Service"), text(service, "/metadata/name"), errors)
}

/// What becomes of the addresses: the first index that gets new ones, and what is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AddressPlan {
    Nothing,
    TakeFrom(usize),
    Release(Vec<String>),
}

fn plan(new: &Value, old: Option<&Value>) -> AddressPlan {
    let Some(old) = old else {
        let none = is_external_name(new) || is_headless(new);
        return if none { AddressPlan::Nothing } else { AddressPlan::TakeFrom(0) };
    };
    if families::keeps_preferred(new, old) {
        return AddressPlan::Nothing;
    }
    match (is_external_name(old), is_external_name(new)) {
        (true, true) => return AddressPlan::Nothing,
        (true, false) if is_headless(new) => return AddressPlan::Nothing,
        (true, false) => return AddressPlan::TakeFrom(0),
        (false, _) if is_headless(old) => return AddressPlan::Nothing,
        (false, true) => return AddressPlan::Release(held_addresses(old)),
        (false, false) => {}
    }
    match (families::families(old).len(), families::families(new).len()) {
        (1, 2) => AddressPlan::TakeFrom(1),
        (2, 1) => AddressPlan::Release(held_addresses(old).into_iter().skip(1).collect()),
        _ => AddressPlan::Nothing,
    }
}

async fn take_addresses(
    api: &Api,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
    claim: &mut Claim<'_>,
) -> Result<(), Status> {
    let first = match plan(new, old) {
        AddressPlan::Nothing => return Ok(()),
        AddressPlan::Release(addresses) => {
            claim.addresses_to_release = addresses;
            return Ok(());
        }
        AddressPlan::TakeFrom(first) => first,
    };
    let wanted: Vec<String> = families::families(new).into_iter().map(str::to_owned).collect();
    let mut list: Vec<String> = cluster_ips(new).into_iter().map(str::to_owned).collect();
    for (index, family) in wanted.iter().enumerate().skip(first) {
        let Some(family) = Family::parse(family) else { continue };
        let asked = list.get(index).cloned();
        let got = match &asked {
            Some(asked) => take_this(api, new, asked, dry_run).await.map_err(|error| refused(new, asked, &error))?,
            None => take_any(api, new, family, dry_run)
                .await
                .map_err(|error| Status::internal_error(format!("failed to allocate a serviceIP: {error}")))?,
        };
        if !dry_run {
            claim.addresses.push(got.clone());
        }
        if asked.is_none() {
            list.push(got);
        }
    }
    families::set_list(new, "clusterIPs", &list);
    if let Some(first) = list.first() {
        new["spec"]["clusterIP"] = first.as_str().into();
    }
    Ok(())
}

fn refused(service: &Value, asked: &str, error: &AddressError) -> Status {
    let path = Path::new("spec").child("clusterIPs");
    let detail = format!("failed to allocate IP {asked}: {error}");
    invalid(service, &[Error::invalid(&path, json!(cluster_ips(service)), detail)])
}

/// The ranges that addresses are given out of now. Whoever made one may use it at once.
async fn open_ranges(api: &Api, family: Family) -> Result<Vec<Range>, AddressError> {
    let found = local::list(api, local::SERVICE_CIDRS).await;
    let found = found.map_err(|status| AddressError::Failed(status.message))?;
    let ranges = found.iter().filter(|cidr| is_open(cidr)).flat_map(ranges_of);
    Ok(ranges.filter(|range| range.family() == family).collect())
}

/// The ranges of a `ServiceCIDR`; what can't be read is none.
pub(crate) fn ranges_of(cidr: &Value) -> Vec<Range> {
    items(cidr, "/spec/cidrs").iter().filter_map(Value::as_str).filter_map(|range| range.parse().ok()).collect()
}

/// Whether a `ServiceCIDR` gives out addresses: it isn't said to be unready, and it isn't going.
fn is_open(cidr: &Value) -> bool {
    let unready = |one: &Value| text(one, "/type") == "Ready" && text(one, "/status") != "True";
    cidr["metadata"]["deletionTimestamp"].is_null() && !items(cidr, "/status/conditions").iter().any(unready)
}

async fn take_this(api: &Api, service: &Value, asked: &str, dry_run: bool) -> Result<String, AddressError> {
    let address: IpAddr = asked.parse().map_err(|_| AddressError::Mismatched)?;
    let ranges = open_ranges(api, Family::of(address)).await?;
    let range = ranges.into_iter().find(|range| range.contains(address)).ok_or(AddressError::Mismatched)?;
    range.check(address)?;
    if !dry_run {
        create(api, service, address).await?;
    }
    Ok(address.to_string())
}

async fn take_any(api: &Api, service: &Value, family: Family, dry_run: bool) -> Result<String, AddressError> {
    let ranges = open_ranges(api, family).await?;
    if dry_run {
        // As upstream shows what would be given out: the network's own address.
        return ranges.first().map(|range| range.network().to_string()).ok_or(AddressError::Full);
    }
    let mut rng = api.rng();
    for range in ranges {
        let taken = local::snapshot(api, local::IP_ADDRESSES);
        for address in range.candidates(&mut rng) {
            if taken.get("", &address.to_string()).is_some() {
                continue;
            }
            match create(api, service, address).await {
                Ok(()) => return Ok(address.to_string()),
                // Somebody else was faster.
                Err(AddressError::Allocated) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(AddressError::Full)
}

/// The `IPAddress` that says whose an address is.
pub(crate) fn ip_address(address: IpAddr, service: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {LABEL_FAMILY: Family::of(address).word(), LABEL_MANAGED_BY: MANAGED_BY},
        },
        "spec": {"parentRef": {
            "group": "",
            "resource": "services",
            "namespace": service["metadata"]["namespace"],
            "name": service["metadata"]["name"],
        }},
    })
}

async fn create(api: &Api, service: &Value, address: IpAddr) -> Result<(), AddressError> {
    match local::create(api, local::IP_ADDRESSES, &ip_address(address, service)).await {
        Ok(_) => Ok(()),
        Err(status) if status.reason == Reason::AlreadyExists => Err(AddressError::Allocated),
        Err(status) => Err(AddressError::Failed(status.message)),
    }
}

async fn take_ports(
    api: &Api,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
    claim: &mut Claim<'_>,
) -> Result<(), Status> {
    if !ports::has_node_ports(new) && !old.is_some_and(ports::has_node_ports) {
        return Ok(());
    }
    let mut rng = api.rng();
    let mut decided = None;
    change_ports(api, |ports| {
        let mut service = new.clone();
        let change = match old {
            None => ports::on_create(&mut service, ports, &mut rng)?,
            Some(old) => ports::on_update(&mut service, old, ports, &mut rng)?,
        };
        let written = !dry_run && !change.taken.is_empty();
        decided = Some((service, change));
        Ok(written)
    })
    .await?;
    if let Some((service, change)) = decided {
        *new = service;
        claim.ports = change;
    }
    Ok(())
}

/// Changes which ports are taken: reads, decides, writes if the decision says so, and begins again if somebody else wrote.
pub(crate) async fn change_ports(
    api: &Api,
    mut decide: impl FnMut(&mut Ports) -> Result<bool, Status>,
) -> Result<(), Status> {
    let storage = api.stores().storage();
    for _ in 0..PORT_ATTEMPTS {
        let got = storage.get(ports::KEY.into(), None).await.map_err(|error| stored(&error))?;
        let range = api.special().node_ports;
        let read = got.found.as_ref().and_then(|found| Ports::from_bytes(&found.value, range));
        let mut ports = match read {
            Some(ports) => ports,
            None => ports_of_services(api).await?,
        };
        if !decide(&mut ports)? {
            return Ok(());
        }
        let precondition = got.found.map_or(Precondition::Absent, |found| Precondition::At(found.modified));
        let change = Change::Put { value: ports.to_bytes().into(), ttl: None };
        match storage.write(Write { key: ports::KEY.into(), change, precondition }).await {
            Ok(_) => return Ok(()),
            Err(StorageError::Conflict { .. }) => {}
            Err(error) => return Err(stored(&error)),
        }
    }
    Err(Status::timeout("the ports of nodes are written by too many at once", 1))
}

fn stored(error: &StorageError) -> Status {
    match error {
        StorageError::Unavailable(_) => Status::service_unavailable(error.to_string()).with_retry_after(1),
        StorageError::Unknown(_) => Status::timeout(error, 1),
        _ => Status::internal_error(error),
    }
}

/// The ports that Services have, for when nothing else says which are taken.
async fn ports_of_services(api: &Api) -> Result<Ports, Status> {
    let mut ports = Ports::new(api.special().node_ports);
    for service in services_on_nodes(api).await? {
        for port in ports::node_ports(&service).into_iter().chain(ports::health_check_port(&service)) {
            // Ports out of the range or held twice are for `repair` to tell people about.
            ports.take(i64::from(port)).ok();
        }
    }
    Ok(ports)
}

/// The Services that may have ports of nodes, as they are stored now. The others, which are more, are not even parsed.
pub(crate) async fn services_on_nodes(api: &Api) -> Result<Vec<Value>, Status> {
    let fields = "spec.type!=ClusterIP,spec.type!=ExternalName".parse().map_err(Status::internal_error)?;
    let query = ListQuery { fields, ..ListQuery::default() };
    let page = local::store(api, local::SERVICES)?.list(&query).await?;
    Ok(page.objects.iter().map(Object::value).collect())
}

async fn release(api: &Api, addresses: &[String], node_ports: &[u16]) {
    for address in addresses {
        let deleted = local::delete(api, local::IP_ADDRESSES, "", address, None).await;
        if let Err(status) = deleted.or_else(|status| if local::is_missing(&status) { Ok(()) } else { Err(status) }) {
            tracing::warn!(address, error = %status, "cannot give an address back; it will be found and freed later");
        }
    }
    if node_ports.is_empty() {
        return;
    }
    let freed = change_ports(api, |ports| {
        let taken = node_ports.iter().any(|port| ports.has(*port));
        ports.release(node_ports);
        Ok(taken)
    });
    if let Err(status) = freed.await {
        tracing::warn!(?node_ports, error = %status, "cannot give ports back; they will be found and freed later");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_addresses() {
        let plain = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}});
        let dual = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}});
        let upgraded =
            json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4", "IPv6"]}});
        let headless = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["None"], "ipFamilies": ["IPv4"]}});
        let name = json!({"spec": {"type": "ExternalName"}});
        let release = |list: &[&str]| AddressPlan::Release(list.iter().map(|text| (*text).to_owned()).collect());
        for (new, old, expected) in [
            (&plain, None, AddressPlan::TakeFrom(0)),
            (&headless, None, AddressPlan::Nothing),
            (&name, None, AddressPlan::Nothing),
            (&plain, Some(&name), AddressPlan::TakeFrom(0)),
            (&headless, Some(&name), AddressPlan::Nothing),
            (&name, Some(&dual), release(&["10.0.0.1", "fd00::1"])),
            (&name, Some(&headless), AddressPlan::Nothing),
            (&upgraded, Some(&plain), AddressPlan::TakeFrom(1)),
            (&plain, Some(&dual), release(&["fd00::1"])),
            (&plain, Some(&plain), AddressPlan::Nothing),
            (&headless, Some(&headless), AddressPlan::Nothing),
        ] {
            assert_eq!(plan(new, old), expected, "{old:?} to {new}");
        }
    }

    #[test]
    fn ranges_that_are_open() {
        for (cidr, open) in [
            (json!({}), true),
            (json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}), true),
            (json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}), false),
            (json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}}), false),
        ] {
            assert_eq!(is_open(&cidr), open, "{cidr}");
        }
    }
}
