//! The sentences about types and fields, for OpenAPI and `kubectl explain`.

use std::io::Read as _;

use flate2::read::DeflateDecoder;

use crate::schema::arena::Arena;
use crate::schema::builtin::builtin;
use crate::schema::reference::SchemaRef;

/// All sentences, compressed; read only while a document is made from them.
static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.bin"));

/// Stands between two sentences.
const SEPARATOR: char = '\0';

/// The sentences about all built-in types and their fields. About a megabyte: load, use, drop.
#[derive(Debug)]
pub struct Descriptions {
    text: String,
    /// Where each sentence ends: first those of the types in the arena's order, then those of the fields.
    ends: Vec<u32>,
}

impl Descriptions {
    /// Decompresses the sentences.
    pub fn load() -> Self {
        let mut all = String::new();
        DeflateDecoder::new(COMPRESSED).read_to_string(&mut all).expect("the build wrote it");
        let mut text = String::with_capacity(all.len());
        let mut ends = Vec::new();
        for sentence in all.split(SEPARATOR) {
            text.push_str(sentence);
            ends.push(u32::try_from(text.len()).expect("about a megabyte"));
        }
        Self { text, ends }
    }

    /// What a named type is for; empty when nothing is said.
    pub fn of_type(&self, name: &str) -> &str {
        let arena = builtin();
        let found = arena.types.binary_search_by(|(text, _)| arena.str(*text).cmp(name));
        found.map_or("", |index| self.sentence(index))
    }

    /// What a field of a built-in structure is for; empty when there is no such field or nothing is said.
    pub fn of_field(&self, owner: SchemaRef<'_>, field: &str) -> &str {
        let arena: &Arena = builtin();
        if !std::ptr::eq(owner.arena(), arena) {
            return "";
        }
        let found = owner.field_index(field);
        found.map_or("", |index| self.sentence(arena.types.len() + index))
    }

    fn sentence(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[index] as usize]
    }
}
