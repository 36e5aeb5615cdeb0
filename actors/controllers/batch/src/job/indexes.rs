//! Sets of completion indexes, and how they are written: `0-3,5`.

use std::collections::BTreeSet;
use std::fmt;

/// Indexes of an Indexed Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<u32>);

impl Indexes {
    /// Reads what a status says; only indexes below `completions`, and nothing of what isn't written as it should be.
    pub fn parse(text: &str, completions: u32) -> Self {
        let mut found = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                found.extend(first..=last.min(completions.saturating_sub(1)));
            }
        }
        found.retain(|index| *index < completions);
        Self(found)
    }

    /// Whether an index is in it.
    pub fn has(&self, index: u32) -> bool {
        self.0.contains(&index)
    }

    /// Takes an index in.
    pub fn add(&mut self, index: u32) {
        self.0.insert(index);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = all.next() {
            let mut last = first;
            while let Some(next) = all.next_if(|next| *next == last + 1) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for (text, completions, expected, len) in [
            ("", 5, "", 0),
            ("0", 5, "0", 1),
            ("0,1", 5, "0,1", 2),
            ("0-2,4", 5, "0-2,4", 4),
            ("1,3-5,7", 5, "1,3,4", 3),
            ("0-4294967295", 3, "0-2", 3),
            ("x,2-", 5, "", 0),
        ] {
            let found = Indexes::parse(text, completions);
            assert_eq!((found.to_string().as_str(), found.len()), (expected, len), "{text}");
        }
    }
}
