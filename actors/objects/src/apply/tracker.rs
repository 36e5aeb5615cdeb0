//! The two things that an endpoint asks for: apply this, and somebody wrote that.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::conflict::ApplyError;
use super::element::{PathElement, equal};
use super::managers::{Entry, Manager, Managers, Operation, is_reset, whole_seconds};
use super::ownership::Write;
use super::set::Set;
use super::types::Type;
use super::validate;
use super::walk::field_set;
use crate::decode::normalize;
use crate::names::ANNOTATIONS_BYTES_MAX;
use crate::schema::SchemaRef;
use crate::status::go;

/// Who owns what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The manager that `kubectl apply --server-side` names, whose conflicts with its client-side past are no conflicts.
const KUBECTL: &str = "kubectl";

/// Where `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The versions in which a kind is served.
pub trait Versions {
    /// The schema in a version, such as `apps/v1`; `None` if it isn't served.
    fn schema(&self, api_version: &str) -> Option<SchemaRef<'_>>;

    /// An object in another version.
    ///
    /// # Errors
    ///
    /// Says why it can't be had.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, String>;
}

/// Keeps the managers of objects that one endpoint writes.
pub struct Tracker<'a> {
    /// The versions of the endpoint's kind.
    pub versions: &'a dyn Versions,
    /// The version of the request, in which all objects are handed in and out.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Fields that the endpoint resets to what they were: `status` for the object itself, all but `status` below it.
    /// Nobody comes to own them by writing here.
    pub ignored: &'a Set,
}

impl Tracker<'_> {
    /// After a write that isn't an apply: the new object with its managers brought up to date.
    ///
    /// `live` is the object before; what has no uid there is new. A list of managers that the writer
    /// sent counts, and an empty one makes an object forget them all. Without an error, since such a write must not
    /// fail over bookkeeping: if it can't be done, the managers stay as they were.
    #[must_use]
    pub fn update(&self, live: &Value, mut new: Value, manager: &str, now: Timestamp) -> Value {
        if new.get("metadata").is_none_or(|metadata| !metadata.is_object()) {
            return new;
        }
        let sent = take_managed_fields(&mut new);
        let live_managers = || Managers::decode(managed_fields(live)).unwrap_or_default();
        let managers = if !self.subresource.is_empty() {
            live_managers()
        } else if is_reset(sent.as_ref()) {
            Managers::default()
        } else {
            let sent = Managers::decode(sent.as_ref()).unwrap_or_default();
            if sent.is_empty() { live_managers() } else { sent }
        };
        // An object without managers is one that nobody wants tracked, until somebody applies.
        let is_new = uid(live).is_empty();
        let is_tracked = !managers.is_empty() || is_new;
        let blank = is_new.then(|| self.blank(&new));
        let before = blank.as_ref().unwrap_or(live);
        let managers = match is_tracked.then(|| self.track(before, &new, managers, manager, now)) {
            Some(Ok(managers)) => managers,
            Some(Err(_)) => live_managers(),
            None => Managers::default(),
        };
        put_managed_fields(&mut new, &managers);
        new
    }

    /// Managers after a write. The lists of managers in the objects themselves are nobody's and don't matter.
    fn track(
        &self,
        live: &Value,
        new: &Value,
        managers: Managers,
        manager: &str,
        now: Timestamp,
    ) -> Result<Managers, ApplyError> {
        let mut managers = self.write().reconciled(managers);
        let taken = self.write().updated(live, new, &mut managers)?.difference(&UNTRACKED);
        if !taken.is_empty() {
            let entry = managers.0.entry(self.manager(manager, Operation::Update));
            let api_version = self.api_version.to_owned();
            let entry = entry.or_insert(Entry { set: Set::default(), api_version, time: None });
            entry.set = std::mem::take(&mut entry.set).union(taken);
            entry.time = Some(whole_seconds(now));
        }
        managers.cap();
        Ok(managers)
    }

    /// Applies a configuration to an object, or to an object without fields to make one.
    ///
    /// # Errors
    ///
    /// Fails if the configuration is no such object, if others own what it changes and `force` is not set, or if the
    /// object's own managers can't be read. Nothing has changed then.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, ApplyError> {
        self.check(config)?;
        let before = Managers::decode(managed_fields(live))?;
        let live = without_managed_fields(live);
        let managers = if before.is_empty() && !uid(&live).is_empty() {
            self.track(&self.blank(&live), &live, Managers::default(), BEFORE_FIRST_APPLY, now)?
        } else {
            before.clone()
        };
        let applier = self.manager(manager, Operation::Apply);
        let mut outcome = self.try_apply(&live, config, &managers, &applier, force);
        if let Err(ApplyError::Conflicts(conflicts)) = &outcome
            && manager == KUBECTL
            && let Some(known) = self.last_applied(&live)
        {
            // What kubectl once applied from the client is its own, whoever is noted as the owner.
            let others = conflicts.iter().filter(|conflict| !known.contains(&conflict.path));
            let others: Vec<_> = others.cloned().collect();
            outcome = match others.is_empty() {
                true => self.try_apply(&live, config, &managers, &applier, true),
                false => Err(ApplyError::Conflicts(others)),
            };
        }
        let (mut object, mut managers) = outcome?;
        if manager == KUBECTL {
            renew_last_applied(&mut object, config);
        }
        if (!equal(&object, &live) || managers != before)
            && let Some(entry) = managers.0.get_mut(&applier)
        {
            entry.time = Some(whole_seconds(now));
        }
        put_managed_fields(&mut object, &managers);
        Ok(object)
    }

    fn try_apply(
        &self,
        live: &Value,
        config: &Value,
        managers: &Managers,
        applier: &Manager,
        force: bool,
    ) -> Result<(Value, Managers), ApplyError> {
        let mut managers = self.write().reconciled(managers.clone());
        let object = self.write().applied(live, config, &mut managers, applier, force)?;
        if let Some(entry) = managers.0.get_mut(applier) {
            entry.set = std::mem::take(&mut entry.set).difference(&UNTRACKED);
            if entry.set.is_empty() {
                managers.0.remove(applier);
            }
        }
        Ok((object, managers))
    }

    /// Refuses what isn't a configuration of this kind.
    fn check(&self, config: &Value) -> Result<(), ApplyError> {
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
        let (version, expected) = (text("apiVersion"), self.api_version);
        if version != expected {
            return Err(ApplyError::BadRequest(format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {expected}"
            )));
        }
        if managed_fields(config).is_some_and(|managed| !managed.is_null()) {
            return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
        }
        let Some(schema) = self.versions.schema(self.api_version) else {
            return Err(ApplyError::BadRequest(format!("version {version} is not served")));
        };
        match validate::faults(config, Type::of(schema)) {
            None => Ok(()),
            Some(faults) => {
                let metadata = |name: &str| {
                    config
                        .get("metadata")
                        .and_then(|metadata| metadata.get(name))
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
                let (namespace, name, kind) = (metadata("namespace"), metadata("name"), text("kind"));
                let object = format!("{namespace}/{name}; {version}, Kind={kind}");
                Err(ApplyError::Untyped { object, faults })
            }
        }
    }

    /// An object of the kind before it had any fields. A built-in kind has parts that are always there (`spec`,
    /// `resources`), if need be empty; nobody comes to own them.
    fn blank(&self, object: &Value) -> Value {
        let type_fields = ["apiVersion", "kind"].into_iter();
        let fields = type_fields.filter_map(|name| Some((name.to_owned(), object.get(name)?.clone())));
        let mut blank = Value::Object(fields.collect());
        if let Some(schema) = self.versions.schema(self.api_version) {
            normalize(&mut blank, schema);
        }
        blank
    }

    fn write(&self) -> Write<'_> {
        Write { versions: self.versions, api_version: self.api_version, ignored: self.ignored }
    }

    fn manager(&self, name: &str, operation: Operation) -> Manager {
        let api_version = if operation == Operation::Apply { "" } else { self.api_version };
        Manager {
            name: name.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }

    /// The fields of what kubectl applied from the client, if the object remembers it.
    fn last_applied(&self, live: &Value) -> Option<Set> {
        let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
        let config: Value = serde_json::from_str(text).ok()?;
        let of = Type::of(self.versions.schema(self.api_version)?);
        (config.get("apiVersion")?.as_str()? == self.api_version).then(|| field_set(&config, of))
    }
}

