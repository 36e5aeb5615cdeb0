//! One object in another version of its kind.
//!
//! Most versions of a kind differ in their name only. Two kinds are served in versions that say the same in other words:
//! events, of core and of their own group, and autoscalers, whose older version keeps what it can't say in annotations.
//! What is stored is the resource's storage version, so each request in another one passes here twice.

mod autoscalers;
mod events;
#[cfg(test)]
mod tests;

use serde_json::Value;
use thiserror::Error;

use crate::decode::normalize;
use crate::schema::{SchemaRef, kind_schema};

/// Why an object has no other version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConvertError {
    /// The kind does not exist there.
    #[error("{kind} has no version {to:?}")]
    Unknown {
        /// Its kind.
        kind: String,
        /// The group and version that were asked for.
        to: String,
    },
    /// The versions are built differently, and no code of ours knows how.
    #[error("{kind} can't be converted from {from:?} to {to:?}")]
    Unsupported {
        /// Its kind.
        kind: String,
        /// The version it has.
        from: String,
        /// The group and version that were asked for.
        to: String,
    },
}

/// Brings an object of a built-in kind, in upstream's form, into another version.
pub fn convert(mut value: Value, to: &str) -> Result<Value, ConvertError> {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (from, kind) = (text("apiVersion"), text("kind"));
    if from == to {
        return Ok(value);
    }
    let Some(schema) = kind_schema(to, &kind) else {
        return Err(ConvertError::Unknown { kind, to: to.to_owned() });
    };
    let Value::Object(map) = &mut value else { return Err(ConvertError::Unknown { kind, to: to.to_owned() }) };
    match (kind.as_str(), from.as_str(), to) {
        ("Event", "v1", "events.k8s.io/v1") => events::to_own_group(map),
        ("Event", "events.k8s.io/v1", "v1") => events::to_core(map),
        ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2") => autoscalers::to_v2(map),
        ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1") => autoscalers::to_v1(map),
        _ if !same_shape(kind_schema(&from, &kind), schema) => {
            return Err(ConvertError::Unsupported { kind, from, to: to.to_owned() });
        }
        _ => {}
    }
    map.insert("apiVersion".to_owned(), Value::from(to));
    normalize(&mut value, schema);
    Ok(value)
}

/// Whether two versions have the same fields, as far as whole types tell: the same field names level by level.
fn same_shape(from: Option<SchemaRef<'_>>, to: SchemaRef<'_>) -> bool {
    fn alike(from: SchemaRef<'_>, to: SchemaRef<'_>, depth: usize) -> bool {
        /// Deeper than that, versions of one kind share their types.
        const DEPTH_MAX: usize = 12;
        if depth > DEPTH_MAX || from == to {
            return true;
        }
        let inner = |schema: SchemaRef<'_>| schema.item().is_some() || schema.values().is_some();
        if from.kind() != to.kind() || inner(from) != inner(to) {
            return false;
        }
        if let (Some(from), Some(to)) = (from.item().or_else(|| from.values()), to.item().or_else(|| to.values())) {
            return alike(from, to, depth + 1);
        }
        // The newer version may have more; what is lost on the way to the older one, it never had.
        from.properties().all(|property| {
            to.property(property.name).is_some_and(|other| alike(property.schema, other.schema, depth + 1))
        })
    }
    from.is_some_and(|from| alike(from, to, 0) && alike(to, from, 0))
}
