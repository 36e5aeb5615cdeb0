//! Keeps the table of versions that others answer for, asks them whether they do, and says so in their APIServices.
//!
//! Owns:    the published [`Table`], and `status` of APIServices that name a service.
//! Needs:   the caches of APIServices, services and slices; those who answer.
//! Restart: permanent. It reads and asks everything again; the last table stays good until it has.
//! Fails:   never; a watch that ends is begun anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::{ACCEPT, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use k3sd_apiserver_access::User;
use k3sd_apiserver_store::{Stores, Watch, WatchItem, WatchKind, WatchQuery};
use k3sd_runtime::{ActorError, Clock, Moment, TaskHandle};
use serde_json::Value;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::conditions::{Verdict, look, with_verdict};
use super::local::Inside;
use super::proxy::{identify, is_slice_of, objects, send, target};
use super::table::{Elsewhere, Table, Told, backend, elsewhere, place};
use super::{Aggregation, GROUP, LocalApi, PATH, PLURAL, now, pause};
use crate::streams::{Target, unverified};

/// How often those who answer are asked again though nothing changed; upstream's.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How long one of them may take; upstream's.
const CHECK_LIMIT: Duration = Duration::from_secs(6);
/// How long its index of documents may take, of that.
const INDEX_LIMIT: Duration = Duration::from_secs(2);
/// The longest list of resources that is read, and the longest such index.
const RESOURCES_BYTES_MAX: usize = 1 << 20;
/// The user that asks.
const CHECKER: &str = "system:kube-aggregator";

/// What the task is started with.
#[derive(Clone, Debug)]
pub(crate) struct FollowArgs {
    pub(crate) stores: Stores,
    pub(crate) inside: Inside,
    pub(crate) config: Aggregation,
    pub(crate) place: Arc<watch::Sender<Arc<Table>>>,
}

/// What the task does.
pub(crate) async fn follow(task: TaskHandle, args: FollowArgs) -> Result<(), ActorError> {
    let clock = task.system().clock().clone();
    // The handle itself can't be kept across a wait.
    drop(task);
    let mut desk =
        Desk { args, clock: clock.clone(), objects: BTreeMap::new(), tls: BTreeMap::new(), told: BTreeMap::new() };
    desk.ask_locals().await;
    loop {
        if let Some(store) = desk.args.stores.get(GROUP, PLURAL) {
            let query = WatchQuery { initial_events: Some(true), ..WatchQuery::default() };
            match store.watch(&query).await {
                Ok(watch) => desk.follow(watch).await,
                Err(error) => tracing::debug!(error = error.message, "APIServices can't be watched yet"),
            }
        }
        pause(&clock).await;
    }
}

/// What came of asking somebody, and of telling what he said.
enum Done {
    /// He was asked. What he said is published before his status says that he is available.
    Heard { name: String, object: Value, version: (String, String), verdict: Verdict, heard: Option<Heard> },
    /// His status was written, or can't be yet: then he is asked again when his time comes.
    Written { name: String },
}

/// The rows of a version's resources, and where its document of OpenAPI v3 is.
type Heard = (Arc<[Value]>, Option<Arc<str>>);

type Checks = FuturesUnordered<BoxFuture<'static, Done>>;

/// How a service's certificate is checked, and of which `spec` that was made.
type Checker = (Value, Result<TlsConnector, Arc<str>>);

struct Desk {
    args: FollowArgs,
    clock: Clock,
    /// APIServices that name a service, by name.
    objects: BTreeMap<String, Value>,
    tls: BTreeMap<String, Checker>,
    told: BTreeMap<(String, String), Told>,
}

impl Desk {
    /// Asks the parts of this process what they have.
    async fn ask_locals(&mut self) {
        for local in self.args.config.locals.clone() {
            let rows = local_rows(&local).await;
            let told = Told { is_stale: rows.is_none(), rows: rows.unwrap_or_default(), openapi: None };
            self.told.insert((local.group, local.version), told);
        }
    }

