//! Objects in the version of a request, and back in the stored one.

use k3sd_apiserver_store::{Catalog, Resource, Stored, VersionError, to_version};
use k3sd_objects::apply::Versions;
use k3sd_objects::schema::SchemaRef;
use k3sd_objects::status::Status;
use serde_json::Value;

/// Brings an object from any of its versions into that of a resource.
pub(crate) fn to_resource(value: Value, resource: &Resource) -> Result<Value, Status> {
    let is_custom = resource.custom.is_some();
    to_version(value, &resource.api_version, resource.schema.get(), is_custom).map_err(internal)
}

/// Brings an object from the version of a request into the stored one.
pub(crate) fn to_stored(value: Value, stored: &Stored, catalog: &Catalog) -> Result<Value, Status> {
    let to = &stored.api_version;
    if crate::meta::field(&value, "apiVersion") == &**to {
        return Ok(value);
    }
    let (group, version) = to.rsplit_once('/').unwrap_or(("", to));
    // A definition that changed its schema only still has the store that it began with.
    match catalog.resource(group, version, &stored.plural) {
        Some(resource) => to_resource(value, resource),
        None => to_version(value, to, stored.schema.get(), stored.definition_uid.is_some()).map_err(internal),
    }
}

fn internal(error: VersionError) -> Status {
    Status::internal_error(error)
}

/// The versions of a resource, for those who keep track of fields.
pub(crate) struct ResourceVersions<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) resource: &'a Resource,
}

impl ResourceVersions<'_> {
    fn version(&self, api_version: &str) -> Option<&Resource> {
        if api_version == &*self.resource.api_version {
            return Some(self.resource);
        }
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.catalog.resource(group, version, &self.resource.plural).map(|resource| &**resource)
    }
}

impl Versions for ResourceVersions<'_> {
    fn schema(&self, api_version: &str) -> Option<SchemaRef<'_>> {
        self.version(api_version).map(|resource| resource.schema.get())
    }

    fn convert(&self, object: &Value, _from: &str, to: &str) -> Result<Value, String> {
        let Some(resource) = self.version(to) else { return Err(format!("version {to} is not served")) };
        to_resource(object.clone(), resource).map_err(|status| status.message)
    }
}
