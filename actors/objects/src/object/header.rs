//! What the machinery asks of every object: places in its JSON.

use crate::object::scan::{Extent, Scanner, unescape};
use crate::object::version::Place;
use crate::object::{ObjectError, Selectable};

/// A piece of the object's JSON, or of what had to be unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Piece {
    start: u32,
    len: u32,
}

/// Set in `start` when the piece is one of the unescaped texts.
const UNESCAPED: u32 = 1 << 31;

/// Something that an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Group and version of its kind.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its name, in the object's namespace or in none.
    pub name: &'a str,
    /// The life of it that is the owner.
    pub uid: &'a str,
    /// Whether it manages the object.
    pub controller: bool,
    /// Whether it may go in the foreground only after the object.
    pub block_owner_deletion: bool,
}

/// An [`Owner`] as places.
#[derive(Debug, Default)]
pub(super) struct OwnerPieces {
    api_version: Piece,
    kind: Piece,
    name: Piece,
    uid: Piece,
    controller: bool,
    block_owner_deletion: bool,
}

impl OwnerPieces {
    pub(super) fn resolve<'a>(&self, text: impl Fn(Piece) -> &'a str) -> Owner<'a> {
        Owner {
            api_version: text(self.api_version),
            kind: text(self.kind),
            name: text(self.name),
            uid: text(self.uid),
            controller: self.controller,
            block_owner_deletion: self.block_owner_deletion,
        }
    }
}

/// See the accessors of [`Object`](crate::object::Object).
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) name: Piece,
    pub(super) namespace: Piece,
    pub(super) uid: Piece,
    pub(super) resource_version: u64,
    pub(super) generation: i64,
    pub(super) deletion_timestamp: Option<Piece>,
    pub(super) deletion_grace_seconds: Option<i64>,
    pub(super) labels: Box<[(Piece, Piece)]>,
    pub(super) finalizers: Box<[Piece]>,
    pub(super) owners: Box<[OwnerPieces]>,
    /// By the order of the [`Selectable`].
    pub(super) selected: Box<[Option<Piece>]>,
    unescaped: Box<str>,
}

impl Header {
    /// Also tells where `metadata.resourceVersion` stands or belongs; nowhere in an object without fields.
    pub(super) fn parse(bytes: &[u8], selectable: &Selectable) -> Result<(Self, Option<Place>), ObjectError> {
        let selected = vec![None; selectable.len()];
        let mut reader = Reader { bytes, header: Self::default(), selected, unescaped: String::new(), place: None };
        let mut scanner = Scanner::new(bytes);
        if scanner.peek() != Some(b'{') {
            return Err(ObjectError::Malformed { at: 0 });
        }
        let all: Vec<usize> = (0..selectable.len()).collect();
        reader.fields(&mut scanner, selectable, &all, 0)?;
        scanner.end()?;
        let Reader { mut header, selected, unescaped, place, .. } = reader;
        header.selected = selected.into_boxed_slice();
        header.unescaped = unescaped.into_boxed_str();
        Ok((header, place))
    }

    /// The same for bytes in which everything from `from` on has moved by `by`.
    pub(super) fn shift(&mut self, from: usize, by: isize) -> Result<(), ObjectError> {
        let mut fits = true;
        let mut shift = |piece: &mut Piece| {
            if piece.start & UNESCAPED == 0 && piece.start as usize >= from {
                let moved = (piece.start as usize).checked_add_signed(by).and_then(|start| u32::try_from(start).ok());
                fits &= moved.is_some_and(|start| start & UNESCAPED == 0);
                piece.start = moved.unwrap_or_default();
            }
        };
        [&mut self.name, &mut self.namespace, &mut self.uid].into_iter().for_each(&mut shift);
        self.deletion_timestamp.iter_mut().chain(&mut self.finalizers).for_each(&mut shift);
        self.labels.iter_mut().flat_map(|(key, value)| [key, value]).for_each(&mut shift);
        self.selected.iter_mut().flatten().for_each(&mut shift);
        for OwnerPieces { api_version, kind, name, uid, .. } in &mut self.owners {
            [api_version, kind, name, uid].into_iter().for_each(&mut shift);
        }
        if fits { Ok(()) } else { Err(ObjectError::TooLarge { bytes: UNESCAPED as usize }) }
    }

    pub(super) fn text<'a>(&'a self, piece: Piece, bytes: &'a [u8]) -> &'a str {
        // Checked to be UTF-8 when the piece was made.
        std::str::from_utf8(self.raw(piece, bytes)).unwrap_or_default()
    }

    pub(super) fn raw<'a>(&'a self, piece: Piece, bytes: &'a [u8]) -> &'a [u8] {
        let Piece { start, len } = piece;
        let from = (start & !UNESCAPED) as usize;
        let bytes = if start & UNESCAPED == 0 { bytes } else { self.unescaped.as_bytes() };
        &bytes[from..from + len as usize]
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.labels)
            + size_of_val(&*self.finalizers)
            + size_of_val(&*self.owners)
            + size_of_val(&*self.selected)
            + self.unescaped.len()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    header: Header,
    selected: Vec<Option<Piece>>,
    unescaped: String,
    place: Option<Place>,
}

