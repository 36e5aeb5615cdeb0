//! Reviews: questions about who may do what, and who somebody is. Nothing is stored.

use k3sd_apiserver_access::{Decision, RequestInfo, User};
use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Map, Value, json};

use super::read::{items, text, texts};

/// The group of the reviews of rights.
pub(crate) const AUTHORIZATION: &str = "authorization.k8s.io";

/// What a review of rights asks: who, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Who would ask.
    pub(crate) user: User,
    /// What for.
    pub(crate) request: RequestInfo,
}

/// Whose rights a review is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// Of whom the review names.
    Named,
    /// Of whoever sends it.
    Sender(&'a User),
}

/// Reads a `SubjectAccessReview`, a `LocalSubjectAccessReview` (`namespace` is that of the path then, else empty), or a
/// `SelfSubjectAccessReview`.
///
/// # Errors
/// 422 for what makes no question, 400 for another namespace.
pub(crate) fn question(review: &Value, about: About<'_>, namespace: &str) -> Result<Question, Status> {
    let kind = text(review, "/kind");
    let mut errors = check(&review["spec"], about);
    let local = kind == "LocalSubjectAccessReview";
    if local {
        let spec = Path::new("spec");
        let place = text(review, "/metadata/namespace");
        let asked = &review["spec"]["resourceAttributes"];
        if !asked.is_null() && text(asked, "/namespace") != place {
            let path = spec.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&path, text(asked, "/namespace"), "must match metadata.namespace"));
        }
        let plain = &review["spec"]["nonResourceAttributes"];
        if !plain.is_null() {
            let path = spec.child("nonResourceAttributes");
            errors.push(Error::invalid(&path, plain.clone(), "disallowed on this kind of request"));
        }
    }
    errors.extend(check_metadata(&review["metadata"], local));
    if !errors.is_empty() {
        return Err(Status::invalid(Qualified::new(AUTHORIZATION, kind), "", &errors));
    }
    if local && text(review, "/metadata/namespace") != namespace {
        let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(Status::bad_request(why));
    }
    let user = match about {
        About::Sender(user) => user.clone(),
        About::Named => named(&review["spec"]),
    };
    Ok(Question { user, request: request(&review["spec"]) })
}

fn check(spec: &Value, about: About<'_>) -> Vec<Error> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let (resource, plain) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if !resource.is_null() && !plain.is_null() {
        let place = path.child("nonResourceAttributes");
        errors.push(Error::invalid(
            &place,
            plain.clone(),
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if resource.is_null() && plain.is_null() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(&path.child("resourceAttributes"), Value::Null, detail));
    }
    if matches!(about, About::Named) && text(spec, "/user").is_empty() && items(spec, "/groups").is_empty() {
        errors.push(Error::invalid(&path.child("user"), "", "at least one of user or group must be specified"));
    }
    for field in ["labelSelector", "fieldSelector"] {
        let selector = &resource[field];
        let (raw, list) = (text(selector, "/rawSelector"), items(selector, "/requirements"));
        let place = path.child("resourceAttributes").child(field);
        if !raw.is_empty() && !list.is_empty() {
            let detail = "may not specified at the same time as requirements";
            errors.push(Error::invalid(&place.child("rawSelector"), raw, detail));
        }
        if !selector.is_null() && raw.is_empty() && list.is_empty() {
            let detail = format!("when {} is specified, requirements or rawSelector is required", place);
            errors.push(Error::required(&place.child("requirements"), detail));
        }
    }
    errors
}

fn check_metadata(metadata: &Value, local: bool) -> Option<Error> {
    let set = |(key, value): (&String, &Value)| {
        let ours = ["managedFields", "creationTimestamp"].contains(&key.as_str()) || (local && key == "namespace");
        !ours && !value.is_null()
    };
    let detail = if local { "must be empty except for namespace" } else { "must be empty" };
    metadata
        .as_object()
        .is_some_and(|metadata| metadata.iter().any(set))
        .then(|| Error::invalid(&Path::new("metadata"), metadata.clone(), detail))
}

fn named(spec: &Value) -> User {
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: owned(texts(spec, "/groups")),
        extra: extra.map(|(key, values)| (key.to_lowercase(), owned(texts(values, "")))).collect(),
    }
}

fn request(spec: &Value) -> RequestInfo {
    let resource = &spec["resourceAttributes"];
    if resource.is_null() {
        let plain = &spec["nonResourceAttributes"];
        let (verb, path) = (text(plain, "/verb").to_owned(), text(plain, "/path").to_owned());
        return RequestInfo { verb, path, ..RequestInfo::default() };
    }
    let field = |name: &str| resource[name].as_str().unwrap_or_default().to_owned();
    RequestInfo {
        is_resource: true,
        verb: field("verb"),
        group: field("group"),
        version: field("version"),
        namespace: field("namespace"),
        resource: field("resource"),
        subresource: field("subresource"),
        name: field("name"),
        field_selector: selector(&resource["fieldSelector"]),
        label_selector: selector(&resource["labelSelector"]),
        ..RequestInfo::default()
    }
}

