//! JSON patch (RFC 6902), with the liberties that upstream's implementation takes.
//!
//! Indices may be negative and count from the end; `replace` sets a field that isn't there yet; `copy` of a field that
//! isn't there copies null; a missing field passes a `test` for null. Controllers in the wild rely on some of these.

use serde_json::{Map, Value};

use super::{PatchError, type_name};
use crate::decode::DEPTH_MAX;

/// Operations that one patch may have.
pub const OPERATIONS_MAX: usize = 10_000;

/// Bytes that all `copy` operations of a patch may add together; upstream's body limit.
pub const COPY_BYTES_MAX: usize = 3 << 20;

/// Steps that a patch may take in all: values walked through to measure them, and items of lists moved aside, of which
/// [`ITEMS_PER_STEP`] are one step. Ten thousand moves of a huge list would take minutes otherwise.
const STEPS_MAX: usize = 20_000_000;

/// Items that move as quickly as one value is measured.
const ITEMS_PER_STEP: usize = 32;

/// Applies all operations in order, or none.
///
/// # Errors
///
/// Fails if the patch isn't a list of operations, has too many of them, or if one does not apply.
pub fn apply_json_patch(object: Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = patch.as_array().ok_or_else(|| malformed(patch, "[]handlers.jsonPatchOp"))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut document = Document { root: object, copied_bytes: 0, steps: 0 };
    for operation in operations {
        let operation = operation.as_object().ok_or_else(|| malformed(operation, "handlers.jsonPatchOp"))?;
        document.apply(operation)?;
    }
    Ok(document.root)
}

fn malformed(value: &Value, wanted: &str) -> PatchError {
    let name = type_name(value);
    PatchError::Malformed(format!("error decoding patch: json: cannot unmarshal {name} into Go value of type {wanted}"))
}

fn unfit<T>(text: String) -> Result<T, PatchError> {
    Err(PatchError::Unfit(text))
}

/// The object as it changes, and what has been spent on it.
struct Document {
    root: Value,
    copied_bytes: usize,
    steps: usize,
}

