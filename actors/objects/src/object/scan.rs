//! Walks through JSON without building anything.

use std::borrow::Cow;

use memchr::memchr2;

use crate::object::ObjectError;

/// Deepest nesting; a stored object was decoded within a narrower bound.
const DEPTH_MAX: usize = 512;

/// A place in JSON that is read from left to right.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A value that was passed by: where it begins and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn wrong(&self) -> ObjectError {
        ObjectError::Malformed { at: self.at }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), ObjectError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong());
        }
        self.at += 1;
        Ok(())
    }

    /// Calls `entry` for each field of an object, with the extent of its name without quotes; it must pass the value.
    /// A value that is no object is passed as a whole.
    pub(super) fn object(
        &mut self,
        mut entry: impl FnMut(&mut Self, Extent) -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        if self.peek() != Some(b'{') {
            return self.skip().map(drop);
        }
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            entry(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong()),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Calls `item` for each item of a list; it must pass the value. A value that is no list is passed as a whole.
    pub(super) fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        if self.peek() != Some(b'[') {
            return self.skip().map(drop);
        }
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong()),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Passes text; the extent is without quotes.
    pub(super) fn string(&mut self) -> Result<Extent, ObjectError> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let found = self.bytes.get(self.at..).and_then(|rest| memchr2(b'"', b'\\', rest));
            self.at += found.ok_or_else(|| self.wrong())?;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(Extent { start, end: self.at - 1 });
            }
            self.at += 2;
        }
    }

    /// Passes any value.
    pub(super) fn skip(&mut self) -> Result<Extent, ObjectError> {
        let first = self.peek().ok_or_else(|| self.wrong())?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.skip_nested()?,
            b',' | b':' | b'}' | b']' => return Err(self.wrong()),
            _ => self.skip_word(),
        }
        Ok(Extent { start, end: self.at })
    }

    /// A number, a boolean or null.
    fn skip_word(&mut self) {
        while !matches!(self.bytes.get(self.at), None | Some(b',' | b'}' | b']' | b':' | b' ' | b'\n' | b'\r' | b'\t'))
        {
            self.at += 1;
        }
    }

    /// Passes an object or list by its brackets alone.
    fn skip_nested(&mut self) -> Result<(), ObjectError> {
        let mut depth = 0;
        loop {
            match self.bytes.get(self.at) {
                Some(b'{' | b'[') => {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(self.wrong());
                    }
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(_) => self.at += 1,
                None => return Err(self.wrong()),
            }
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), ObjectError> {
        if self.peek().is_some() { Err(self.wrong()) } else { Ok(()) }
    }
}

/// The text between quotes, without escapes.
pub(super) fn unescape(inner: &[u8], at: usize) -> Result<Cow<'_, str>, ObjectError> {
    let wrong = ObjectError::Malformed { at };
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).map(Cow::Borrowed).map_err(|_| wrong);
    }
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted).map(Cow::Owned).map_err(|_| wrong)
}