/// A selector of a review as a list would send it. One that can't be said that way is left out, which allows less.
fn selector(selector: &Value) -> String {
    let raw = text(selector, "/rawSelector");
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let said = items(selector, "/requirements").iter().filter_map(|one| {
        let (key, values) = (text(one, "/key"), texts(one, "/values"));
        match (text(one, "/operator"), values.as_slice()) {
            ("In", [value]) => Some(format!("{key}={value}")),
            ("NotIn", [value]) => Some(format!("{key}!={value}")),
            ("Exists", []) => Some(key.to_owned()),
            ("DoesNotExist", []) => Some(format!("!{key}")),
            _ => None,
        }
    });
    said.collect::<Vec<_>>().join(",")
}

/// The review with its answer.
pub(crate) fn answered(mut review: Value, decision: &Decision) -> Value {
    let (allowed, denied, reason) = match decision {
        Decision::Allow { reason } => (true, false, reason),
        Decision::Deny { reason } => (false, true, reason),
        Decision::NoOpinion { reason } => (false, false, reason),
    };
    let mut status = Map::new();
    status.insert("allowed".to_owned(), allowed.into());
    if denied {
        status.insert("denied".to_owned(), true.into());
    }
    if !reason.is_empty() {
        status.insert("reason".to_owned(), reason.as_str().into());
    }
    review["status"] = Value::Object(status);
    review
}

/// Somebody as reviews show them; what is empty is left out.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    for (key, value) in [("username", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            info.insert(key.to_owned(), value.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(kind: &str, spec: Value) -> Value {
        json!({"kind": kind, "apiVersion": "authorization.k8s.io/v1", "metadata": {"creationTimestamp": null}, "spec": spec})
    }

    #[test]
    fn questions_are_read() {
        let spec = json!({"user": "u", "groups": ["g"], "uid": "1", "extra": {"Key": ["v"]},
            "resourceAttributes": {"namespace": "n", "verb": "list", "group": "apps", "version": "v1",
                "resource": "deployments", "subresource": "scale", "name": "d",
                "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]}]},
                "labelSelector": {"rawSelector": "x=y"}}});
        let question = question(&review("SubjectAccessReview", spec), About::Named, "").expect("read");
        assert_eq!((question.user.name.as_str(), question.user.groups.as_slice()), ("u", &["g".to_owned()][..]));
        assert_eq!(question.user.extra["key"], ["v"]);
        let request = question.request;
        assert_eq!((request.combined_resource().as_str(), request.name.as_str()), ("deployments/scale", "d"));
        assert_eq!((request.field_selector.as_str(), request.label_selector.as_str()), ("spec.nodeName=a", "x=y"));
        assert!(request.is_resource);
    }

    #[test]
    fn a_path_is_no_resource_and_the_sender_is_the_user() {
        let me = User::new("me", &["mine"]);
        let spec = json!({"nonResourceAttributes": {"path": "/healthz", "verb": "get"}});
        let asked = question(&review("SelfSubjectAccessReview", spec), About::Sender(&me), "").expect("read");
        assert_eq!((asked.user, asked.request.path.as_str(), asked.request.is_resource), (me, "/healthz", false));
    }

    #[test]
    fn refusals() {
        let one = json!({"namespace": "other", "verb": "get", "resource": "pods"});
        for (kind, spec, expected) in [
            (
                "SubjectAccessReview",
                json!({"user": "u"}),
                "spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes \
              must be specified",
            ),
            (
                "SubjectAccessReview",
                json!({"resourceAttributes": {"verb": "get"}}),
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ),
            (
                "LocalSubjectAccessReview",
                json!({"user": "u", "resourceAttributes": one}),
                "spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace",
            ),
        ] {
            let mut review = review(kind, spec);
            if kind.starts_with("Local") {
                review["metadata"]["namespace"] = json!("n");
            }
            let status = question(&review, About::Named, "n").expect_err("refused");
            let expected = format!("{kind}.authorization.k8s.io \"\" is invalid: {expected}");
            assert_eq!((status.code, status.message), (422, expected));
        }
        let mut local = review(
            "LocalSubjectAccessReview",
            json!({"user": "u", "resourceAttributes": {"namespace": "n", "verb": "get", "resource": "pods"}}),
        );
        local["metadata"]["namespace"] = json!("n");
        assert!(question(&local, About::Named, "n").is_ok());
        assert_eq!(question(&local, About::Named, "m").expect_err("elsewhere").code, 400);
    }

    #[test]
    fn answers() {
        for (decision, status) in [
            (Decision::Allow { reason: "r".to_owned() }, json!({"allowed": true, "reason": "r"})),
            (Decision::NoOpinion { reason: String::new() }, json!({"allowed": false})),
            (Decision::Deny { reason: "d".to_owned() }, json!({"allowed": false, "denied": true, "reason": "d"})),
        ] {
            assert_eq!(answered(json!({}), &decision)["status"], status);
        }
        assert_eq!(user_info(&User::new("u", &[])), json!({"username": "u"}));
    }
}
