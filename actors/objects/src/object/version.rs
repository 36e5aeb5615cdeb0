//! Puts the store's number into stored JSON, as `metadata.resourceVersion`.

use std::io::Write as _;

/// The name of the field.
pub(super) const NAME: &[u8] = b"resourceVersion";

/// Where the field stands in stored bytes, or belongs in the order of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// There is no metadata: as its only field, before what begins here.
    Outside(usize),
    /// The metadata that begins here is empty.
    Alone(usize),
    /// Before a field that begins here.
    Before(usize),
    /// Behind a field that ends here.
    Behind(usize),
    /// In the place of an older number.
    Instead {
        /// Where its name begins.
        start: usize,
        /// Where its value ends.
        end: usize,
    },
}

impl Place {
    /// After another field of the metadata was passed, or the field itself: the last smaller name decides.
    pub(super) fn pass(&mut self, name: &[u8], start: usize, end: usize) {
        if name == NAME {
            *self = Self::Instead { start, end };
        } else if name < NAME && !matches!(self, Self::Instead { .. }) {
            *self = Self::Behind(end);
        } else if matches!(self, Self::Alone(_)) {
            *self = Self::Before(start);
        }
    }

    /// What goes, and what stands around the new field.
    fn cut(self) -> (usize, usize, &'static [u8], &'static [u8]) {
        match self {
            Self::Outside(at) => (at, at, b"\"metadata\":{", b"},"),
            Self::Alone(at) => (at, at, b"", b""),
            Self::Before(at) => (at, at, b"", b","),
            Self::Behind(at) => (at, at, b",", b""),
            Self::Instead { start, end } => (start, end, b"", b""),
        }
    }

    /// A copy of stored JSON with the number; and from which of the old bytes on they have moved, and how far.
    pub(super) fn put(self, stored: &[u8], revision: u64) -> (Vec<u8>, usize, isize) {
        let (start, end, before, behind) = self.cut();
        let digits = revision.checked_ilog10().unwrap_or_default() as usize + 1;
        let field = before.len() + NAME.len() + behind.len() + digits + "\"\":\"\"".len();
        let mut out = Vec::with_capacity(stored.len() - (end - start) + field);
        out.extend_from_slice(&stored[..start]);
        out.extend_from_slice(before);
        out.push(b'"');
        out.extend_from_slice(NAME);
        write!(out, "\":\"{revision}\"").expect("memory takes all");
        out.extend_from_slice(behind);
        out.extend_from_slice(&stored[end..]);
        let moved = out.len().cast_signed() - stored.len().cast_signed();
        (out, end, moved)
    }
}
