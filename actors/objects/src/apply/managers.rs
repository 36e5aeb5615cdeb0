//! `metadata.managedFields`: who owns which fields.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

use super::set::{FieldsError, Set};
use crate::decode::DEPTH_MAX;
use crate::names;
use crate::status::field::{Error as FieldError, Path as FieldPath};
use crate::status::go;

/// Entries of updates that are kept; older ones are put together. Applied ones are never too many: each has a name that
/// somebody chose.
pub const UPDATE_ENTRIES_MAX: usize = 10;

/// Steps of a path that are written. `fieldsV1` stands five levels deep in its object, and an object that is written has
/// to be one that the decoder reads.
const STEPS_MAX: usize = DEPTH_MAX - 8;

/// Longest name of a subresource in a list of managers.
const SUBRESOURCE_BYTES_MAX: usize = 256;

/// The manager that owns what old updates own together.
const ANCIENT: &str = "ancient-changes";

/// Managed fields that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManagersError {
    /// Not a list of objects.
    #[error("managedFields is no list of entries")]
    Shape,
    /// Neither of the two operations.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No version.
    #[error("apiVersion must not be empty")]
    Version,
    /// No type of fields.
    #[error("missing fieldsType in managed fields entry {0}")]
    TypeMissing(usize),
    /// A type of fields that we don't know.
    #[error("invalid fieldsType {} in managed fields entry {index}", go::quote(.found))]
    Type {
        /// Which entry.
        index: usize,
        /// What it says.
        found: String,
    },
    /// Fields that can't be read.
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply: it says what it wants, again and again.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// The name that requests give, or the user agent.
    pub name: String,
    /// How it came to its fields.
    pub operation: Operation,
    /// Version in which an update was written. Empty for an apply, which stays one manager over all versions.
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// As a message about a conflict names it.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = go::quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(" with subresource ");
            text.push_str(&go::quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(" using ");
            text.push_str(&self.api_version);
        }
        text
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The fields, as they are in `api_version`.
    pub set: Set,
    /// The version in which the fields are written.
    pub api_version: String,
    /// When the manager's fields last changed.
    pub time: Option<Timestamp>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(pub(super) BTreeMap<Manager, Entry>);

impl Managers {
    /// Reads `metadata.managedFields`. An absent list has no managers.
    ///
    /// # Errors
    ///
    /// Fails if an entry isn't one.
    pub fn decode(list: Option<&Value>) -> Result<Self, ManagersError> {
        let Some(list) = list.filter(|list| !list.is_null()) else { return Ok(Self::default()) };
        let list = list.as_array().ok_or(ManagersError::Shape)?;
        let mut managers = BTreeMap::new();
        for (index, entry) in list.iter().enumerate() {
            let (manager, entry) = decode_entry(index, entry)?;
            managers.insert(manager, entry);
        }
        Ok(Self(managers))
    }

    /// Writes `metadata.managedFields`: applied entries first, older ones before newer ones. `None` if there are none.
    #[must_use]
    pub fn encode(&self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut entries: Vec<(&Manager, &Entry)> = self.0.iter().collect();
        entries.sort_by_key(|(manager, entry)| {
            let seconds = entry.time.map_or(0, Timestamp::as_second);
            (manager.operation, seconds, &manager.name, &entry.api_version, &manager.subresource)
        });
        Some(entries.into_iter().map(|(manager, entry)| encode_entry(manager, entry)).collect())
    }

