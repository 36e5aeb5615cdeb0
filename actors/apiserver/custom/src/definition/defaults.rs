//! Whether the defaults of a schema are what the schema itself asks for.

use k3sd_objects::schema::{Arena, SchemaRef};
use k3sd_objects::status::field::{Error, Path};

use crate::prune::prune_by;

/// What is wrong with the defaults of a schema, whose root is at `path`.
pub(super) fn validate(arena: &Arena, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    walk(arena.root(), path, &mut errors);
    errors
}

/// Defaults below `additionalProperties` are never filled in, and so never looked at.
fn walk(schema: SchemaRef<'_>, path: &Path, errors: &mut Vec<Error>) {
    if let Some(default) = schema.default() {
        let at = path.child("default");
        let mut pruned = default.clone();
        prune_by(&mut pruned, schema, &mut String::new(), &mut Vec::new());
        if pruned != *default {
            errors.push(Error::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        errors.extend(k3sd_objects::validate::validate_at(default, schema, &at));
    }
    if let Some(item) = schema.item() {
        walk(item, &path.child("items"), errors);
    }
    for property in schema.properties() {
        // The metadata of whole objects has no defaults of the schema's.
        if schema.is_embedded() && property.name == "metadata" {
            continue;
        }
        walk(property.schema, &path.child("properties").key(property.name), errors);
    }
}
