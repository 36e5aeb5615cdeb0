//! `componentstatuses`: how the parts of the control plane are. Deprecated, and asked for still.

use k3sd_objects::status::{Qualified, Status};
use serde_json::{Value, json};

use crate::api::Api;

/// A part of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name, such as `scheduler`.
    pub name: String,
    /// What it says about itself, usually `ok`, or what is wrong with it.
    pub health: Result<String, String>,
}

/// All parts, sorted by name.
fn components(api: &Api) -> Vec<Component> {
    let mut all = (api.special().components)();
    let health = if api.stores().storage().is_open() { Ok("ok".to_owned()) } else { Err("not open".to_owned()) };
    all.push(Component { name: "etcd-0".to_owned(), health });
    all.sort_by(|left, right| left.name.cmp(&right.name));
    all
}

fn object(component: &Component) -> Value {
    let condition = match &component.health {
        Ok(message) => json!({"type": "Healthy", "status": "True", "message": message}),
        Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
    };
    json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": component.name},
        "conditions": [condition]})
}

/// One of them.
///
/// # Errors
/// 404 for another name.
pub(super) fn get(api: &Api, name: &str) -> Result<Value, Status> {
    let found = components(api).into_iter().find(|component| component.name == name);
    found.as_ref().map(object).ok_or_else(|| Status::not_found(Qualified::new("", "componentstatuses"), name))
}

/// All of them whose labels and fields match; they have no labels, and their name is their only field.
pub(super) fn list(api: &Api, matches: impl Fn(&str) -> bool) -> Vec<Value> {
    components(api).iter().filter(|component| matches(&component.name)).map(object).collect()
}