/// The last step of every write, after defaults and admission: if nothing has changed but when somebody's fields
/// changed, nothing has changed, and the object is as it was. Without it, a configuration that says `1000m` where the
/// object says `1` would be written again with every apply.
#[must_use]
pub fn keep_times(live: &Value, new: Value) -> Value {
    if !same_but_managers(live, &new) {
        return new;
    }
    match (Managers::decode(managed_fields(live)), Managers::decode(managed_fields(&new))) {
        (Ok(before), Ok(after)) if before.same_but_times(&after) => live.clone(),
        _ => new,
    }
}

/// Whether two objects are the same to everybody who doesn't look at managers.
fn same_but_managers(left: &Value, right: &Value) -> bool {
    let (Some(left), Some(right)) = (left.as_object(), right.as_object()) else { return equal(left, right) };
    let same_fields = |left: &Map<String, Value>, right: &Map<String, Value>, skipped: &str| {
        let kept = |fields: &Map<String, Value>| fields.len() - usize::from(fields.contains_key(skipped));
        let mut fields = left.iter().filter(|(name, _)| *name != skipped);
        kept(left) == kept(right)
            && fields.all(|(name, value)| right.get(name).is_some_and(|other| equal(value, other)))
    };
    let same_metadata = match (left.get("metadata"), right.get("metadata")) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => same_fields(left, right, "managedFields"),
        (left, right) => left == right,
    };
    same_metadata && same_fields(left, right, "metadata")
}

/// Fields that name an object or are the server's own: nobody's, by any write.
static UNTRACKED: LazyLock<Set> = LazyLock::new(|| {
    const METADATA: &[&str] = &[
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let top = ["apiVersion", "kind", "metadata"].into_iter().map(|name| vec![PathElement::field(name)]);
    let metadata = METADATA.iter().map(|name| vec![PathElement::field("metadata"), PathElement::field(name)]);
    Set::of(top.chain(metadata))
});

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    take_managed_fields(&mut object);
    object
}

fn put_managed_fields(object: &mut Value, managers: &Managers) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match managers.encode() {
        Some(list) => metadata.insert("managedFields".to_owned(), list),
        None => metadata.remove("managedFields"),
    };
}

fn uid(object: &Value) -> &str {
    object.get("metadata").and_then(|metadata| metadata.get("uid")).and_then(Value::as_str).unwrap_or_default()
}

/// Keeps the annotation of client-side apply true, so that a client that goes back to it finds what it left.
fn renew_last_applied(object: &mut Value, config: &Value) {
    let annotations = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = config.clone();
    if let Some(Value::Object(annotations)) =
        applied.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
    {
        annotations.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{}\n", go::json(&applied))));
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}
