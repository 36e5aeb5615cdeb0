//! `Status`: how the API says no, and sometimes yes.
//!
//! Clients match on `reason`, `code` and `details`, and people match on `message`, so shape and wording are part of the
//! contract: the wire form is `meta/v1` `Status`, fields in the order in which upstream writes them, empty ones left
//! out. There is a constructor per failure; nothing else in the project puts a `Status` together by hand.

mod cause;
pub mod field;
pub mod go;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

pub use cause::{Cause, CauseKind};

/// A resource or a kind together with its group. Prints as `deployments.apps`, or `pods` in the core group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qualified<'a> {
    /// The group, empty for core.
    pub group: &'a str,
    /// Plural resource (`pods`) or kind (`Pod`), whichever the message is about.
    pub name: &'a str,
}

impl<'a> Qualified<'a> {
    /// Puts the two together.
    #[must_use]
    pub fn new(group: &'a str, name: &'a str) -> Self {
        Self { group, name }
    }
}

impl fmt::Display for Qualified<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)?;
        if self.group.is_empty() { Ok(()) } else { write!(out, ".{}", self.group) }
    }
}

/// Why a request failed, for programs. The wire form is the name itself; an unknown one is kept as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Reason {
    /// The server gave none. Left out of the wire form.
    #[default]
    Unknown,
    /// 401: nobody we know.
    Unauthorized,
    /// 403: somebody we know, who may not do this.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: somebody else changed the object, or owns the field.
    Conflict,
    /// 410: it was here once.
    Gone,
    /// 422: the object breaks a rule; `details.causes` has the fields.
    Invalid,
    /// 500: could not finish, try again.
    ServerTimeout,
    /// 504: did not finish within the time of the request.
    Timeout,
    /// 429: try again after `details.retryAfterSeconds`.
    TooManyRequests,
    /// 400: the request makes no sense.
    BadRequest,
    /// 405.
    MethodNotAllowed,
    /// 406: none of the media types asked for can be served.
    NotAcceptable,
    /// 413.
    RequestEntityTooLarge,
    /// 415: the body is in a form nobody reads.
    UnsupportedMediaType,
    /// 500: our fault.
    InternalError,
    /// 410: that resource version or continue token is too old; list again.
    Expired,
    /// 503.
    ServiceUnavailable,
    /// Something that another server, or a webhook, made up.
    Other(String),
}

/// Names on the wire of the reasons that have one.
const REASONS: &[(Reason, &str)] = &[
    (Reason::Unknown, ""),
    (Reason::Unauthorized, "Unauthorized"),
    (Reason::Forbidden, "Forbidden"),
    (Reason::NotFound, "NotFound"),
    (Reason::AlreadyExists, "AlreadyExists"),
    (Reason::Conflict, "Conflict"),
    (Reason::Gone, "Gone"),
    (Reason::Invalid, "Invalid"),
    (Reason::ServerTimeout, "ServerTimeout"),
    (Reason::Timeout, "Timeout"),
    (Reason::TooManyRequests, "TooManyRequests"),
    (Reason::BadRequest, "BadRequest"),
    (Reason::MethodNotAllowed, "MethodNotAllowed"),
    (Reason::NotAcceptable, "NotAcceptable"),
    (Reason::RequestEntityTooLarge, "RequestEntityTooLarge"),
    (Reason::UnsupportedMediaType, "UnsupportedMediaType"),
    (Reason::InternalError, "InternalError"),
    (Reason::Expired, "Expired"),
    (Reason::ServiceUnavailable, "ServiceUnavailable"),
];

impl Reason {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if let Self::Other(name) = self {
            return name;
        }
        REASONS.iter().find(|(reason, _)| reason == self).map_or("", |(_, name)| *name)
    }

    /// Whether there is nothing to write.
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

