//! Between etcd's messages and the store's: pure.
//!
//! One key is special. API servers agree on who compacts by comparing the *version* of `compact_rev_key`, which the
//! store does not count, and whose name is the store's own in kine's table. As kine does, it is kept under another name,
//! with the version in front of the value.

use bytes::Bytes;
use k3sd_datastore::{Event, EventKind, Key, KeyRange, KeyValue, Revision, StoreError, Ttl};
use tonic::{Code, Status};

use crate::error::StoreAbsent;
use crate::wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::wire::etcdserverpb::{RangeRequest, ResponseHeader};
use crate::wire::mvccpb;

/// What clients call the key.
const MARKER: &[u8] = b"compact_rev_key";
/// What the store calls it.
const MARKER_STORED: &[u8] = b"compact_rev_key_apiserver";

/// Answers a transaction that can't be carried out exactly.
pub(crate) fn unsupported_txn() -> Status {
    Status::invalid_argument("etcdserver: unsupported operations in txn request")
}

/// etcd's words for what the store says.
pub(crate) fn status_of(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
        StoreError::FutureRevision { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
        }
        StoreError::Conflict(_) => Status::failed_precondition("etcdserver: duplicate key given in txn request"),
        StoreError::Invalid { reason } => Status::invalid_argument(format!("etcdserver: {reason}")),
        StoreError::Unknown { .. } => Status::unavailable("etcdserver: request timed out"),
        StoreError::Full { .. } => Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
        StoreError::Unreachable { .. } => Status::unavailable("etcdserver: no leader"),
        StoreError::Locked { .. } | StoreError::Closed => Status::unavailable("etcdserver: server stopped"),
        StoreError::Damaged { .. } => Status::new(Code::DataLoss, "etcdserver: corrupt cluster"),
        StoreError::Database { .. } => Status::internal(format!("etcdserver: {error}")),
    }
}

/// The store is between two lives.
pub(crate) fn absent(_: StoreAbsent) -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// A header at a revision of the store.
pub(crate) fn header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.get(), raft_term: 1, ..ResponseHeader::default() })
}

/// The store's name of a key.
pub(crate) fn key(name: &Bytes) -> Result<Key, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    Ok(if is_marker(name) { Key::new(MARKER_STORED) } else { Key::new(name.clone()) })
}

/// Whether this is the key that is kept with a version.
pub(crate) fn is_marker(name: &[u8]) -> bool {
    name == MARKER
}

/// The keys that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// One key.
    One(Key),
    /// All keys in between.
    Range(KeyRange),
}

impl Target {
    /// Understands etcd's pair of key and end.
    pub(crate) fn new(name: &Bytes, range_end: &Bytes) -> Result<Self, Status> {
        let start = key(name)?;
        Ok(match range_end.as_ref() {
            [] => Self::One(start),
            [0] => Self::Range(KeyRange::from(Key::new(name.clone()))),
            _ => Self::Range(KeyRange::half_open(Key::new(name.clone()), Key::new(range_end.clone()))),
        })
    }

    /// As a range.
    pub(crate) fn range(&self) -> KeyRange {
        match self {
            Self::One(key) => KeyRange::one(key.clone()),
            Self::Range(range) => range.clone(),
        }
    }
}

/// The revision to read at; zero is now.
pub(crate) fn at(revision: i64) -> Option<Revision> {
    (revision > 0).then(|| Revision::new(revision))
}

/// The number of seconds that a value lives after its last write. For kine that is all that a lease is.
pub(crate) fn ttl(lease: i64) -> Result<Ttl, Status> {
    let seconds = u32::try_from(lease).map_err(|_| Status::not_found("etcdserver: requested lease not found"))?;
    Ok(Ttl::seconds(seconds))
}

/// The version of an ordinary key. Versions are not counted, but the first is known.
pub(crate) fn version(kv: &KeyValue) -> i64 {
    i64::from(kv.create_revision == kv.mod_revision)
}

/// Whether this is what is kept of that key.
pub(crate) fn is_kept_marker(kv: &KeyValue) -> bool {
    kv.key.as_bytes() == MARKER_STORED
}

/// A key as clients see it.
pub(crate) fn kv(kv: &KeyValue) -> mvccpb::KeyValue {
    let (key, value, version) = if is_kept_marker(kv) {
        let (version, value) = split_marker(&kv.value);
        (Bytes::from_static(MARKER), value, version)
    } else {
        (Bytes::copy_from_slice(kv.key.as_bytes()), kv.value.clone(), version(kv))
    };
    mvccpb::KeyValue {
        key,
        value,
        version,
        create_revision: kv.create_revision.get(),
        mod_revision: kv.mod_revision.get(),
        lease: i64::from(kv.ttl.as_seconds()),
    }
}

/// The version in front of the marker's value, and the value.
pub(crate) fn split_marker(stored: &Bytes) -> (i64, Bytes) {
    let bar = stored.iter().position(|byte| *byte == b'|');
    let version = bar.and_then(|bar| std::str::from_utf8(&stored[..bar]).ok()?.parse().ok());
    match (bar, version) {
        (Some(bar), Some(version)) => (version, stored.slice(bar + 1..)),
        _ => (0, stored.clone()),
    }
}

/// What the marker holds after a client wrote it at `version`.
pub(crate) fn join_marker(version: i64, value: &[u8]) -> Bytes {
    let mut stored = format!("{version}|").into_bytes();
    stored.extend_from_slice(value);
    stored.into()
}