    /// Follows one watch to its end.
    async fn follow(&mut self, mut watch: Watch) {
        let mut initial = Some(BTreeSet::new());
        let (mut checks, mut asked) = (Checks::new(), Asked::default());
        let mut near = None;
        let mut due: Option<Moment> = None;
        let clock = self.clock.clone();
        loop {
            if self.objects.is_empty() {
                (near, due) = (None, None);
            } else if near.is_none() {
                near = Near::open(&self.args.stores).await;
            }
            let wait = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let wanted: Vec<String> = tokio::select! {
                item = watch.next() => {
                    let Some(item) = item else { return };
                    match self.take(item, &mut initial) {
                        Ok(wanted) => wanted,
                        Err(Ended) => return,
                    }
                }
                item = next_near(&mut near), if near.is_some() => match item {
                    Some((namespace, service)) => self.of_service(&namespace, &service),
                    None => { near = None; Vec::new() }
                },
                Some(done) = checks.next(), if !checks.is_empty() => self.done(done, &mut checks, &mut asked),
                () = wait => self.objects.keys().cloned().collect(),
            };
            for name in wanted {
                if let Some(check) = self.check(&name)
                    && asked.begin(&name)
                {
                    checks.push(check);
                }
            }
            if due.is_none_or(|due| due <= clock.now()) && !self.objects.is_empty() {
                due = Some(clock.now() + CHECK_EVERY);
            }
        }
    }

    /// Takes note of a change; says who is to be asked.
    fn take(&mut self, item: WatchItem, initial: &mut Option<BTreeSet<String>>) -> Result<Vec<String>, Ended> {
        let name = item.object.name().to_owned();
        let mut wanted = Vec::new();
        match item.kind {
            WatchKind::Added | WatchKind::Modified => {
                if let Some(names) = initial {
                    names.insert(name.clone());
                }
                let object = item.object.value();
                if backend(&object).is_some() {
                    self.objects.insert(name.clone(), object);
                    wanted.push(name);
                } else {
                    self.forget(&name);
                }
            }
            WatchKind::Deleted => self.forget(&name),
            WatchKind::Bookmark { .. } => {
                let Some(names) = initial.take() else { return Ok(wanted) };
                // Those that went while nobody watched.
                let gone: Vec<String> = self.objects.keys().filter(|name| !names.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.forget(name));
            }
            WatchKind::Error(_) => return Err(Ended),
        }
        // Not before all are known: after a restart what was served elsewhere goes on so.
        if initial.is_none() {
            self.publish();
        }
        Ok(wanted)
    }

    fn forget(&mut self, name: &str) {
        self.tls.remove(name);
        if let Some(object) = self.objects.remove(name) {
            let (group, version, _) = place(&object);
            let is_local = |local: &LocalApi| local.group == group && local.version == version;
            if !self.args.config.locals.iter().any(is_local) {
                self.told.remove(&(group, version));
            }
        }
    }

    fn publish(&mut self) {
        let mut all = Vec::new();
        for (name, object) in &self.objects {
            let spec = &object["spec"];
            let known = self.tls.get(name).filter(|(of, _)| of == spec).map(|(_, tls)| tls.clone());
            let tls = known.unwrap_or_else(|| {
                let tls = connector(spec, &self.args.config);
                self.tls.insert(name.clone(), (spec.clone(), tls.clone()));
                tls
            });
            all.extend(elsewhere(object, tls).map(Arc::new));
        }
        let table = Table::new(all, &self.args.config.locals, &self.told);
        self.args.place.send_replace(Arc::new(table));
    }

    /// The APIServices that name this service.
    fn of_service(&self, namespace: &str, service: &str) -> Vec<String> {
        let names = |object: &Value| {
            backend(object).is_some_and(|backend| backend.namespace == namespace && backend.name == service)
        };
        self.objects.iter().filter(|(_, object)| names(object)).map(|(name, _)| name.clone()).collect()
    }