impl From<String> for Reason {
    fn from(name: String) -> Self {
        let known = REASONS.iter().find(|(_, known)| *known == name);
        known.map_or(Self::Other(name), |(reason, _)| reason.clone())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

/// What a `Status` is about. Empty fields are left out on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    /// Of the object, or the operation for a [`Reason::ServerTimeout`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The API group; empty is core.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The kind for [`Reason::Invalid`], the plural resource otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Of the object, when it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One per field that is wrong, or per other reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds until a repetition is welcome; 0 says nothing. Also sent as the `Retry-After` header.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

impl Details {
    fn about(subject: Qualified<'_>, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: subject.group.to_owned(),
            kind: subject.name.to_owned(),
            ..Self::default()
        }
    }
}

/// `metadata` of a `Status`; only an expired list fills it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    /// The version of the store, where a `Status` states one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// A token that goes on, inconsistently, where an expired one stopped.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
}

/// An answer that is not an object: nearly always an error, and then also one of Rust's.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Status {
    #[serde(default = "Status::kind_name")]
    kind: String,
    #[serde(default = "Status::version_name")]
    api_version: String,
    /// Empty but for expired lists.
    #[serde(default)]
    pub metadata: ListMeta,
    /// `Success` or `Failure`.
    #[serde(default, rename = "status", skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "Reason::is_unknown")]
    pub reason: Reason,
    /// What it is about. Upstream sends empty details as `{}` where it sends any, and so do we.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status; 0 says nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Status {
    fn kind_name() -> String {
        "Status".to_owned()
    }

    fn version_name() -> String {
        "v1".to_owned()
    }

    /// A failure without details; the constructors below are made of it, and so are answers of proxied servers.
    #[must_use]
    pub fn failure(code: i32, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: Self::kind_name(),
            api_version: Self::version_name(),
            metadata: ListMeta::default(),
            outcome: "Failure".to_owned(),
            message: message.into(),
            reason,
            details: None,
            code,
        }
    }

    /// The answer to a deletion after which nothing is left. Carries no code, as upstream's doesn't.
    #[must_use]
    pub fn success(resource: Qualified<'_>, name: &str, uid: &str) -> Self {
        let details = Details { uid: uid.to_owned(), ..Details::about(resource, name) };
        let outcome = "Success".to_owned();
        Self { outcome, ..Self::failure(0, Reason::Unknown, "") }.with_details(details)
    }

    /// The same with these details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The same with one more cause.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same, asking the client to wait before it tries again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same with a token that continues an expired list.
    #[must_use]
    pub fn with_continue(mut self, token: impl Into<String>) -> Self {
        self.metadata.continue_token = token.into();
        self
    }

    /// What the `Retry-After` header says, if there is to be one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<i32> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then_some(seconds)
    }

    /// The HTTP status to answer with: the code if it is one, 200 for a success, 500 for anything else.
    #[must_use]
    pub fn http_code(&self) -> u16 {
        match u16::try_from(self.code) {
            Ok(code) if (100..600).contains(&code) => code,
            _ if self.outcome == "Success" => 200,
            _ => 500,
        }
    }

    /// Compact JSON, fields in upstream's order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always encode")
    }

    /// As a tree, for answers that are converted further.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("strings and numbers always encode")
    }

    /// 404: the object isn't there.
    #[must_use]
    pub fn not_found(resource: Qualified<'_>, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{resource} {} not found", go::quote(name)))
            .with_details(Details::about(resource, name))
    }

    /// 409: the name is taken.
    #[must_use]
    pub fn already_exists(resource: Qualified<'_>, name: &str) -> Self {
        Self::failure(409, Reason::AlreadyExists, format!("{resource} {} already exists", go::quote(name)))
            .with_details(Details::about(resource, name))
    }

    /// 409: every name that was generated is taken.
    #[must_use]
    pub fn generate_name_conflict(resource: Qualified<'_>, name: &str, retry_after_seconds: i32) -> Self {
        let mut status = Self::already_exists(resource, name).with_retry_after(retry_after_seconds);
        status.message.push_str(", the server was not able to generate a unique name for the object");
        status
    }

    /// 401. The message is `Unauthorized` unless there is something to say that helps no attacker.
    #[must_use]
    pub fn unauthorized(message: &str) -> Self {
        let message = if message.is_empty() { "not authorized" } else { message };
        Self::failure(401, Reason::Unauthorized, message)
    }

    /// 403: denied by authorization, admission or quota. An empty name stands for the whole resource, an empty
    /// resource for a path that is none.
    #[must_use]
    pub fn forbidden(resource: Qualified<'_>, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.name.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", go::quote(name)),
        };
        Self::failure(403, Reason::Forbidden, message).with_details(Details::about(resource, name))
    }

    /// 409: the write was made for another state of the object.
    #[must_use]
    pub fn conflict(resource: Qualified<'_>, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", go::quote(name));
        Self::failure(409, Reason::Conflict, message).with_details(Details::about(resource, name))
    }

    /// 409: the resource version that the client sent is not the newest.
    #[must_use]
    pub fn stale(resource: Qualified<'_>, name: &str) -> Self {
        Self::conflict(resource, name, OPTIMISTIC_LOCK)
    }

    /// 409: other managers own fields that a server-side apply would change.
    #[must_use]
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        Self::failure(409, Reason::Conflict, message).with_details(Details { causes, ..Details::default() })
    }

    /// 410, in the general form.
    #[must_use]
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Gone, message)
    }

    /// 410: the client lists again.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 422: the object breaks rules, each with its field.
    #[must_use]
    pub fn invalid(kind: Qualified<'_>, name: &str, errors: &[field::Error]) -> Self {
        let mut message = format!("{kind} {} is invalid", go::quote(name));
        if let Some(aggregate) = field::aggregate(errors) {
            message.push_str(": ");
            message.push_str(&aggregate);
        }
        let causes = errors.iter().map(Cause::from).collect();
        Self::failure(422, Reason::Invalid, message).with_details(Details { causes, ..Details::about(kind, name) })
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 405: the resource has no such verb.
    #[must_use]
    pub fn method_not_allowed(resource: Qualified<'_>, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {}", go::quote(&resource.to_string()));
        Self::failure(405, Reason::MethodNotAllowed, message).with_details(Details::about(resource, ""))
    }

    /// 406: what can be served instead is named.
    #[must_use]
    pub fn not_acceptable(served: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", served.join(", "));
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// 415: what can be read instead is named.
    #[must_use]
    pub fn unsupported_media_type(read: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            read.join(", ")
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 413.
    #[must_use]
    pub fn request_entity_too_large(what: impl fmt::Display) -> Self {
        Self::failure(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {what}"))
    }

    /// 429. With 0 seconds, no `Retry-After` is sent.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self::failure(429, Reason::TooManyRequests, message).with_details(details)
    }

    /// 504: the request ran out of its time. What it asked for may have happened.
    #[must_use]
    pub fn timeout(what: impl fmt::Display, retry_after_seconds: i32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self::failure(504, Reason::Timeout, format!("Timeout: {what}")).with_details(details)
    }

    /// 504: the version asked for is still to come.
    #[must_use]
    pub fn too_large_resource_version(asked: u64, current: u64, retry_after_seconds: i32) -> Self {
        let what = format!("Too large resource version: {asked}, current: {current}");
        let cause = Cause::new(CauseKind::ResourceVersionTooLarge, "Too large resource version", "");
        Self::timeout(what, retry_after_seconds).with_cause(cause)
    }

    /// 500: not now; nothing happened.
    #[must_use]
    pub fn server_timeout(resource: Qualified<'_>, operation: &str, retry_after_seconds: i32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        let details = Details { retry_after_seconds, ..Details::about(resource, operation) };
        Self::failure(500, Reason::ServerTimeout, message).with_details(details)
    }

    /// 500: a fault of ours. `why` goes to the client, so it holds no secret.
    #[must_use]
    pub fn internal_error(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        let cause = Cause::new(CauseKind::Unnamed, &why, "");
        Self::failure(500, Reason::InternalError, format!("Internal error occurred: {why}")).with_cause(cause)
    }

    /// 503.
    #[must_use]
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }
}

/// What a client reads after a write that was made for an older state.
pub const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
