//! What the cluster's names lead to: pure. [`Editor`] belongs to the one who keeps it equal to the API; copies of its
//! [`Zone`] are published, and answers are read from those.

mod answer;
mod records;
mod shards;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) use self::answer::{Asked, Verdict, answer, reverse_address, soa};
pub(crate) use self::records::{Change, Place, Service, Slice, namespace, service, slice};
use self::shards::{Shards, hash_of};

/// A Service with its endpoints. There may be endpoints without one.
#[derive(Clone, Debug)]
struct Entry {
    /// Name and namespace as labels.
    key: Arc<[u8]>,
    service: Option<Arc<Service>>,
    slices: Box<[Arc<Slice>]>,
}

/// Who has an address.
#[derive(Clone, Debug)]
struct Owner {
    address: IpAddr,
    /// The Service itself, or one that it is an endpoint of.
    key: Arc<[u8]>,
    is_service: bool,
}

/// All that answers are made of. Never changes; copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    entries: Shards<Arc<Entry>>,
    owners: Shards<Owner>,
    namespaces: Shards<Box<[u8]>>,
    /// Everything was listed once.
    pub(crate) is_synced: bool,
    /// What the zone says of its version: the time of the last change, in seconds since 1970.
    pub(crate) serial: u32,
}

impl Zone {
    fn entry(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.entries.at(hash_of(key)).find(|entry| *entry.key == *key)
    }

    /// Whether there is such a namespace, given as a label with its length.
    fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.at(hash_of(label)).any(|known| **known == *label)
    }

    fn owners_of(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.owners.at(hash_of(address)).filter(move |owner| owner.address == address)
    }
}

/// Which of the lists something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Services,
    Slices,
    Namespaces,
}

/// Keeps a zone equal to what it is told.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    zone: Zone,
    /// The Service that each EndpointSlice was filed under.
    slice_owners: HashMap<Box<str>, Arc<[u8]>>,
    /// While a list is read: what it has named so far.
    listed_services: Option<HashSet<Arc<[u8]>>>,
    listed_slices: Option<HashSet<Box<str>>>,
    listed_namespaces: Option<HashSet<Box<[u8]>>>,
    done: HashSet<u8>,
    /// Services, and addresses of Services and endpoints.
    counts: (usize, usize),
}

impl Editor {
    /// A copy to publish.
    pub(crate) fn zone(&self) -> Zone {
        self.zone.clone()
    }

    /// Whether everything was listed once.
    pub(crate) fn is_synced(&self) -> bool {
        self.zone.is_synced
    }