    /// Asks one.
    fn check(&self, name: &str) -> Option<BoxFuture<'static, Done>> {
        let object = self.objects.get(name)?.clone();
        let known = self.tls.get(name).map(|(_, tls)| tls.clone());
        let to = elsewhere(&object, known.unwrap_or_else(|| connector(&object["spec"], &self.args.config)))?;
        let (args, clock, name) = (self.args.clone(), self.clock.clone(), name.to_owned());
        Some(Box::pin(async move {
            let (verdict, heard) = ask(&args, &clock, &to).await;
            Done::Heard { name, object, version: (to.group, to.version), verdict, heard }
        }))
    }

    /// Takes note of an answer, and has it written; says who is to be asked again.
    fn done(&mut self, done: Done, checks: &mut Checks, asked: &mut Asked) -> Vec<String> {
        let name = match done {
            Done::Written { name } => name,
            Done::Heard { name, object, version, verdict, heard } => {
                if self.objects.contains_key(&name) {
                    self.hear(version, heard);
                }
                match with_verdict(&object, &verdict, &now(&self.clock)) {
                    Some(object) => {
                        checks.push(self.write(name, object));
                        return Vec::new();
                    }
                    None => name,
                }
            }
        };
        if asked.end(&name) { vec![name] } else { Vec::new() }
    }

    /// Publishes what a version has.
    fn hear(&mut self, version: (String, String), heard: Option<Heard>) {
        let before = self.told.get(&version).cloned();
        let told = match heard {
            Some((rows, openapi)) => Told { rows, openapi, is_stale: false },
            None => Told { is_stale: true, ..before.clone().unwrap_or_default() },
        };
        if before.as_ref() != Some(&told) {
            self.told.insert(version, told);
            self.publish();
        }
    }

    /// Writes a status.
    fn write(&self, name: String, object: Value) -> BoxFuture<'static, Done> {
        let inside = self.args.inside.clone();
        Box::pin(async move {
            let path = format!("{PATH}/{name}/status");
            if let Err(error) = inside.send(Method::PUT, &path, Some(&object)).await {
                // Of whoever was faster the watch tells.
                tracing::debug!(name, error = error.message, "the status of an APIService can't be written yet");
            }
            Done::Written { name }
        })
    }
}

/// The watch ended.
struct Ended;

/// Who is being asked, and has to be asked again then.
#[derive(Default)]
struct Asked(BTreeMap<String, bool>);

impl Asked {
    /// Whether he may be asked now; otherwise it is noted.
    fn begin(&mut self, name: &str) -> bool {
        match self.0.get_mut(name) {
            Some(again) => {
                *again = true;
                false
            }
            None => self.0.insert(name.to_owned(), false).is_none(),
        }
    }

    /// He was asked; says whether he is to be asked again.
    fn end(&mut self, name: &str) -> bool {
        self.0.remove(name).unwrap_or(false)
    }
}

/// What happens to services and slices.
struct Near {
    services: Watch,
    slices: Watch,
}

impl Near {
    /// Changes from now on; `None` while they can't be watched.
    async fn open(stores: &Stores) -> Option<Self> {
        let query = WatchQuery { initial_events: Some(false), ..WatchQuery::default() };
        let services = stores.get("", "services")?.watch(&query).await.ok()?;
        let slices = stores.get("discovery.k8s.io", "endpointslices")?.watch(&query).await.ok()?;
        Some(Self { services, slices })
    }
}

/// Namespace and name of a service that something happened to; `None` when the watches ended.
async fn next_near(near: &mut Option<Near>) -> Option<(String, String)> {
    let near = near.as_mut()?;
    loop {
        let (item, is_slice) = tokio::select! {
            item = near.services.next() => (item?, false),
            item = near.slices.next() => (item?, true),
        };
        let object = &item.object;
        match item.kind {
            WatchKind::Error(_) => return None,
            WatchKind::Bookmark { .. } => {}
            _ if !is_slice => return Some((object.namespace().to_owned(), object.name().to_owned())),
            _ => {
                let service = object.label("kubernetes.io/service-name").unwrap_or_default();
                debug_assert!(service.is_empty() || is_slice_of(object, service));
                return Some((object.namespace().to_owned(), service.to_owned()));
            }
        }
    }
}