/// The steps of a JSON pointer, decoded. A pointer to the root has none.
fn pointer(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let steps = text.strip_prefix('/')?.split('/');
    Some(steps.map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// The place in a list of this length, counted from its end if negative.
fn index(step: &str, len: usize) -> Option<usize> {
    let index: i64 = step.parse().ok()?;
    let len = i64::try_from(len).ok()?;
    usize::try_from(if index < 0 { index + len } else { index }).ok()
}

impl Document {
    fn apply(&mut self, operation: &Map<String, Value>) -> Result<(), PatchError> {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let kind = text("op").unwrap_or("unknown");
        let path = |name: &str| match text(name) {
            Some(path) => match pointer(path) {
                Some(steps) => Ok(steps),
                None => unfit(format!("{kind} operation: {name} {path:?} does not begin with a slash")),
            },
            None => unfit(format!("{kind} operation lacks {name}")),
        };
        let value = operation.get("value");
        match kind {
            "add" => self.add(&path("path")?, value.cloned().unwrap_or_default()),
            "remove" => self.remove(&path("path")?).map(drop),
            "replace" => self.replace(&path("path")?, value.cloned().unwrap_or_default()),
            "move" => {
                let (from, to) = (path("from")?, path("path")?);
                let moved = self.remove(&from)?;
                self.add(&to, moved)
            }
            "copy" => {
                let (from, to) = (path("from")?, path("path")?);
                let copy = self.read(&from)?.cloned().unwrap_or_default();
                self.count_copy(&copy)?;
                self.add(&to, copy)
            }
            "test" => {
                let path = path("path")?;
                let found = self.read(&path)?.filter(|found| !found.is_null());
                let wanted = value.filter(|wanted| !wanted.is_null());
                if found == wanted { Ok(()) } else { unfit(format!("testing value /{} failed", path.join("/"))) }
            }
            other => unfit(format!("unexpected kind: {other}")),
        }
    }

    /// The object or list that holds what the last step names, and that step.
    fn parent<'p>(&mut self, path: &'p [String]) -> Result<(&mut Value, &'p str), PatchError> {
        let missing = || PatchError::Unfit(format!("doc is missing path: /{}", path.join("/")));
        let (last, steps) = path.split_last().ok_or_else(missing)?;
        let mut place = &mut self.root;
        for step in steps {
            place = match place {
                Value::Object(fields) => fields.get_mut(step),
                Value::Array(items) => index(step, items.len()).and_then(|index| items.get_mut(index)),
                _ => None,
            }
            .ok_or_else(missing)?;
        }
        if place.is_object() || place.is_array() { Ok((place, last)) } else { Err(missing()) }
    }

    /// The value at a path. `None` is a field that isn't there; an item that isn't there is an error.
    fn read(&mut self, path: &[String]) -> Result<Option<&Value>, PatchError> {
        if path.is_empty() {
            return Ok(Some(&self.root));
        }
        let (parent, step) = self.parent(path)?;
        match parent {
            Value::Array(items) => match index(step, items.len()).and_then(|index| items.get(index)) {
                Some(item) => Ok(Some(item)),
                None => unfit(format!("unable to access invalid index: {step}")),
            },
            parent => Ok(parent.get(step)),
        }
    }

    fn add(&mut self, path: &[String], value: Value) -> Result<(), PatchError> {
        self.count_depth(path, &value)?;
        let (parent, step) = self.parent(path)?;
        let items = match parent {
            Value::Array(items) => items,
            parent => {
                parent.as_object_mut().expect("a parent is an object or a list").insert(step.to_owned(), value);
                return Ok(());
            }
        };
        // A negative index counts from behind the last item here, so that -1 appends.
        let place = if step == "-" { Some(items.len()) } else { index(step, items.len() + 1) };
        match place.filter(|place| *place <= items.len()) {
            Some(place) => {
                let moved = items.len() - place;
                items.insert(place, value);
                self.count_steps(moved / ITEMS_PER_STEP)
            }
            None => unfit(format!("unable to access invalid index: {step}")),
        }
    }

    fn remove(&mut self, path: &[String]) -> Result<Value, PatchError> {
        let (parent, step) = self.parent(path)?;
        let Value::Array(items) = parent else {
            let removed = parent.as_object_mut().and_then(|fields| fields.remove(step));
            return removed.ok_or_else(|| PatchError::Unfit(format!("unable to remove nonexistent key: {step}")));
        };
        match index(step, items.len()).filter(|index| *index < items.len()) {
            Some(index) => {
                let moved = items.len() - index;
                let removed = items.remove(index);
                self.count_steps(moved / ITEMS_PER_STEP)?;
                Ok(removed)
            }
            None => unfit(format!("unable to access invalid index: {step}")),
        }
    }

    fn replace(&mut self, path: &[String], value: Value) -> Result<(), PatchError> {
        self.count_depth(path, &value)?;
        if path.is_empty() {
            if !value.is_object() && !value.is_array() {
                return unfit("replace operation value must be object or array".to_owned());
            }
            self.root = value;
            return Ok(());
        }
        let (parent, step) = self.parent(path)?;
        match parent {
            Value::Array(items) => match index(step, items.len()).and_then(|index| items.get_mut(index)) {
                Some(item) => *item = value,
                None => return unfit(format!("doc is missing key: /{}", path.join("/"))),
            },
            parent => {
                parent.as_object_mut().expect("a parent is an object or a list").insert(step.to_owned(), value);
            }
        }
        Ok(())
    }

    /// Spends steps.
    fn count_steps(&mut self, steps: usize) -> Result<(), PatchError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX { unfit("the patch takes too many steps".to_owned()) } else { Ok(()) }
    }

    /// Makes sure that the value does not reach deeper below the path than the decoder would read, since trees without
    /// a limit exhaust a stack when they are written or dropped; and spends a step per value inside it.
    fn count_depth(&mut self, path: &[String], value: &Value) -> Result<(), PatchError> {
        let mut level: Vec<&Value> = vec![value];
        let mut depth = path.len();
        while !level.is_empty() {
            if depth > DEPTH_MAX {
                return unfit(format!("the patch builds more than {DEPTH_MAX} levels"));
            }
            self.count_steps(level.len())?;
            let mut below = Vec::new();
            for value in level {
                match value {
                    Value::Object(fields) => below.extend(fields.values()),
                    Value::Array(items) => below.extend(items),
                    _ => {}
                }
            }
            level = below;
            depth += 1;
        }
        Ok(())
    }

    /// Spends the bytes of a copy.
    fn count_copy(&mut self, copy: &Value) -> Result<(), PatchError> {
        self.copied_bytes += copy.to_string().len();
        if self.copied_bytes <= COPY_BYTES_MAX {
            return Ok(());
        }
        let bytes = self.copied_bytes;
        unfit(format!("the accumulated size increase of copy is {bytes}, exceeding the limit {COPY_BYTES_MAX}"))
    }
}
