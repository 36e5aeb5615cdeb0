//! From a request's path to the service that answers it.

use futures_util::future::{Either, FutureExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use k3sd_runtime::Clock;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use super::desk::Desk;
use super::health::HealthService;
use super::kv::KvService;
use super::lease::LeaseService;
use super::reflection::ReflectionService;
use super::rest::{ClusterService, MaintenanceService};
use super::unary;
use super::watch::WatchService;
use crate::wire::etcdserverpb::RangeRequest;
use crate::wire::etcdserverpb::cluster_server::ClusterServer;
use crate::wire::etcdserverpb::kv_server::KvServer;
use crate::wire::etcdserverpb::lease_server::LeaseServer;
use crate::wire::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::wire::etcdserverpb::watch_server::WatchServer;
use crate::wire::health::health_server::HealthServer;
use crate::wire::reflection::v1::server_reflection_server::ServerReflectionServer as ReflectionServer;
use crate::wire::reflection::v1alpha::server_reflection_server::ServerReflectionServer as OldReflectionServer;

/// Reading and writing.
const KV: &str = "etcdserverpb.KV";

/// What is served, by path. Everything else is refused with its name.
const SERVED: &[(&str, &[&str])] = &[
    (KV, &["Range", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.Watch", &["Watch"]),
    ("etcdserverpb.Lease", &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"]),
    ("etcdserverpb.Cluster", &["MemberList"]),
    ("etcdserverpb.Maintenance", &["Status", "Alarm", "Defragment", "HashKV"]),
    ("grpc.health.v1.Health", &["Check", "Watch"]),
    ("grpc.reflection.v1.ServerReflection", &["ServerReflectionInfo"]),
    ("grpc.reflection.v1alpha.ServerReflection", &["ServerReflectionInfo"]),
];

/// What is refused for a reason that is worth telling.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "etcdserverpb.Maintenance",
        "Snapshot",
        "a snapshot is a file of etcd's own database, which this is not; back up the database behind it",
    ),
    ("etcdserverpb.Maintenance", "Hash", "there is no file of etcd's to compare; HashKV compares keys"),
    ("etcdserverpb.Maintenance", "MoveLeader", "there is one member, and it leads"),
    ("etcdserverpb.Maintenance", "Downgrade", "the version is emulated"),
    ("etcdserverpb.Cluster", "MemberAdd", "there is one member; servers that share a database need no cluster"),
];

/// The names of all services.
pub(crate) fn services() -> impl Iterator<Item = &'static str> {
    SERVED.iter().map(|(name, _)| *name)
}

/// All services of one connection.
#[derive(Clone)]
pub(crate) struct Router {
    desk: Desk,
    clock: Clock,
}

impl Router {
    /// For a connection.
    pub(crate) fn new(desk: Desk, clock: Clock) -> Self {
        Self { desk, clock }
    }

    /// Answers one call. What nearly all calls are goes by the short way, and is a small future: it is moved a few times.
    pub(crate) fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let kv = KvService { desk: self.desk.clone() };
        let quick = match lookup(request.uri().path()) {
            Ok((KV, "Range")) => Quick::Range,
            Ok((KV, "Put")) => Quick::Put,
            Ok((KV, "Txn")) => Quick::Txn,
            found => return Either::Right(answer(kv.desk, self.clock.clone(), found, request).boxed()),
        };
        Either::Left(quick.answer(kv, request.into_body()))
    }
}

/// The calls that go by the short way.
enum Quick {
    Range,
    Put,
    Txn,
}

impl Quick {
    async fn answer(self, kv: KvService, body: Incoming) -> Response<Body> {
        match self {
            Self::Range => unary::answer(body, async |asked: RangeRequest| kv.find(&asked).boxed().await).await,
            Self::Put => unary::answer(body, async |asked| kv.write(asked).await).await,
            Self::Txn => unary::answer(body, async |asked| kv.transact(asked).boxed().await).await,
        }
    }
}

/// Answers any call.
async fn answer(
    desk: Desk,
    clock: Clock,
    found: Result<(&'static str, &'static str), Status>,
    request: Request<Incoming>,
) -> Response<Body> {
    let service = match found {
        Ok((service, _)) => service,
        Err(status) => return status.into_http(),
    };
    let answer = match service {
        KV => KvServer::new(KvService { desk }).call(request).await,
        "etcdserverpb.Watch" => WatchServer::new(WatchService { desk, clock }).call(request).await,
        "etcdserverpb.Lease" => LeaseServer::new(LeaseService { desk }).call(request).await,
        "etcdserverpb.Cluster" => {
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            let scheme = request.uri().scheme_str().unwrap_or("http");
            let url = format!("{scheme}://{authority}");
            ClusterServer::new(ClusterService { desk, url }).call(request).await
        }
        "etcdserverpb.Maintenance" => MaintenanceServer::new(MaintenanceService { desk }).call(request).await,
        "grpc.reflection.v1.ServerReflection" => ReflectionServer::new(ReflectionService).call(request).await,
        "grpc.reflection.v1alpha.ServerReflection" => OldReflectionServer::new(ReflectionService).call(request).await,
        _ => HealthServer::new(HealthService { desk }).call(request).await,
    };
    match answer {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// The names of service and call, if the call is one that is served.
fn lookup(path: &str) -> Result<(&'static str, &'static str), Status> {
    let (service, call) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let (name, calls) = SERVED.iter().find(|(name, _)| *name == service).unwrap_or(&("", &[]));
    calls.iter().find(|served| **served == call).map(|served| (*name, *served)).ok_or_else(|| {
        let reason = REFUSED.iter().find(|(name, refused, _)| *name == service && *refused == call);
        let reason = reason.map(|(_, _, reason)| format!(": {reason}")).unwrap_or_default();
        let text = format!("etcdserver: {service}/{call} is not supported by this datastore{reason}");
        Status::new(Code::Unimplemented, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        assert_eq!(lookup("/etcdserverpb.KV/Range").expect("it is served"), ("etcdserverpb.KV", "Range"));
        let status = lookup("/etcdserverpb.Auth/UserAdd").expect_err("it is not");
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("etcdserverpb.Auth/UserAdd"), "{status:?}");
        let snapshot = lookup("/etcdserverpb.Maintenance/Snapshot").expect_err("it is not");
        assert!(snapshot.message().contains("back up the database"), "{snapshot:?}");
        assert!(lookup("/").is_err() && lookup("").is_err());
    }
}