/// A change as watchers see it.
pub(crate) fn event(event: &Event, with_prev: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Create | EventKind::Update => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev_kv = event.prev.as_ref().filter(|_| with_prev).map(kv);
    mvccpb::Event { r#type: kind.into(), kv: Some(kv(&event.kv)), prev_kv }
}

/// Whether a range has to be read whole before it can be answered, because of its order or a filter.
pub(crate) fn needs_all(request: &RangeRequest) -> bool {
    let by_key = request.sort_target() == SortTarget::Key && request.sort_order() != SortOrder::Descend;
    // Without an order etcd sorts nothing, whatever the target.
    let sorted = request.sort_order() == SortOrder::None && request.sort_target() == SortTarget::Key || by_key;
    !sorted || has_filter(request)
}

fn has_filter(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Filters, sorts and cuts what was read whole. Returns whether the limit left any out.
pub(crate) fn arrange(request: &RangeRequest, kvs: &mut Vec<KeyValue>) -> bool {
    let within = |value: Revision, min: i64, max: i64| value.get() >= min && (max == 0 || value.get() <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
    match request.sort_target() {
        // Versions are not counted, so all are alike.
        SortTarget::Key | SortTarget::Version => {}
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|one, other| one.value.cmp(&other.value)),
    }
    if request.sort_order() == SortOrder::Descend {
        kvs.reverse();
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: &str, create: i64, modified: i64, value: &'static str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: Bytes::from_static(value.as_bytes()),
            create_revision: Revision::new(create),
            mod_revision: Revision::new(modified),
            ttl: Ttl::seconds(7),
        }
    }

    #[test]
    fn keys_and_ends_are_etcds() {
        let target = |key: &'static [u8], end: &'static [u8]| {
            Target::new(&Bytes::from_static(key), &Bytes::from_static(end))
                .map_err(|status| status.message().to_owned())
        };
        assert_eq!(target(b"", b""), Err("etcdserver: key is not provided".to_owned()));
        assert_eq!(target(b"a", b""), Ok(Target::One("a".into())));
        assert_eq!(target(b"a", b"\0"), Ok(Target::Range(KeyRange::from("a".into()))));
        assert_eq!(target(b"a", b"b"), Ok(Target::Range(KeyRange::prefix("a"))));
        assert_eq!(target(b"compact_rev_key", b""), Ok(Target::One("compact_rev_key_apiserver".into())));
    }

    #[test]
    fn the_marker_comes_back_under_its_own_name_and_with_its_version() {
        let mut marker = stored("compact_rev_key_apiserver", 1, 2, "");
        marker.value = join_marker(3, b"17|x");
        let seen = kv(&marker);
        assert_eq!((seen.key.as_ref(), seen.value.as_ref(), seen.version), (MARKER, &b"17|x"[..], 3));
        assert_eq!(split_marker(&Bytes::from_static(b"plain")), (0, Bytes::from_static(b"plain")));
        let plain = kv(&stored("a", 1, 2, "v"));
        assert_eq!((plain.version, plain.lease, plain.create_revision, plain.mod_revision), (0, 7, 1, 2));
        assert_eq!(kv(&stored("a", 2, 2, "v")).version, 1);
    }

    #[test]
    fn order_filter_and_limit() {
        let all = || vec![stored("a", 3, 9, "z"), stored("b", 1, 8, "y"), stored("c", 2, 7, "x")];
        let names = |request: &RangeRequest| {
            let mut kvs = all();
            let more = arrange(request, &mut kvs);
            (kvs.iter().map(|kv| kv.key.to_string()).collect::<String>(), more)
        };
        let request = |target: SortTarget, order: SortOrder, limit| RangeRequest {
            sort_target: target.into(),
            sort_order: order.into(),
            limit,
            ..RangeRequest::default()
        };
        assert!(!needs_all(&request(SortTarget::Key, SortOrder::None, 1)));
        assert!(!needs_all(&request(SortTarget::Key, SortOrder::Ascend, 1)));
        assert!(needs_all(&request(SortTarget::Key, SortOrder::Descend, 1)));
        assert!(needs_all(&request(SortTarget::Create, SortOrder::Ascend, 1)));
        assert_eq!(names(&request(SortTarget::Key, SortOrder::Descend, 0)), ("cba".to_owned(), false));
        assert_eq!(names(&request(SortTarget::Create, SortOrder::Ascend, 1)), ("b".to_owned(), true));
        assert_eq!(names(&request(SortTarget::Mod, SortOrder::Ascend, 3)), ("cba".to_owned(), false));
        assert_eq!(names(&request(SortTarget::Value, SortOrder::Descend, 2)), ("ab".to_owned(), true));
        let filter = RangeRequest { min_mod_revision: 8, max_create_revision: 1, ..RangeRequest::default() };
        assert!(needs_all(&filter));
        assert_eq!(names(&filter), ("b".to_owned(), false));
    }

    #[test]
    fn errors_have_etcds_words() {
        let compacted = StoreError::Compacted { requested: Revision::new(1), compacted: Revision::new(2) };
        let status = status_of(&compacted);
        assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(ttl(-1).expect_err("no lease").code(), Code::NotFound);
        assert_eq!(ttl(5).expect("a lease"), Ttl::seconds(5));
        assert_eq!(ttl(3 << 32 | 60).expect_err("it was not looked up").code(), Code::NotFound);
    }
}
