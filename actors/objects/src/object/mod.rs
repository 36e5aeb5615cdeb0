//! A stored object: its JSON as it is sent, and beside it what the machinery asks of every object.
//!
//! ```text
//! store:  {"metadata":{"name":"a","uid":"…"},…}                            without resourceVersion
//! here:   {"metadata":{"name":"a","resourceVersion":"7","uid":"…"},…}      what every reader and watcher is sent
//!           ▲ the header is places in these bytes, found in one pass, no tree
//! ```

mod header;
mod members;
mod scan;
mod selectable;
#[cfg(test)]
mod tests;
mod version;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use self::header::Header;
pub use self::header::Owner;
pub use self::members::{Member, members};
pub use self::selectable::Selectable;

/// Why bytes are no stored object. Ours always are; these come from a store that somebody else wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// Not JSON, or not an object.
    #[error("stored bytes are no JSON object (at byte {at})")]
    Malformed {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
    /// Larger than places can point into.
    #[error("a stored object of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// An object as it is sent, with its header. Copies share it.
#[derive(Debug, Clone)]
pub struct Object(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    header: Header,
}

impl Object {
    /// Takes what a store holds and the revision it was written at.
    pub fn from_stored(stored: &[u8], revision: u64, selectable: &Selectable) -> Result<Self, ObjectError> {
        if u32::try_from(stored.len()).is_err() {
            return Err(ObjectError::TooLarge { bytes: stored.len() });
        }
        let (mut header, place) = Header::parse(stored, selectable)?;
        let (bytes, from, by) = place.ok_or(ObjectError::Malformed { at: 0 })?.put(stored, revision);
        header.shift(from, by)?;
        header.resource_version = revision;
        Ok(Self(Arc::new(Inner { bytes: Bytes::from(bytes), header })))
    }

    /// Takes an object as it is sent.
    pub fn parse(bytes: Bytes, selectable: &Selectable) -> Result<Self, ObjectError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(ObjectError::TooLarge { bytes: bytes.len() });
        }
        let (header, _) = Header::parse(&bytes, selectable)?;
        Ok(Self(Arc::new(Inner { bytes, header })))
    }

    /// The compact JSON that clients are sent.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Whether these bytes are what a store holds of it.
    pub fn is_stored_as(&self, stored: &[u8]) -> bool {
        // Ours have one field more, somewhere. Most writes change something, and that is seen without reading JSON.
        let own = &*self.0.bytes;
        let head = own.iter().zip(stored).take_while(|(own, stored)| own == stored).count();
        let tail = own.iter().rev().zip(stored.iter().rev()).take_while(|(own, stored)| own == stored).count();
        head + tail >= stored.len()
            && Self::from_stored(stored, self.resource_version(), &Selectable::default())
                .is_ok_and(|object| object.0.bytes == self.0.bytes)
    }

    /// Namespace and name as bytes, for those who put many objects in order.
    pub fn key_bytes(&self) -> (&[u8], &[u8]) {
        let Inner { bytes, header } = &*self.0;
        (header.raw(header.namespace, bytes), header.raw(header.name, bytes))
    }

    /// The whole object as a tree, for those who change it.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.0.bytes).unwrap_or_default()
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.text(self.0.header.name)
    }

    /// Namespace; empty for objects of the cluster.
    pub fn namespace(&self) -> &str {
        self.text(self.0.header.namespace)
    }

    /// The id of this life of the object.
    pub fn uid(&self) -> &str {
        self.text(self.0.header.uid)
    }

    /// The store's revision of the last write; zero when it is none that we gave.
    pub fn resource_version(&self) -> u64 {
        self.0.header.resource_version
    }

    /// Counts the changes of the specification; zero for kinds that don't count.
    pub fn generation(&self) -> i64 {
        self.0.header.generation
    }

    /// When deletion was asked for, RFC 3339; none for objects that stay.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.0.header.deletion_timestamp.map(|piece| self.text(piece))
    }

    /// Seconds from the wish to delete until the end; none for objects that stay.
    pub fn deletion_grace_seconds(&self) -> Option<i64> {
        self.0.header.deletion_grace_seconds
    }

    /// Labels in the order of the document, which is sorted in ours.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.header.labels.iter().map(|(key, value)| (self.text(*key), self.text(*value)))
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Who must agree before the object goes.
    pub fn finalizers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.header.finalizers.iter().map(|piece| self.text(*piece))
    }

    /// What the object belongs to.
    pub fn owners(&self) -> impl ExactSizeIterator<Item = Owner<'_>> {
        self.0.header.owners.iter().map(|owner| owner.resolve(|piece| self.text(piece)))
    }

    /// The value of a field selector's label, the same as upstream compares: text, also for numbers and booleans. None
    /// when the resource does not have the selector.
    pub fn selected<'a>(&'a self, label: &str, selectable: &'a Selectable) -> Option<&'a str> {
        match label {
            "metadata.name" => return Some(self.name()),
            "metadata.namespace" => return Some(self.namespace()),
            _ => {}
        }
        let index = selectable.position(label)?;
        let found = self.0.header.selected.get(index).copied().flatten();
        Some(found.map_or(selectable.absent(index), |piece| self.text(piece)))
    }

    /// Bytes of memory that the object takes, its JSON included.
    pub fn memory_bytes(&self) -> usize {
        // Two counters stand before what an `Arc` shares; the JSON has its own, made by `Bytes`.
        size_of::<Inner>() + 2 * size_of::<usize>() + self.0.bytes.len() + self.0.header.heap_bytes()
    }

    fn text(&self, piece: header::Piece) -> &str {
        self.0.header.text(piece, &self.0.bytes)
    }
}

/// What a store keeps of an object: compact JSON without `metadata.resourceVersion`, which is the store's own number.
pub fn stored_bytes(mut value: Value) -> Vec<u8> {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    crate::decode::to_bytes(&value)
}
