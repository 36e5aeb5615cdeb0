//! The paths of a version, with what can be done there.

use k3sd_apiserver_store::{Resource, Schema, Subresource, Version};
use k3sd_objects::schema::openapi::model_name;
use k3sd_objects::schema::{builtin, kind_schema};

use crate::openapi::custom;
use crate::openapi::operation::{Body, Operation, Parameter, Type};

use Type::{Number, Text, Truth};

const DRY_RUN: Parameter = ("dryRun", Text, "All: do everything but keep the outcome");
const FIELD_MANAGER: Parameter = ("fieldManager", Text, "the name under which the fields that are written are owned");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    Text,
    "what happens to unknown and duplicate fields: Ignore, Warn (which is the default) or Strict",
);
const FORCE: Parameter = ("force", Truth, "whether an apply takes fields from their other owners");

const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", Truth, "whether a watch also tells how far it is"),
    ("continue", Text, "goes on where a page of a list ended"),
    ("fieldSelector", Text, "only objects with such fields"),
    ("labelSelector", Text, "only objects with such labels"),
    ("limit", Number, "at most so many objects in a page"),
    ("resourceVersion", Text, "how fresh the answer has to be, or where a watch begins"),
    ("resourceVersionMatch", Text, "how resourceVersion is meant: Exact or NotOlderThan"),
    ("sendInitialEvents", Truth, "whether a watch begins with the objects there are"),
    ("timeoutSeconds", Number, "ends the call after this time"),
    ("watch", Truth, "whether changes are told as they happen"),
];

const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", Number, "how long the object has to end; 0 is at once"),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        Truth,
        "whether an object is deleted that can't be read any more",
    ),
    ("orphanDependents", Truth, "the older form of propagationPolicy"),
    ("propagationPolicy", Text, "what happens to dependents: Orphan, Background or Foreground"),
];

const LOG: &[Parameter] = &[
    ("container", Text, "the container; needed when there are several"),
    ("follow", Truth, "whether lines are told as they come"),
    ("insecureSkipTLSVerifyBackend", Truth, "whether the node's certificate goes unchecked"),
    ("limitBytes", Number, "ends after so many bytes"),
    ("previous", Truth, "of the container's former life"),
    ("sinceSeconds", Number, "only lines that are younger"),
    ("stream", Text, "All, Stdout or Stderr"),
    ("tailLines", Number, "only so many lines of the end"),
    ("timestamps", Truth, "whether each line has its time"),
];

const STREAMS: [Parameter; 4] = [
    ("stderr", Truth, "whether errors are sent back"),
    ("stdin", Truth, "whether input is sent"),
    ("stdout", Truth, "whether output is sent back"),
    ("tty", Truth, "whether there is a terminal"),
];
const CONTAINER: Parameter = ("container", Text, "the container; needed when there are several");
const COMMAND: Parameter = ("command", Text, "the program and its arguments, one parameter each");
const PORTS: Parameter = ("ports", Number, "the ports of a pod");
const PROXY_PATH: Parameter = ("path", Text, "the path behind the proxy");

/// All paths of a version with their operations, and the types whose models they name.
pub(super) fn of(group: &str, version: &Version) -> Vec<(String, Vec<Operation>)> {
    let base =
        if group.is_empty() { format!("/api/{}", version.name) } else { format!("/apis/{group}/{}", version.name) };
    let mut all = Vec::new();
    for resource in &version.resources {
        let routes = Routes { resource, infix: infix(group, &version.name), tag: tag(group, &version.name) };
        routes.add(&base, &mut all);
    }
    all
}

/// The model of a resource's objects, and of its lists.
pub(super) fn models(resource: &Resource) -> Option<(String, String)> {
    match &resource.schema {
        Schema::Builtin(schema) => {
            let name = model_name(schema.type_name()?);
            let list = format!("{name}List");
            Some((name, list))
        }
        Schema::Custom(_) => {
            Some((custom::name(resource, &resource.kind), custom::name(resource, &resource.list_kind)))
        }
    }
}