    /// Whether the same managers own the same, since whenever.
    pub(super) fn same_but_times(&self, other: &Self) -> bool {
        fn without_times<'m>((manager, entry): (&'m Manager, &'m Entry)) -> (&'m Manager, &'m str, Cow<'m, Set>) {
            (manager, &entry.api_version, entry.set.cut(STEPS_MAX))
        }
        self.0.iter().map(without_times).eq(other.0.iter().map(without_times))
    }

    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Managers with what they own.
    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Entry)> {
        self.0.iter()
    }

    /// Puts the oldest updates of a version together, until there are no more than [`UPDATE_ENTRIES_MAX`].
    pub(super) fn cap(&mut self) {
        if self.0.len() <= UPDATE_ENTRIES_MAX {
            return;
        }
        let mut updates: Vec<(i64, Manager)> = Vec::new();
        for (manager, entry) in self.0.iter().filter(|(manager, _)| manager.operation == Operation::Update) {
            updates.push((entry.time.map_or(0, Timestamp::as_second), manager.clone()));
        }
        let mut count = updates.len();
        updates.sort_unstable();
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updates {
            if count <= UPDATE_ENTRIES_MAX {
                return;
            }
            let Some(first) = first_of_version.get(&manager.api_version) else {
                first_of_version.insert(manager.api_version.clone(), manager);
                continue;
            };
            let bucket = Manager {
                name: ANCIENT.to_owned(),
                operation: Operation::Update,
                api_version: manager.api_version.clone(),
                subresource: String::new(),
            };
            // The first of a version stays under its own name until a second one has to join it.
            let joined = if manager == bucket { first.clone() } else { manager };
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if joined != bucket
                && let Some(joining) = self.0.remove(&joined)
                && let Some(old) = self.0.get_mut(&bucket)
            {
                old.set = std::mem::take(&mut old.set).union(joining.set);
                old.time = old.time.max(joining.time);
                count -= 1;
            }
        }
    }
}

fn decode_entry(index: usize, entry: &Value) -> Result<(Manager, Entry), ManagersError> {
    let entry = entry.as_object().ok_or(ManagersError::Shape)?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagersError::Operation),
    };
    let api_version = text("apiVersion").to_owned();
    if api_version.is_empty() {
        return Err(ManagersError::Version);
    }
    match text("fieldsType") {
        "FieldsV1" => {}
        "" => return Err(ManagersError::TypeMissing(index)),
        other => return Err(ManagersError::Type { index, found: other.to_owned() }),
    }
    let set = match entry.get("fieldsV1").filter(|fields| !fields.is_null()) {
        Some(fields) => Set::from_fields(fields)?,
        None => Set::default(),
    };
    let manager = Manager {
        name: text("manager").to_owned(),
        operation,
        api_version: if operation == Operation::Apply { String::new() } else { api_version.clone() },
        subresource: text("subresource").to_owned(),
    };
    Ok((manager, Entry { set, api_version, time: text("time").parse().ok() }))
}

fn encode_entry(manager: &Manager, entry: &Entry) -> Value {
    let mut fields = Map::new();
    let mut text = |name: &str, text: &str| drop(fields.insert(name.to_owned(), Value::from(text)));
    text("apiVersion", &entry.api_version);
    text("fieldsType", "FieldsV1");
    if !manager.name.is_empty() {
        text("manager", &manager.name);
    }
    text("operation", manager.operation.name());
    if !manager.subresource.is_empty() {
        text("subresource", &manager.subresource);
    }
    if let Some(time) = entry.time {
        text("time", &whole_seconds(time).to_string());
    }
    fields.insert("fieldsV1".to_owned(), entry.set.cut(STEPS_MAX).to_fields());
    Value::Object(fields)
}

/// What is wrong with a list of managers that somebody sent, at `path`. Entries that merely can't be read are not wrong:
/// they are ignored.
#[must_use]
pub fn check_managed_fields(list: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, entry) in list.as_array().into_iter().flatten().enumerate() {
        let place = path.index(index);
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        if !matches!(text("operation"), "Apply" | "Update") {
            let detail = "must be `Apply` or `Update`";
            errors.push(FieldError::invalid(&place.child("operation"), text("operation"), detail));
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.push(FieldError::invalid(&place.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(names::check_field_manager(text("manager"), &place.child("manager")));
        if text("subresource").len() > SUBRESOURCE_BYTES_MAX {
            errors.push(FieldError::too_long(&place.child("subresource"), SUBRESOURCE_BYTES_MAX));
        }
    }
    errors
}

/// A moment as objects write it.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Whether a list of managed fields asks to forget all of them: it is empty, or has one empty entry.
pub(super) fn is_reset(list: Option<&Value>) -> bool {
    match list.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}
