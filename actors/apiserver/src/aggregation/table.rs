//! Which versions go elsewhere. Pure, over APIServices as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k3sd_apiserver_wire::discovery::Foreign;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::LocalApi;
use super::conditions::is_available;

/// The service that an APIService names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// The port of services that name none.
const PORT: u16 = 443;

/// An APIService that sends its version elsewhere.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) priorities: (i64, i64),
    pub(crate) backend: Backend,
    pub(crate) is_available: bool,
    /// How its certificate is checked; a text says why nobody can be believed.
    pub(crate) tls: Result<TlsConnector, Arc<str>>,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elsewhere").field("group", &self.group).field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// Reads what an APIService says of its place; `None` if it is served here.
pub(super) fn backend(object: &Value) -> Option<Backend> {
    let service = object.pointer("/spec/service").filter(|service| service.is_object())?;
    let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
    let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    Some(Backend { namespace: text("namespace"), name: text("name"), port })
}

/// Group, version and priorities of an APIService.
pub(super) fn place(object: &Value) -> (String, String, (i64, i64)) {
    let spec = &object["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let number = |field: &str| spec[field].as_i64().unwrap_or_default();
    (text("group"), text("version"), (number("groupPriorityMinimum"), number("versionPriority")))
}

/// What an APIService means for requests; `None` if it is served here.
pub(super) fn elsewhere(object: &Value, tls: Result<TlsConnector, Arc<str>>) -> Option<Elsewhere> {
    let backend = backend(object)?;
    let (group, version, priorities) = place(object);
    // Core is never somewhere else: nothing here would work any more.
    (!group.is_empty()).then(|| Elsewhere {
        group,
        version,
        priorities,
        backend,
        is_available: is_available(object),
        tls,
    })
}

/// What was last told of a version's resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) rows: Arc<[Value]>,
    /// Where its document of OpenAPI v3 is.
    pub(super) openapi: Option<Arc<str>>,
    pub(super) is_stale: bool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// To a service.
    Elsewhere(Arc<Elsewhere>),
    /// To another part of this process.
    Local(LocalApi),
}

/// All versions that others answer for. Never changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    elsewhere: Vec<Arc<Elsewhere>>,
    locals: Vec<LocalApi>,
    foreign: Arc<[Foreign]>,
}

impl Table {
    /// From what there is. `told` has the resources of versions, by group and version.
    pub(super) fn new(
        elsewhere: Vec<Arc<Elsewhere>>,
        locals: &[LocalApi],
        told: &BTreeMap<(String, String), Told>,
    ) -> Self {
        let is_taken = |local: &LocalApi| {
            elsewhere.iter().any(|taken| taken.group == local.group && taken.version == local.version)
        };
        let locals: Vec<LocalApi> = locals.iter().filter(|local| !is_taken(local)).cloned().collect();
        let foreign = |group: &str, version: &str, (group_priority, version_priority): (i64, i64)| {
            let told = told.get(&(group.to_owned(), version.to_owned()));
            // Who was never heard of may have anything.
            let Told { rows, openapi, is_stale } = told.cloned().unwrap_or(Told { is_stale: true, ..Told::default() });
            let (group, version) = (group.into(), version.into());
            Foreign { group, version, group_priority, version_priority, resources: rows, openapi, is_stale }
        };
        let others = elsewhere.iter().map(|one| foreign(&one.group, &one.version, one.priorities));
        let own = locals.iter().map(|one| foreign(&one.group, &one.version, one.priorities));
        let foreign: Vec<Foreign> = others.chain(own).collect();
        Self { foreign: foreign.into(), elsewhere, locals }
    }

    /// What discovery shows of others.
    pub(crate) fn foreign(&self) -> &Arc<[Foreign]> {
        &self.foreign
    }

    /// Who answers for a path, if it isn't us. Documents of OpenAPI v3 are those of whoever answers for the version.
    pub(crate) fn route(&self, path: &str) -> Option<Route> {
        if self.foreign.is_empty() {
            return None;
        }
        let documents = path.strip_prefix("/openapi/v3");
        let mut parts = documents.unwrap_or(path).strip_prefix("/apis/")?.splitn(3, '/');
        let (group, version) = (parts.next()?, parts.next().filter(|version| !version.is_empty())?);
        let elsewhere = self.elsewhere.iter().find(|one| one.group == group && one.version == version);
        if let Some(elsewhere) = elsewhere {
            return Some(Route::Elsewhere(elsewhere.clone()));
        }
        let local = self.locals.iter().find(|one| one.group == group && one.version == version);
        local.filter(|_| documents.is_none()).cloned().map(Route::Local)
    }
}