    /// How many Services there are, and how many addresses of Services and endpoints.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.counts
    }

    /// Notes when it was changed.
    pub(crate) fn set_serial(&mut self, seconds: u64) {
        // SOA serials wrap around; that is what they are made for.
        self.zone.serial = seconds as u32;
    }

    /// A list of such things begins: what it doesn't name is gone when it ends.
    pub(crate) fn list_begins(&mut self, kind: Kind) {
        match kind {
            Kind::Services => self.listed_services = Some(HashSet::new()),
            Kind::Slices => self.listed_slices = Some(HashSet::new()),
            Kind::Namespaces => self.listed_namespaces = Some(HashSet::new()),
        }
    }

    /// It was read to its end.
    pub(crate) fn list_ends(&mut self, kind: Kind) {
        match kind {
            Kind::Services => {
                let listed = self.listed_services.take().unwrap_or_default();
                let known = self.zone.entries.iter().filter(|entry| entry.service.is_some());
                let gone: Vec<_> = known.map(|entry| entry.key.clone()).filter(|key| !listed.contains(key)).collect();
                gone.into_iter().for_each(|key| self.apply(Change::Service { key, service: None }));
            }
            Kind::Slices => {
                let listed = self.listed_slices.take().unwrap_or_default();
                let gone: Vec<_> = self.slice_owners.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                gone.into_iter().for_each(|key| self.apply(Change::Slice { key, owner: None, slice: None }));
                self.slice_owners.shrink_to_fit();
            }
            Kind::Namespaces => {
                let listed = self.listed_namespaces.take().unwrap_or_default();
                let known: Vec<_> =
                    self.zone.namespaces.iter().filter(|name| !listed.contains(*name)).cloned().collect();
                known.into_iter().for_each(|name| self.apply(Change::Namespace { name, exists: false }));
            }
        }
        self.done.insert(kind as u8);
        self.zone.is_synced = self.done.len() == 3;
    }

    /// Takes a change over. The cost doesn't depend on how much there is.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Service { key, service } => {
                if let (Some(listed), Some(_)) = (&mut self.listed_services, &service) {
                    listed.insert(key.clone());
                }
                let service = service.map(Arc::new);
                self.change_entry(&key, |entry| entry.service = service);
            }
            Change::Slice { key, owner, slice } => {
                if let (Some(listed), Some(_)) = (&mut self.listed_slices, &slice) {
                    listed.insert(key.clone());
                }
                self.apply_slice(key, owner, slice);
            }
            Change::Namespace { name, exists } => {
                if let (Some(listed), true) = (&mut self.listed_namespaces, exists) {
                    listed.insert(name.clone());
                }
                let hash = hash_of(&*name);
                self.zone.namespaces.remove(hash, |known| *known == name);
                if exists {
                    self.zone.namespaces.insert(hash, name);
                }
            }
        }
    }

    fn apply_slice(&mut self, key: Box<str>, owner: Option<Arc<[u8]>>, slice: Option<Slice>) {
        let name = key.split_once('/').map_or(&*key, |(_, name)| name).to_owned();
        // It may have belonged to another Service until now.
        if let Some(old) = self.slice_owners.get(&key).filter(|old| owner.as_ref() != Some(*old)).cloned() {
            self.slice_owners.remove(&key);
            self.change_entry(&old, |entry| {
                entry.slices = entry.slices.iter().filter(|slice| *slice.name != *name).cloned().collect();
            });
        }
        let (Some(owner), Some(slice)) = (owner, slice) else { return };
        let slice = Arc::new(slice);
        let owner = self.change_entry(&owner, |entry| {
            let others = entry.slices.iter().filter(|slice| *slice.name != *name).cloned();
            entry.slices = others.chain([slice]).collect();
        });
        if let Some(owner) = owner {
            self.slice_owners.insert(key, owner);
        }
    }

    /// Changes an entry, and who has which address with it. The key of the entry, if there is anything left of it.
    fn change_entry(&mut self, key: &Arc<[u8]>, change: impl FnOnce(&mut Entry)) -> Option<Arc<[u8]>> {
        let hash = hash_of(&**key);
        let old = self.zone.entries.remove(hash, |entry| entry.key == *key);
        let mut entry = match &old {
            Some(old) => Entry::clone(old),
            None => Entry { key: key.clone(), service: None, slices: Box::default() },
        };
        change(&mut entry);
        let before = old.as_deref().map(addresses).unwrap_or_default();
        let after = addresses(&entry);
        let is_service = |entry: &Entry| usize::from(entry.service.is_some());
        self.counts.0 = self.counts.0 + is_service(&entry) - old.as_deref().map_or(0, is_service);
        self.counts.1 = self.counts.1 + after.len() - before.len();
        for (address, is_service) in before.difference(&after) {
            let is_meant =
                |owner: &Owner| owner.address == *address && owner.is_service == *is_service && owner.key == entry.key;
            self.zone.owners.remove(hash_of(address), is_meant);
        }
        for (address, is_service) in after.difference(&before) {
            let owner = Owner { address: *address, key: entry.key.clone(), is_service: *is_service };
            self.zone.owners.insert(hash_of(address), owner);
        }
        if entry.service.is_none() && entry.slices.is_empty() {
            return None;
        }
        let key = entry.key.clone();
        self.zone.entries.insert(hash, Arc::new(entry));
        Some(key)
    }
}

/// The addresses of a Service, and those of its endpoints.
fn addresses(entry: &Entry) -> HashSet<(IpAddr, bool)> {
    let own = match entry.service.as_deref() {
        Some(Service { place: Place::Addresses(all), .. }) => &**all,
        _ => &[],
    };
    let endpoints = entry.slices.iter().flat_map(|slice| &slice.endpoints);
    own.iter().map(|address| (*address, true)).chain(endpoints.map(|endpoint| (endpoint.address, false))).collect()
}
