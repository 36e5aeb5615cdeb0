//! Tokens from a file that is read once: `token,user,uid,"group1,group2"` on each line.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::User;

/// Why a file of tokens can't be used. Shows nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StaticTokenError {
    /// A line with too little on it.
    #[error("token file must have at least 3 columns (token, user name, user uid), found {found} in record {record}")]
    Columns {
        /// Columns of the record.
        found: usize,
        /// Which record it is, counted from one.
        record: usize,
    },
    /// A quotation mark inside of a plain field, text behind a closing one, or none that closes.
    #[error("token file has a misplaced quotation mark in record {record}")]
    Quote {
        /// Which record it is, counted from one.
        record: usize,
    },
}

/// Users by their tokens. Deliberately without `Debug`: it would show the tokens.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StaticTokens(BTreeMap<String, User>);

impl StaticTokens {
    /// Reads a file. A record without a token is passed over; of a token that occurs twice the last record counts.
    ///
    /// # Errors
    ///
    /// Fails on the first record that is none.
    pub fn parse(text: &str) -> Result<Self, StaticTokenError> {
        let mut users = BTreeMap::new();
        for (record, fields) in (1..).zip(records(text)?) {
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(StaticTokenError::Columns { found: fields.len(), record });
            };
            if token.is_empty() {
                continue;
            }
            let groups = rest.first().map(|groups| groups.split(',').map(str::to_owned).collect()).unwrap_or_default();
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
            users.insert(token.clone(), user);
        }
        Ok(Self(users))
    }

    /// Whose token this is.
    #[must_use]
    pub fn user(&self, token: &str) -> Option<&User> {
        self.0.get(token)
    }
}

/// Takes a text of comma-separated fields apart; empty lines are no records.
fn records(text: &str) -> Result<Vec<Vec<String>>, StaticTokenError> {
    let text = text.replace("\r\n", "\n");
    let mut records = Vec::new();
    let mut fields = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        if let (true, Some(next)) = (fields.is_empty(), rest.strip_prefix('\n')) {
            rest = next;
            continue;
        }
        let wrong = StaticTokenError::Quote { record: records.len() + 1 };
        let (field, after) = field(rest).ok_or(wrong)?;
        fields.push(field);
        rest = match after.strip_prefix(',') {
            // A comma at the very end has one more, empty field behind it.
            Some("") => {
                fields.push(String::new());
                ""
            }
            Some(next) => next,
            None => after.strip_prefix('\n').unwrap_or(after),
        };
        if !after.starts_with(',') || rest.is_empty() {
            records.push(std::mem::take(&mut fields));
        }
    }
    Ok(records)
}

/// One field, and the text from its end on: a comma, a line's end or nothing.
fn field(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let (field, after) = text.split_at(end);
        return (!field.contains('"')).then(|| (field.to_owned(), after));
    };
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            // Two quotation marks stand for one.
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return (after.is_empty() || after.starts_with([',', '\n'])).then_some((field, after)),
        }
    }
}