/// The built-in types of a version's objects, lists and subresources.
pub(super) fn types(version: &Version) -> Vec<String> {
    let mut types = vec!["meta.v1.Status".to_owned(), "meta.v1.DeleteOptions".to_owned()];
    for resource in &version.resources {
        let own = match &resource.schema {
            Schema::Builtin(schema) => schema.type_name().map(str::to_owned),
            Schema::Custom(_) => None,
        };
        let list = own.as_ref().map(|own| format!("{own}List")).filter(|list| builtin().type_named(list).is_some());
        let below = resource.subresources.iter().filter_map(subresource_type);
        types.extend(own.into_iter().chain(list).chain(below));
        if resource.custom.is_some() {
            types.extend(["meta.v1.ObjectMeta", "meta.v1.ListMeta"].map(str::to_owned));
        }
    }
    types.sort();
    types.dedup();
    types
}

fn subresource_type(subresource: &Subresource) -> Option<String> {
    let version = if subresource.group.is_empty() {
        subresource.version.to_string()
    } else {
        format!("{}/{}", subresource.group, subresource.version)
    };
    kind_schema(&version, &subresource.kind)?.type_name().map(str::to_owned)
}

/// `CoreV1`, `RbacAuthorizationV1`: the middle of the names of operations.
fn infix(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split(['.', '-']).chain([version]).map(title).collect()
}

/// `core_v1`, `rbacAuthorization_v1`.
fn tag(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    let mut parts = group.split(['.', '-']);
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(title).collect::<String>() + "_" + version
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

struct Routes<'a> {
    resource: &'a Resource,
    infix: String,
    tag: String,
}

