//! What becomes of a `TokenRequest`: the claims of the token that is given out, or why there is none.
//!
//! As with checking, there are two steps: [`requested`] says which object has to be read, [`Issuer::issue`] decides.

use k3sd_objects::status::field::{self, Path};
use k3sd_objects::status::{Qualified, Status};
use serde_json::{Value, json};

use super::claims::{Bound, Claims, Reference};
use super::verify::Lookup;

/// Seconds that a token lives if nobody says.
const LIFETIME_DEFAULT: i64 = 60 * 60;
const LIFETIME_MIN: i64 = 10 * 60;
const LIFETIME_MAX: i64 = 1 << 32;
/// The lifetime by which old clients are known that never read their token again, and what they get instead.
const LIFETIME_TO_EXTEND: i64 = 3607;
const LIFETIME_EXTENDED: i64 = 365 * 24 * 60 * 60;
const GROUP: &str = "authentication.k8s.io";

/// By what rules tokens are given out.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The name in the tokens.
    pub name: String,
    /// Whom a token is meant for if nobody says: us.
    pub audiences: Vec<String>,
    /// Whether tokens in pods outlive what was asked for, with a warning when they are used then.
    pub extends: bool,
    /// The longest lifetime in seconds, if it is limited further.
    pub lifetime_max: Option<i64>,
}

/// What a request for a token is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// The service account of the path.
    pub account: &'a Value,
    /// The object of [`requested`], if there was one to read.
    pub bound: Option<&'a Value>,
    /// The node of the pod that was asked for; `None` if it has none or that is gone.
    pub node: Option<&'a Value>,
}

/// A token that may be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it says; to be signed.
    pub claims: Claims,
    /// The answer, but for `status.token`.
    pub answer: Value,
    /// For the client, as a header of the answer.
    pub warning: Option<String>,
}

/// Which object the token shall end with; it is in the namespace of the service account unless it is a node.
///
/// # Errors
///
/// 400 for an object of a kind that no token ends with.
pub fn requested(request: &Value) -> Result<Lookup<'_>, Box<Status>> {
    let reference = &request["spec"]["boundObjectRef"];
    if reference.is_null() {
        return Ok(Lookup::Nothing);
    }
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let name = text("name");
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => Ok(Lookup::Pod(name)),
        ("v1", "Secret") => Ok(Lookup::Secret(name)),
        ("v1", "Node") => Ok(Lookup::Node(name)),
        (version, kind) => {
            let group = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
            let why = format!("cannot bind token to object of type {group}, Kind={kind}");
            Err(Box::new(Status::bad_request(why)))
        }
    }
}

impl Issuer {
    /// Decides about a request at `now` (seconds since 1970). `id` is a new UUID for the token.
    ///
    /// # Errors
    ///
    /// What the client is answered: 422 for a lifetime out of bounds, 400 and 409 for an object that doesn't fit.
    pub fn issue(&self, request: &Value, objects: Objects<'_>, id: &str, now: i64) -> Result<Grant, Box<Status>> {
        let spec = &request["spec"];
        let asked = spec["expirationSeconds"].as_i64().unwrap_or(LIFETIME_DEFAULT);
        check_lifetime(asked)?;
        let account = reference(objects.account);
        let kind = Qualified::new(GROUP, "TokenRequest");
        check_place(request, objects.account)?;
        check_uid(kind, &account.name, &request["metadata"]["uid"], &account.uid, |wanted, found| {
            format!("the UID in the token request ({wanted}) does not match the UID of the service account ({found})")
        })?;
        let bound = bound(request, &account, objects)?;

        let audiences = texts(&spec["audiences"]);
        let audiences = if audiences.is_empty() { self.audiences.clone() } else { audiences };
        let lifetime = self.lifetime_max.map_or(asked, |max| asked.min(max));
        let warning = (lifetime < asked)
            .then(|| format!("requested expiration of {asked} seconds shortened to {lifetime} seconds"));
        let in_pod = matches!(bound, Some(Bound::Pod { .. }));
        let ours = audiences.iter().all(|one| self.audiences.contains(one));
        let extended = self.extends && in_pod && ours && lifetime == LIFETIME_TO_EXTEND;

        let mut answer = request.clone();
        for key in ["name", "namespace"] {
            answer["metadata"][key] = text_at(objects.account, key).into();
        }
        answer["spec"]["audiences"] = json!(audiences);
        answer["spec"]["expirationSeconds"] = lifetime.into();
        // The client learns what it asked for, so that it comes back in time.
        let ends = now.saturating_add(lifetime);
        let text = jiff::Timestamp::from_second(ends).map(|time| time.to_string()).unwrap_or_default();
        answer["status"] = json!({"expirationTimestamp": text});
        let claims = Claims {
            issuer: self.name.clone(),
            audiences,
            expires: Some(if extended { now.saturating_add(LIFETIME_EXTENDED) } else { ends }),
            issued: Some(now),
            not_before: Some(now),
            id: id.to_owned(),
            namespace: text_at(objects.account, "namespace").to_owned(),
            account,
            bound,
            warn_after: extended.then_some(ends),
        };
        Ok(Grant { claims, answer, warning })
    }
}

