//! Headers of a request, as far as they say who makes it.

use std::collections::BTreeMap;

use crate::percent_decode;

/// The headers of a request in the order they came in. Names are compared without regard to case.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a [(&'a str, &'a str)]);

impl<'a> Headers<'a> {
    /// The values of all headers of this name.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The value of the first header of this name; empty if there is none.
    #[must_use]
    pub fn first(self, name: &str) -> &'a str {
        self.all(name).next().unwrap_or_default()
    }

    /// The values of headers that begin with `prefix`, by the rest of their names: in lower case, percent signs resolved
    /// where they are well-formed.
    pub(super) fn extras(self, prefix: &str) -> BTreeMap<String, Vec<String>> {
        let mut extras: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in self.0 {
            let Some((start, rest)) = name.split_at_checked(prefix.len()) else { continue };
            if start.eq_ignore_ascii_case(prefix) {
                let key = rest.to_lowercase();
                let key = percent_decode(&key).unwrap_or(key);
                extras.entry(key).or_default().push((*value).to_owned());
            }
        }
        extras
    }
}