/// How the certificate of a service is checked. A text says why nobody can be believed.
fn connector(spec: &Value, config: &Aggregation) -> Result<TlsConnector, Arc<str>> {
    let own = config.certificate.clone();
    let mut tls = if spec["insecureSkipTLSVerify"] == true {
        unverified(own)
    } else {
        let mut roots = RootCertStore::empty();
        match spec["caBundle"].as_str().filter(|bundle| !bundle.is_empty()) {
            Some(bundle) => {
                let pem = STANDARD.decode(bundle).map_err(|_| "spec.caBundle is no base64")?;
                let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
                let (added, _) = roots.add_parsable_certificates(certificates);
                if added == 0 {
                    return Err("spec.caBundle has no certificate".into());
                }
            }
            // As Go does it: whom the machine believes.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        match own {
            Some(own) => builder.with_client_cert_resolver(own),
            None => builder.with_no_client_auth(),
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// Asks a service for its resources, after a look at the objects.
async fn ask(args: &FollowArgs, clock: &Clock, to: &Elsewhere) -> (Verdict, Option<Heard>) {
    let found = match objects(&args.stores, &to.backend).await {
        Ok(found) => found,
        Err(status) => {
            let why = format!(
                "service/{} in \"{}\" cannot be checked due to: {}",
                to.backend.name, to.backend.namespace, status.message
            );
            return (Verdict { status: "Unknown", reason: "ServiceAccessError", message: why }, None);
        }
    };
    if let Some(verdict) = look(&to.backend, found.0.as_ref(), &found.1) {
        return (verdict, None);
    }
    let target = match target(&args.stores, clock, &to.backend).await {
        Ok(target) => target,
        Err(status) => return (Verdict::undiscovered(status.message), None),
    };
    let path = format!("/apis/{}/{}", to.group, to.version);
    let url = format!("https://{}{path}", target.authority());
    let asked = async {
        let bytes = get(args, to, &target, &path).await?;
        // One without documents is as good.
        let index = tokio::time::timeout(INDEX_LIMIT, get(args, to, &target, "/openapi/v3")).await;
        let index = index.ok().and_then(Result::ok);
        Ok::<_, io::Error>(rows(&bytes).map(|rows| (rows, index.and_then(|index| document(&index, to)))))
    };
    match tokio::time::timeout(CHECK_LIMIT, asked).await {
        Ok(Ok(heard)) => (Verdict::passed(), heard),
        Ok(Err(error)) => (Verdict::undiscovered(format!("failing or missing response from {url}: {error}")), None),
        Err(_) => (Verdict::undiscovered(format!("timed out waiting for {url}")), None),
    }
}

/// What a service answers at a path, as the user that asks here.
async fn get(args: &FollowArgs, to: &Elsewhere, target: &Target, path: &str) -> io::Result<Bytes> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(io::Error::other)?;
    let host = HeaderValue::from_str(&target.authority()).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    identify(request.headers_mut(), &User::new(CHECKER, &["system:masters"]))?;
    let answered = send(&args.config, to, target, request).await?;
    let code = answered.status();
    if !code.is_success() {
        let url = format!("https://{}{path}", target.authority());
        return Err(io::Error::other(format!("bad status from {url}: {}", code.as_u16())));
    }
    let body = Limited::new(answered.into_body(), RESOURCES_BYTES_MAX).collect().await;
    Ok(body.map(http_body_util::Collected::to_bytes).unwrap_or_default())
}

/// Where a service's index says that the document of its version is. Elsewhere than there it would be another's.
fn document(index: &[u8], to: &Elsewhere) -> Option<Arc<str>> {
    let index: Value = serde_json::from_slice(index).ok()?;
    let path = format!("apis/{}/{}", to.group, to.version);
    let place = index["paths"][&path]["serverRelativeURL"].as_str()?;
    let is_its =
        place.strip_prefix(&format!("/openapi/v3/{path}")).is_some_and(|rest| rest.is_empty() || rest.starts_with('?'));
    is_its.then(|| place.into())
}

/// The rows of an `APIResourceList`; `None` for what is none.
fn rows(bytes: &[u8]) -> Option<Arc<[Value]>> {
    let list: Value = serde_json::from_slice(bytes).ok()?;
    let rows = list["resources"].as_array()?;
    let is_row = |row: &&Value| row["name"].is_string() && row["kind"].is_string() && row["verbs"].is_array();
    Some(rows.iter().filter(is_row).cloned().collect())
}

/// What another part of this process has.
async fn local_rows(local: &LocalApi) -> Option<Arc<[Value]>> {
    let path = format!("/apis/{}/{}", local.group, local.version);
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().ok()?;
    let answer: Response<Bytes> = local.ask(request).await;
    if answer.status() == StatusCode::OK { rows(answer.body()) } else { None }
}