fn check_lifetime(seconds: i64) -> Result<(), Box<Status>> {
    let why = match seconds {
        ..LIFETIME_MIN => "may not specify a duration less than 10 minutes",
        LIFETIME_MIN..=LIFETIME_MAX => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let path = Path::new("spec").child("expirationSeconds");
    let error = field::Error::invalid(&path, seconds, why);
    Err(Box::new(Status::invalid(Qualified::new(GROUP, "TokenRequest"), "", &[error])))
}

fn bound(request: &Value, account: &Reference, objects: Objects<'_>) -> Result<Option<Bound>, Box<Status>> {
    let (resource, kind, name) = match requested(request)? {
        Lookup::Nothing => return Ok(None),
        Lookup::Pod(name) => ("pods", "Pod", name),
        Lookup::Secret(name) => ("secrets", "Secret", name),
        Lookup::Node(name) => ("nodes", "Node", name),
    };
    let object = objects.bound.ok_or_else(|| Box::new(Status::not_found(Qualified::new("", resource), name)))?;
    if kind == "Pod" && object["spec"]["serviceAccountName"] != account.name.as_str() {
        let account = k3sd_objects::status::go::quote(&account.name);
        let why = format!(
            "cannot bind token for serviceaccount {account} to pod running with different serviceaccount name."
        );
        return Err(Box::new(Status::bad_request(why)));
    }
    let found = reference(object);
    check_uid(Qualified::new("", kind), name, &request["spec"]["boundObjectRef"]["uid"], &found.uid, |wanted, _| {
        format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        )
    })?;
    Ok(Some(match kind {
        "Pod" => {
            let node = object["spec"]["nodeName"].as_str().filter(|name| !name.is_empty());
            let uid = objects.node.map_or("", |node| text_at(node, "uid"));
            let node = node.map(|name| Reference { name: name.to_owned(), uid: uid.to_owned() });
            Bound::Pod { pod: found, node }
        }
        "Secret" => Bound::Secret(found),
        _ => Bound::Node(found),
    }))
}

/// A name or a namespace in the request has to be that of the path.
fn check_place(request: &Value, account: &Value) -> Result<(), Box<Status>> {
    for (key, why) in [
        ("name", "must match the service account name if specified"),
        ("namespace", "must match the service account namespace if specified"),
    ] {
        let (wanted, found) = (text_at(request, key), text_at(account, key));
        if !wanted.is_empty() && wanted != found {
            let error = field::Error::invalid(&Path::new("metadata").child(key), wanted, why);
            let kind = Qualified::new(GROUP, "TokenRequest");
            return Err(Box::new(Status::invalid(kind, text_at(account, "name"), &[error])));
        }
    }
    Ok(())
}

/// A uid that was asked for has to be the one that there is.
fn check_uid(
    kind: Qualified<'_>,
    name: &str,
    wanted: &Value,
    found: &str,
    why: impl Fn(&str, &str) -> String,
) -> Result<(), Box<Status>> {
    match wanted.as_str() {
        None | Some("") => Ok(()),
        Some(wanted) if wanted == found => Ok(()),
        Some(wanted) => Err(Box::new(Status::conflict(kind, name, why(wanted, found)))),
    }
}

fn reference(object: &Value) -> Reference {
    Reference { name: text_at(object, "name").to_owned(), uid: text_at(object, "uid").to_owned() }
}

fn text_at<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