impl Reader<'_> {
    /// Walks through an object whose fields at `depth` are steps of some selectors' paths.
    fn fields(
        &mut self,
        scanner: &mut Scanner<'_>,
        selectable: &Selectable,
        wanted: &[usize],
        depth: usize,
    ) -> Result<(), ObjectError> {
        scanner.object(|scanner, key| {
            let name = &self.bytes[key.start..key.end];
            if depth == 0 {
                self.place.get_or_insert(Place::Outside(key.start - 1));
                if name == b"metadata" {
                    return self.metadata(scanner);
                }
            }
            let on_path =
                |index: &&usize| selectable.path(**index).get(depth).is_some_and(|step| step.as_bytes() == name);
            let below: Vec<usize> = wanted.iter().filter(on_path).copied().collect();
            match below.as_slice() {
                [] => scanner.skip().map(drop),
                [only] if selectable.path(*only).len() == depth + 1 => {
                    self.selected[*only] = self.any_text(scanner)?;
                    Ok(())
                }
                below => self.fields(scanner, selectable, below, depth + 1),
            }
        })
    }

    fn metadata(&mut self, scanner: &mut Scanner<'_>) -> Result<(), ObjectError> {
        let bytes = self.bytes;
        let (mut labels, mut finalizers, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        if scanner.peek() == Some(b'{') && matches!(self.place, Some(Place::Outside(_))) {
            self.place = Some(Place::Alone(scanner.offset() + 1));
        }
        scanner.object(|scanner, key| {
            let name = &bytes[key.start..key.end];
            match name {
                b"name" => self.header.name = self.any_text(scanner)?.unwrap_or_default(),
                b"namespace" => self.header.namespace = self.any_text(scanner)?.unwrap_or_default(),
                b"uid" => self.header.uid = self.any_text(scanner)?.unwrap_or_default(),
                b"resourceVersion" => {
                    let extent = scanner.skip()?;
                    let digits = bytes[extent.start..extent.end].trim_ascii_start();
                    let digits = digits.strip_prefix(b"\"").and_then(|digits| digits.strip_suffix(b"\""));
                    self.header.resource_version = number(digits.unwrap_or_default()).unwrap_or_default();
                }
                b"generation" => self.header.generation = self.number(scanner)?.unwrap_or_default(),
                b"deletionTimestamp" => self.header.deletion_timestamp = self.any_text(scanner)?,
                b"deletionGracePeriodSeconds" => self.header.deletion_grace_seconds = self.number(scanner)?,
                b"labels" => scanner.object(|scanner, key| {
                    let key = self.piece(key)?;
                    labels.push((key, self.any_text(scanner)?.unwrap_or_default()));
                    Ok(())
                })?,
                b"finalizers" => scanner.array(|scanner| {
                    finalizers.extend(self.any_text(scanner)?);
                    Ok(())
                })?,
                b"ownerReferences" => scanner.array(|scanner| {
                    owners.push(self.owner(scanner)?);
                    Ok(())
                })?,
                _ => {
                    scanner.skip()?;
                }
            }
            if let Some(place) = &mut self.place {
                place.pass(name, key.start - 1, scanner.offset());
            }
            Ok(())
        })?;
        self.header.labels = labels.into_boxed_slice();
        self.header.finalizers = finalizers.into_boxed_slice();
        self.header.owners = owners.into_boxed_slice();
        Ok(())
    }

    fn owner(&mut self, scanner: &mut Scanner<'_>) -> Result<OwnerPieces, ObjectError> {
        let bytes = self.bytes;
        let mut owner = OwnerPieces::default();
        scanner.object(|scanner, key| {
            match &bytes[key.start..key.end] {
                b"apiVersion" => owner.api_version = self.any_text(scanner)?.unwrap_or_default(),
                b"kind" => owner.kind = self.any_text(scanner)?.unwrap_or_default(),
                b"name" => owner.name = self.any_text(scanner)?.unwrap_or_default(),
                b"uid" => owner.uid = self.any_text(scanner)?.unwrap_or_default(),
                b"controller" => owner.controller = self.is_true(scanner)?,
                b"blockOwnerDeletion" => owner.block_owner_deletion = self.is_true(scanner)?,
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })?;
        Ok(owner)
    }

    /// Text without its quotes, a number or boolean as it is written; nothing for null, lists and objects.
    fn any_text(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<Piece>, ObjectError> {
        match scanner.peek() {
            Some(b'"') => {
                let extent = scanner.string()?;
                self.piece(extent).map(Some)
            }
            Some(b'{' | b'[' | b'n') => scanner.skip().map(|_| None),
            _ => {
                let extent = scanner.skip()?;
                self.piece(extent).map(Some)
            }
        }
    }

    fn number(&self, scanner: &mut Scanner<'_>) -> Result<Option<i64>, ObjectError> {
        let extent = scanner.skip()?;
        Ok(number(&self.bytes[extent.start..extent.end]))
    }

    fn is_true(&self, scanner: &mut Scanner<'_>) -> Result<bool, ObjectError> {
        let extent = scanner.skip()?;
        Ok(&self.bytes[extent.start..extent.end] == b"true")
    }

    fn piece(&mut self, extent: Extent) -> Result<Piece, ObjectError> {
        let place = |start: usize, len: usize| {
            let (start, len) = (u32::try_from(start).ok()?, u32::try_from(len).ok()?);
            (start & UNESCAPED == 0).then_some(Piece { start, len })
        };
        let text = unescape(&self.bytes[extent.start..extent.end], extent.start)?;
        let found = match text {
            std::borrow::Cow::Borrowed(text) => place(extent.start, text.len()),
            std::borrow::Cow::Owned(text) => {
                let start = self.unescaped.len();
                self.unescaped.push_str(&text);
                place(start, text.len()).map(|piece| Piece { start: piece.start | UNESCAPED, ..piece })
            }
        };
        found.ok_or(ObjectError::TooLarge { bytes: self.bytes.len() })
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
