//! A request as the verbs see it, and what they answer with.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k3sd_apiserver_access::{Query, RequestInfo, User};
use k3sd_apiserver_store::{Page, Resource, Watch};
use k3sd_objects::object::Object;
use k3sd_objects::status::Status;
use serde_json::Value;

/// A request that somebody known may make: authentication and authorization are behind it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who makes it.
    pub user: Arc<User>,
    /// What it is about.
    pub info: RequestInfo,
    /// What stands behind the question mark.
    pub query: Query,
    /// The body; empty if there is none.
    pub body: Bytes,
    /// The `Content-Type` header, as it came.
    pub content_type: Option<String>,
    /// The `User-Agent` header; empty if there is none.
    pub user_agent: String,
    /// When it came.
    pub now: Timestamp,
}

/// What a call is answered with, and what to tell the client beside it.
#[derive(Debug)]
pub struct Answer {
    /// What was asked for, or why not.
    pub result: Result<Reply, Status>,
    /// Texts for `Warning` headers, in order. They go with errors too.
    pub warnings: Vec<String>,
}

/// What was asked for.
#[derive(Debug)]
pub enum Reply {
    /// One object.
    Object {
        /// What it is one of.
        resource: Arc<Resource>,
        /// What of it was asked for; empty for the object itself.
        subresource: String,
        /// The HTTP status: 200, 201 or 202.
        code: u16,
        /// The object.
        object: Shown,
    },
    /// Some objects, in the stored version.
    List {
        /// What they are.
        resource: Arc<Resource>,
        /// The objects.
        page: Page,
    },
    /// Changes as they happen.
    Watch {
        /// What changes.
        resource: Arc<Resource>,
        /// The changes; objects are in the stored version. It ends by itself when its time is over.
        watch: Watch,
    },
    /// An answer that is no object of the resource, such as that one was deleted.
    Status(Status),
    /// Bytes as they are.
    Raw {
        /// The HTTP status.
        code: u16,
        /// Their media type.
        content_type: &'static str,
        /// The bytes.
        body: Bytes,
    },
}

/// An object to show.
#[derive(Clone, Debug)]
pub enum Shown {
    /// In the stored version, which may be another one than that of the request.
    Stored(Object),
    /// In the version of the request; of a subresource, whatever kind that speaks.
    Value(Value),
}

impl Shown {
    /// The object as a tree, in the version that it is in.
    pub fn value(&self) -> Value {
        match self {
            Self::Stored(object) => object.value(),
            Self::Value(value) => value.clone(),
        }
    }
}

/// 404 as plain text: nothing is served under the path.
pub(crate) fn no_such_path() -> Reply {
    Reply::Raw {
        code: 404,
        content_type: "text/plain; charset=utf-8",
        body: Bytes::from_static(b"404 page not found\n"),
    }
}
