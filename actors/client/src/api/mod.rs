//! Clients of the API, typed through kube-rs: in this process without a socket, or over TLS.
//!
//! Both are a [`kube::Client`] over a service, so that whoever uses one can't tell which it is. Moving a subsystem to
//! another process changes its transport and nothing else.

mod remote;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;
use tower_service::Service;

pub use self::remote::{Remote, RemoteError, ServerAddress, link};

/// The namespace of requests that name none.
const NAMESPACE: &str = "default";
/// The group of everybody whose name is known.
const AUTHENTICATED: &str = "system:authenticated";

/// A client over any service that answers requests, such as the API server's own pipeline.
///
/// A client has a task of its own, which ends with its last clone; it has to be made inside a tokio runtime.
pub fn over<S, B>(service: S) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    kube::Client::new(service, NAMESPACE)
}

/// The way of one identity to the API, however it is reached; what actors are started with. Cloning it shares the client.
#[derive(Clone)]
pub struct Connect(Arc<Way>);

struct Way {
    make: Box<dyn Fn() -> kube::Client + Send + Sync>,
    /// One for all, as each has a task and a queue of some 10 KiB, and there are more than a hundred users in a process.
    client: OnceLock<kube::Client>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connect")
    }
}

impl Connect {
    /// The way over a service.
    pub fn over<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Arc::new(Way { make: Box::new(move || over(service.clone())), client: OnceLock::new() }))
    }

    /// The client. Needs a tokio runtime around it, the same one each time: the client's task runs on the first.
    pub fn client(&self) -> kube::Client {
        self.0.client.get_or_init(&self.0.make).clone()
    }
}

/// Ways to the API for the parts of this process, each known as somebody of its own.
#[derive(Clone)]
pub struct Identities(Arc<As>);

/// Connects as a user of this name, in these groups.
type As = dyn Fn(&str, &[&str]) -> Connect + Send + Sync;

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities")
    }
}

impl Identities {
    /// From a function that connects as a user, of whom it is told name and groups.
    pub fn new(connect: impl Fn(&str, &[&str]) -> Connect + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }

    /// As a user, who is authenticated and in further groups.
    pub fn user(&self, name: &str, groups: &[&str]) -> Connect {
        let mut all = groups.to_vec();
        all.push(AUTHENTICATED);
        (self.0)(name, &all)
    }

    /// As a service account, whether there is an object of that name or not.
    pub fn service_account(&self, namespace: &str, name: &str) -> Connect {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let group = format!("system:serviceaccounts:{namespace}");
        self.user(&user, &["system:serviceaccounts", &group])
    }
}
