//! What the cluster's names lead to: pure. [`Editor`] belongs to the one who keeps it equal to the API; copies of its
//! [`Zone`] are published, and answers are read from those.

mod answer;
mod packed;
mod records;
mod shards;

use std::collections::HashSet;
use std::net::IpAddr;

pub(crate) use self::answer::{Asked, Verdict, answer, reverse_address, soa};
use self::packed::{Entry, pack_service, pack_slice, slice_view};
pub(crate) use self::records::{Change, SliceKey, namespace, service, slice};
use self::shards::{Filed, Shards, filed};

/// All that answers are made of. Never changes; copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    entries: Shards<Entry>,
    /// Where entries are filed that have an address, by the address.
    owners: Shards<Filed>,
    namespaces: Shards<Box<[u8]>>,
    /// Everything was listed once.
    pub(crate) is_synced: bool,
    /// What the zone says of its version: the time of the last change, in seconds since 1970.
    pub(crate) serial: u32,
}

impl Zone {
    fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.at(filed(key)).find(|entry| entry.key() == key)
    }

    /// Whether there is such a namespace, given as a label with its length.
    fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.at(filed(label)).any(|known| **known == *label)
    }

    /// The entries that have an address, of the Service or of an endpoint.
    fn with_address(&self, address: IpAddr) -> impl Iterator<Item = &Entry> {
        let entries = self.owners.at(filed(address)).flat_map(move |at| self.entries.at(*at));
        entries.filter(move |entry| entry.addresses().any(|known| known == address))
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
    /// Where the entries are filed that have an EndpointSlice, by its key.
    slice_owners: Shards<Filed>,
    /// While a list is read: what there was before it, and hasn't been named yet.
    missing_services: HashSet<Box<[u8]>>,
    missing_slices: HashSet<SliceKey>,
    missing_namespaces: HashSet<Box<[u8]>>,
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
        let Zone { entries, namespaces, .. } = &self.zone;
        match kind {
            Kind::Services => {
                let known = entries.iter().filter(|entry| entry.service().is_some());
                self.missing_services = known.map(|entry| entry.key().into()).collect();
            }
            Kind::Slices => self.missing_slices = entries.iter().flat_map(slice_keys).collect(),
            Kind::Namespaces => self.missing_namespaces = namespaces.iter().cloned().collect(),
        }
    }

    /// It was read to its end.
    pub(crate) fn list_ends(&mut self, kind: Kind) {
        match kind {
            Kind::Services => {
                let gone = std::mem::take(&mut self.missing_services);
                gone.into_iter().for_each(|key| self.apply(Change::Service { key, service: None }));
            }
            Kind::Slices => {
                let gone = std::mem::take(&mut self.missing_slices);
                gone.into_iter().for_each(|key| self.apply(Change::Slice { key, owner: None, slice: None }));
            }
            Kind::Namespaces => {
                let gone = std::mem::take(&mut self.missing_namespaces);
                gone.into_iter().for_each(|name| self.apply(Change::Namespace { name, exists: false }));
            }
        }
        self.done.insert(kind as u8);
        self.zone.is_synced = self.done.len() == 3;
    }

    /// Takes a change over. The cost doesn't depend on how much there is, but for the Service itself.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Service { key, service } => {
                self.missing_services.remove(&key);
                let packed = service.map(|service| pack_service(&service)).unwrap_or_default();
                self.edit(&key, Edit::Service(&packed));
            }
            Change::Slice { key, owner, slice } => {
                self.missing_slices.remove(&key);
                self.apply_slice(&key, owner.as_deref(), slice);
            }
            Change::Namespace { name, exists } => {
                self.missing_namespaces.remove(&name);
                let at = filed(&*name);
                self.zone.namespaces.remove(at, |known| *known == name);
                if exists {
                    self.zone.namespaces.insert(at, name);
                }
            }
        }
    }

    fn apply_slice(&mut self, key: &SliceKey, owner: Option<&[u8]>, slice: Option<records::Slice>) {
        let at = filed(key);
        // It may have belonged to another Service until now.
        if let Some(old) = self.owner_of(key).filter(|old| owner != Some(&**old)) {
            self.slice_owners.remove(at, |known| *known == filed(&*old));
            self.edit(&old, Edit::Slice { name: &key.1, packed: None });
        }
        let (Some(owner), Some(slice)) = (owner, slice) else { return };
        if self.owner_of(key).is_none() {
            self.slice_owners.insert(at, filed(owner));
        }
        self.edit(owner, Edit::Slice { name: &key.1, packed: Some(&pack_slice(&slice)) });
    }

    /// The key of the entry that an EndpointSlice is in.
    fn owner_of(&self, key: &SliceKey) -> Option<Box<[u8]>> {
        let mut entries = self.slice_owners.at(filed(key)).flat_map(|at| self.zone.entries.at(*at));
        let has = |entry: &&Entry| {
            namespace_of(entry.key()) == &*key.0 && entry.slices().any(|slice| slice.name == key.1.as_bytes())
        };
        entries.find(has).map(|entry| entry.key().into())
    }

    /// Changes an entry, and who has which address with it.
    fn edit(&mut self, key: &[u8], edit: Edit<'_>) {
        let at = filed(key);
        let old = self.zone.entries.remove(at, |entry| entry.key() == key);
        let mut service = old.as_ref().map(Entry::service_bytes).unwrap_or_default();
        let mut slices: Vec<&[u8]> = old.iter().flat_map(Entry::slice_bytes).collect();
        match edit {
            Edit::Service(packed) => service = packed,
            Edit::Slice { name, packed } => {
                slices.retain(|slice| slice_view(slice).name != name.as_bytes());
                slices.extend(packed);
            }
        }
        let is_empty = service.is_empty() && slices.is_empty();
        let new = (!is_empty).then(|| Entry::new(key, service, &slices));
        let addresses = |entry: &Option<Entry>| entry.iter().flat_map(Entry::addresses).collect::<HashSet<IpAddr>>();
        let (before, after) = (addresses(&old), addresses(&new));
        let count = |entry: &Option<Entry>| usize::from(entry.as_ref().is_some_and(|entry| entry.service().is_some()));
        self.counts.0 = self.counts.0 + count(&new) - count(&old);
        self.counts.1 = self.counts.1 + after.len() - before.len();
        for address in before.difference(&after) {
            self.zone.owners.remove(filed(address), |known| *known == at);
        }
        for address in after.difference(&before) {
            self.zone.owners.insert(filed(address), at);
        }
        if let Some(entry) = new {
            self.zone.entries.insert(at, entry);
        }
    }
}

/// What changes about an entry.
#[derive(Clone, Copy, Debug)]
enum Edit<'a> {
    /// The Service is this, packed; empty if there is none any more.
    Service(&'a [u8]),
    /// The slice of this name is this; nothing if it is gone.
    Slice { name: &'a str, packed: Option<&'a [u8]> },
}

/// The namespace in the key of an entry, as a label with its length.
fn namespace_of(key: &[u8]) -> &[u8] {
    let name = key.first().map_or(0, |length| 1 + usize::from(*length));
    key.get(name..).unwrap_or_default()
}

/// The keys of the slices of an entry.
fn slice_keys(entry: &Entry) -> impl Iterator<Item = SliceKey> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
    entry.slices().map(move |slice| (namespace_of(entry.key()).into(), name(slice.name)))
}