impl Routes<'_> {
    fn add(&self, base: &str, all: &mut Vec<(String, Vec<Operation>)>) {
        let resource = self.resource;
        let Some((model, list)) = models(resource) else { return };
        let plural = &resource.plural;
        let mut collection = format!("{base}/{plural}");
        if resource.namespaced {
            if self.can("list") {
                let everywhere = self.listing(&format!("{}ForAllNamespaces", resource.kind), &list);
                all.push((collection, vec![everywhere]));
            }
            collection = format!("{base}/namespaces/{{namespace}}/{plural}");
        }
        let operations = self.on_collection(&model, &list);
        if !operations.is_empty() {
            all.push((collection.clone(), operations));
        }
        let object = format!("{collection}/{{name}}");
        let operations = self.on_object(&model);
        if !operations.is_empty() {
            all.push((object.clone(), operations));
        }
        for subresource in &resource.subresources {
            let path = format!("{object}/{}", subresource.name);
            all.push((path.clone(), self.on_subresource(subresource, &model, "")));
            if &*subresource.name == "proxy" {
                all.push((format!("{path}/{{path}}"), self.on_subresource(subresource, &model, "WithPath")));
            }
        }
    }

    fn can(&self, verb: &str) -> bool {
        self.resource.verbs.contains(&verb)
    }

    /// `NamespacedPod`.
    fn subject(&self) -> String {
        let namespaced = if self.resource.namespaced { "Namespaced" } else { "" };
        format!("{namespaced}{}", self.resource.kind)
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, model: &str) -> Operation {
        let resource = self.resource;
        Operation {
            method,
            id,
            action,
            description: format!("{action} {}", resource.kind),
            parameters: Vec::new(),
            body: None,
            responses: vec![(200, model.to_owned())],
            kind: [&resource.group, &resource.version, &resource.kind].map(|part| part.to_string()),
            builtin: resource.custom.is_none(),
            streams: false,
            tag: self.tag.clone(),
        }
    }

    fn listing(&self, subject: &str, list: &str) -> Operation {
        let id = format!("list{}{subject}", self.infix);
        let description = format!("list or watch {}", self.resource.plural);
        let operation = self.operation("get", "list", id, list);
        Operation { description, parameters: LIST.to_vec(), streams: self.can("watch"), ..operation }
    }

    fn on_collection(&self, model: &str, list: &str) -> Vec<Operation> {
        let (infix, subject) = (&self.infix, self.subject());
        let mut operations = Vec::new();
        if self.can("list") {
            operations.push(self.listing(&subject, list));
        }
        if self.can("create") {
            operations.push(self.writing("post", "post", format!("create{infix}{subject}"), model));
        }
        if self.can("deletecollection") {
            let id = format!("delete{infix}Collection{subject}");
            let operation = self.operation("delete", "deletecollection", id, STATUS);
            let parameters = DELETE.iter().chain(LIST).filter(|(name, ..)| !WATCHING.contains(name)).copied().collect();
            operations.push(Operation { parameters, body: Some(delete_options()), ..operation });
        }
        operations
    }

    fn on_object(&self, model: &str) -> Vec<Operation> {
        let (infix, subject) = (&self.infix, self.subject());
        let mut operations = Vec::new();
        if self.can("get") {
            operations.push(self.operation("get", "get", format!("read{infix}{subject}"), model));
        }
        if self.can("update") {
            operations.push(self.writing("put", "put", format!("replace{infix}{subject}"), model));
        }
        if self.can("patch") {
            operations.push(self.writing("patch", "patch", format!("patch{infix}{subject}"), model));
        }
        if self.can("delete") {
            // Pods and a few others answer with the object; a client takes either.
            operations.push(self.deleting(format!("delete{infix}{subject}"), STATUS));
        }
        operations
    }

    fn deleting(&self, id: String, model: &str) -> Operation {
        let operation = self.operation("delete", "delete", id, model);
        let responses = vec![(200, model.to_owned()), (202, model.to_owned())];
        Operation { parameters: DELETE.to_vec(), body: Some(delete_options()), responses, ..operation }
    }

    /// An operation that keeps what it is given.
    fn writing(&self, method: &'static str, action: &'static str, id: String, model: &str) -> Operation {
        let operation = self.operation(method, action, id, model);
        let mut parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let mut codes = vec![200, 201];
        let mut body = Body::Model { name: model.to_owned(), required: true };
        match method {
            "patch" => {
                parameters.push(FORCE);
                body = Body::Patch;
            }
            "post" => codes.push(202),
            _ => {}
        }
        let responses = codes.into_iter().map(|code| (code, model.to_owned())).collect();
        Operation { parameters, body: Some(body), responses, ..operation }
    }

    fn on_subresource(&self, subresource: &Subresource, main: &str, suffix: &str) -> Vec<Operation> {
        let own = [&subresource.group, &subresource.version, &subresource.kind].map(|part| part.to_string());
        let same = *subresource.kind == *self.resource.kind;
        let model = if same { Some(main.to_owned()) } else { subresource_type(subresource).map(|of| model_name(&of)) };
        let subject = format!("{}{}{suffix}", self.subject(), title(&subresource.name));
        let infix = &self.infix;
        let connects = subresource.kind.ends_with("Options");
        let make = |verb: &&str| -> Option<Operation> {
            let operation = match (*verb, &model) {
                _ if connects => return self.connecting(verb, subresource, &subject, !suffix.is_empty()),
                ("get", _) if &*subresource.name == "log" => {
                    let operation = self.operation("get", "get", format!("read{infix}{subject}"), "");
                    Operation { parameters: LOG.to_vec(), ..operation }
                }
                ("get", Some(model)) => self.operation("get", "get", format!("read{infix}{subject}"), model),
                ("update", Some(model)) => self.writing("put", "put", format!("replace{infix}{subject}"), model),
                ("patch", Some(model)) => self.writing("patch", "patch", format!("patch{infix}{subject}"), model),
                ("create", Some(model)) => self.writing("post", "post", format!("create{infix}{subject}"), model),
                _ => return None,
            };
            Some(operation)
        };
        let made = subresource.verbs.iter().filter_map(make);
        made.map(|operation| Operation {
            kind: own.clone(),
            description: format!("{} {} of {}", operation.action, subresource.name, self.resource.kind),
            ..operation
        })
        .collect()
    }

    /// Something that is connected to and speaks for itself.
    fn connecting(&self, verb: &str, subresource: &Subresource, subject: &str, path: bool) -> Option<Operation> {
        let method = match verb {
            "get" => "get",
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" => "delete",
            _ => return None,
        };
        let operation =
            self.operation(method, "connect", format!("connect{}{}{subject}", self.infix, title(method)), "");
        let parameters = match &*subresource.name {
            "exec" => [COMMAND, CONTAINER].into_iter().chain(STREAMS).collect(),
            "attach" => [CONTAINER].into_iter().chain(STREAMS).collect(),
            "portforward" => vec![PORTS],
            // The path is in the path already.
            "proxy" if !path => vec![PROXY_PATH],
            _ => Vec::new(),
        };
        Some(Operation { parameters, ..operation })
    }
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Parameters of lists that make no sense for a deletion.
const WATCHING: [&str; 2] = ["watch", "allowWatchBookmarks"];

fn delete_options() -> Body {
    Body::Model { name: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned(), required: false }
}
