//! The same random requests to an etcd cluster and to the store in memory, the reference: the same answers, to the
//! revision. Both begin at revision 1, so no number has to be translated.

use k3sd_datastore::{
    AnyBackend, Backend, Change, CountRequest, GetRequest, Key, KeyRange, ListRequest, Memory, Precondition, Revision,
    StoreError, Ttl, WriteRequest,
};

use super::{open, single};
use crate::subject::{Random, events, rev, revision, value, watch};

/// Keys that are prefixes of each other, some on either side, and bounds that mean something to etcd.
const KEYS: &[&str] = &["\0", "a", "a/", "a/1", "a/1\0", "a/2", "a0", "b"];
const REQUESTS: usize = 1200;

/// What can be compared of an answer: itself, or what went wrong.
fn shown<T: PartialEq>(result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|error| match error.conflict() {
        // Values are left out of what is printed, not of what has to agree.
        Some(conflict) => format!("{error:?} {:?}", conflict.current.as_ref().map(|kv| kv.value.clone())),
        None => format!("{error:?}"),
    })
}

struct Chance(Random);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.0.below(limit as u64)).unwrap()
    }

    fn key(&mut self) -> Key {
        KEYS[self.below(KEYS.len())].into()
    }

    /// Any revision up to some that have not come yet, most of them none at all: now.
    fn at(&mut self, current: Revision) -> Option<Revision> {
        let any = rev(i64::try_from(self.below(usize::try_from(current.get()).unwrap() + 4)).unwrap() - 1);
        (self.below(3) == 0).then_some(any)
    }

    fn range(&mut self) -> KeyRange {
        match self.below(5) {
            0 => KeyRange::all(),
            1 => KeyRange::prefix(self.key()),
            2 => KeyRange::one(self.key()),
            3 => KeyRange::from(self.key()),
            _ => KeyRange::half_open(self.key(), self.key()),
        }
    }

    async fn write(&mut self, number: usize, reference: &Memory) -> WriteRequest {
        let key = self.key();
        let current = reference.get(GetRequest { key: key.clone(), at: None }).await.unwrap();
        let right = current.kv.map_or(current.revision, |kv| kv.mod_revision).get();
        let precondition = match self.below(6) {
            0 => Precondition::None,
            1 => Precondition::Absent,
            2 => Precondition::At(rev(i64::try_from(self.below(5)).unwrap() - 2 + right)),
            3 => Precondition::At(Revision::ZERO),
            _ => Precondition::At(rev(right)),
        };
        let ttl = Ttl::seconds(if self.below(4) == 0 { 1000 } else { 0 });
        let change = match self.below(4) {
            0 => Change::Delete,
            _ => Change::Put { value: value(&number.to_string()), ttl },
        };
        WriteRequest { key, change, precondition }
    }

    fn list(&mut self, current: Revision) -> ListRequest {
        ListRequest {
            range: self.range(),
            at: self.at(current),
            after: (self.below(3) == 0).then(|| self.key()),
            limit: (self.below(2) == 0).then(|| self.below(6)),
            keys_only: self.below(3) == 0,
            expiring_only: self.below(3) == 0,
        }
    }
}

pub(crate) async fn it_agrees_with_the_store_in_memory() {
    let cluster = single();
    let (store, reference) = (open(&cluster).await, Memory::new());
    let mut chance = Chance(Random::new(7));
    let mut compacted = Revision::ZERO;
    for number in 0..REQUESTS {
        let current = revision(&reference).await;
        match chance.below(10) {
            0 => {
                let request = GetRequest { key: chance.key(), at: chance.at(current) };
                let expected = shown(reference.get(request.clone()).await);
                assert_eq!(shown(store.get(request.clone()).await), expected, "{number}: {request:?}");
            }
            1 => {
                let request = CountRequest { range: chance.range(), at: chance.at(current) };
                let expected = shown(reference.count(request.clone()).await);
                assert_eq!(shown(store.count(request.clone()).await), expected, "{number}: {request:?}");
            }
            2 | 3 => {
                let request = chance.list(current);
                let expected = shown(reference.list(request.clone()).await);
                assert_eq!(shown(store.list(request.clone()).await), expected, "{number}: {request:?}");
            }
            4 if chance.below(10) == 0 => {
                let target = chance.at(current).unwrap_or(current.previous());
                let expected = shown(reference.compact(target).await);
                assert_eq!(shown(store.compact(target).await), expected, "{number}: compact {target}");
                compacted = reference.status().await.unwrap().compacted;
                assert_eq!(store.status().await.unwrap().compacted, compacted);
            }
            _ => {
                let request = chance.write(number, &reference).await;
                let expected = shown(reference.write(request.clone()).await);
                assert_eq!(shown(store.write(request.clone()).await), expected, "{number}: {request:?}");
            }
        }
    }
    let current = revision(&reference).await;
    println!("{REQUESTS} requests made {current} revisions, of which {compacted} were compacted");
    // Another store, which has seen nothing, has to get it all from etcd.
    let late = open(&cluster).await;
    for from in [compacted.next(), rev(compacted.get().midpoint(current.get())).next(), current] {
        let expected = past(&reference, from, current).await;
        assert_eq!(past(&store, from, current).await, expected, "from {from}");
        assert_eq!(past(&late, from, current).await, expected, "from {from}");
    }
}

/// All events from a revision up to another one.
async fn past(
    store: &(impl Backend + Clone),
    from: Revision,
    to: Revision,
) -> Vec<std::sync::Arc<k3sd_datastore::Event>> {
    let store = AnyBackend::new(store.clone());
    let count = usize::try_from(to.get() - from.get()).unwrap() + 1;
    events(&mut watch(&store, "", Some(from)).await, count).await
}
