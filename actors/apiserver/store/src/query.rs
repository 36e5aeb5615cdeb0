//! What readers ask for, and what lists answer.

use std::time::Duration;

use k3sd_client::storage::Revision;
use k3sd_objects::object::{Object, Selectable};
use k3sd_objects::selector::{FieldSelector, LabelSelector};

use crate::catalog::Stored;
use crate::map::relative_key;

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadAt {
    /// With every write in it that was acknowledged before the question.
    #[default]
    Latest,
    /// As old as it may be; what is at hand.
    Any,
    /// At least as new as this.
    NotOlderThan(Revision),
    /// As everything was just then.
    Exactly(Revision),
}

/// Asks for objects of a resource.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only objects of this namespace; `None` is everywhere.
    pub namespace: Option<String>,
    /// Only the object of this name.
    pub name: Option<String>,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields, named as in the stored version.
    pub fields: FieldSelector,
    /// How fresh.
    pub at: ReadAt,
    /// At most so many; `None` and zero are all.
    pub limit: Option<usize>,
    /// Goes on where another page ended.
    pub continue_token: Option<String>,
}

/// Objects in the order of their keys.
#[derive(Clone, Debug)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Object>,
    /// When it was so: the list's `resourceVersion`, from which a watch goes on.
    pub revision: Revision,
    /// Gets the next page, if there is one.
    pub continue_token: Option<String>,
    /// How many objects follow this page; only told without selectors, and when there is a next page.
    pub remaining: Option<u64>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchFrom {
    /// `resourceVersion` unset: with the latest state, each object as `ADDED`.
    #[default]
    Now,
    /// `"0"`: with whatever state is at hand, each object as `ADDED`.
    Any,
    /// With the first change after this revision.
    After(Revision),
}

/// Asks for changes of a resource.
#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    /// Only objects of this namespace; `None` is everywhere.
    pub namespace: Option<String>,
    /// Only the object of this name.
    pub name: Option<String>,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields, named as in the stored version.
    pub fields: FieldSelector,
    /// Where it begins.
    pub from: WatchFrom,
    /// Whether the client is told about every minute how far it is, and when the watch ends.
    pub bookmarks: bool,
    /// `sendInitialEvents`: the state first, and a bookmark behind it; or explicitly no state. With it,
    /// [`WatchFrom::After`] is the revision that the state must have reached.
    pub initial_events: Option<bool>,
    /// Ends the watch after this long, with a last bookmark if these are wanted; `None` leaves the end to the reader.
    pub timeout: Option<Duration>,
}

/// Which objects a reader wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Selection {
    /// `metadata.name=x` and `metadata.namespace=x` narrow the question as the path does.
    fn new(namespace: Option<&str>, name: Option<&str>, labels: &LabelSelector, fields: &FieldSelector) -> Self {
        let namespace = namespace.or_else(|| fields.exact("metadata.namespace")).map(str::to_owned);
        let name = name.or_else(|| fields.exact("metadata.name")).map(str::to_owned);
        Self { namespace, name, labels: labels.clone(), fields: fields.clone() }
    }

    pub(crate) fn matches(&self, object: &Object, selectable: &Selectable) -> bool {
        let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        same(&self.namespace, object.namespace())
            && same(&self.name, object.name())
            && self.labels.matches(|key| object.label(key))
            && self.fields.matches(|field| object.selected(field, selectable))
    }

    /// The key of the only object that it can match, if it names one.
    pub(crate) fn only_key(&self, stored: &Stored) -> Option<Vec<u8>> {
        let name = self.name.as_deref()?;
        let namespace = if stored.namespaced { self.namespace.as_deref()? } else { "" };
        Some(relative_key(namespace, name))
    }

    /// Whether a namespace is all that it asks for.
    pub(crate) fn is_plain(&self) -> bool {
        self.name.is_none() && self.labels.is_everything() && self.fields.is_everything()
    }
}

impl ListQuery {
    pub(crate) fn selection(&self) -> Selection {
        Selection::new(self.namespace.as_deref(), self.name.as_deref(), &self.labels, &self.fields)
    }
}

impl WatchQuery {
    pub(crate) fn selection(&self) -> Selection {
        Selection::new(self.namespace.as_deref(), self.name.as_deref(), &self.labels, &self.fields)
    }
}
