//! Pages that are made from memory, from what others measure, or from files of the system.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, LOCATION};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use k3sd_kubelet_base::stats::Summary;
use k3sd_kubelet_base::{ContainerState, PodView, PodsSnapshot};
use k3sd_runtime::exposition;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::config::Configz;
use crate::desk::{Body, Fittings, answer, no_such_path, text};

/// The type of pages in Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What is read of a file at once.
const PIECE_BYTES: usize = 32 * 1024;
/// More entries of a directory aren't shown.
const ENTRIES_MAX: usize = 10_000;

fn json_page(value: &Value) -> Response<Body> {
    answer(200, "application/json", value.to_string())
}

fn list(items: Vec<Value>) -> Response<Body> {
    json_page(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

/// `/pods`: what the node was told to run.
pub(crate) fn pods(snapshot: &Arc<PodsSnapshot>) -> Response<Body> {
    let item = |view: &Arc<PodView>| {
        let mut value = serde_json::to_value(&*view.pod).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            // The list says what its items are.
            object.remove("kind");
            object.remove("apiVersion");
        }
        value
    };
    list(snapshot.pods.values().map(item).collect())
}

/// `/runningpods/`: what runs.
pub(crate) fn running_pods(snapshot: &Arc<PodsSnapshot>) -> Response<Body> {
    let item = |view: &Arc<PodView>| {
        let running = view.containers.iter().filter(|container| container.state == ContainerState::Running);
        let containers: Vec<Value> = running
            .map(|container| json!({ "name": container.name, "image": container.image, "resources": {} }))
            .collect();
        let metadata = &view.pod.metadata;
        let named = json!({ "name": metadata.name, "namespace": metadata.namespace, "uid": view.uid });
        (!containers.is_empty())
            .then(|| json!({ "metadata": named, "spec": { "containers": containers }, "status": {} }))
    };
    list(snapshot.pods.values().filter_map(item).collect())
}

/// `/configz`: the configuration that is in effect.
pub(crate) fn configz(configz: &Configz) -> Response<Body> {
    json_page(&json!({ "kubeletconfig": configz.ask() }))
}

/// `/healthz`, and each of its checks by name.
pub(crate) fn healthz(others: Vec<(String, Result<(), String>)>, path: &str, verbose: bool) -> Response<Body> {
    let own = ["ping", "log"].map(|name| (name.to_owned(), Ok(())));
    let checks: Vec<(String, Result<(), String>)> = own.into_iter().chain(others).collect();
    let name = path.trim_start_matches("/healthz").trim_matches('/');
    if !name.is_empty() {
        return match checks.iter().find(|(found, _)| found == name) {
            None => no_such_path(),
            Some((_, Ok(()))) => text(200, "ok"),
            Some((_, Err(why))) => text(500, format!("internal server error: {why}\n")),
        };
    }
    let healthy = checks.iter().all(|(_, health)| health.is_ok());
    if healthy && !verbose {
        return text(200, "ok");
    }
    let mut page = String::new();
    for (name, health) in &checks {
        let line = if health.is_ok() { format!("[+]{name} ok") } else { format!("[-]{name} failed: reason withheld") };
        page.push_str(&line);
        page.push('\n');
    }
    page.push_str(if healthy { "healthz check passed\n" } else { "healthz check failed\n" });
    text(if healthy { 200 } else { 500 }, page)
}

/// `/stats/summary`.
pub(crate) fn summary(measured: Result<Summary, String>) -> Response<Body> {
    match measured.and_then(|summary| serde_json::to_vec(&summary).map_err(|error| error.to_string())) {
        Ok(bytes) => answer(200, "application/json", bytes),
        Err(why) => text(500, format!("Internal Error: {why}")),
    }
}

/// A page of figures that somebody else made.
pub(crate) fn metrics(measured: Result<String, String>) -> Response<Body> {
    match measured {
        Ok(page) => answer(200, EXPOSITION, page),
        Err(why) => text(500, why),
    }
}

/// `/metrics`: the process, what runs, and what others add.
pub(crate) async fn own_metrics(fittings: &Fittings) -> Response<Body> {
    let snapshot = fittings.pods.borrow().clone();
    let mut page = String::new();
    exposition::head(&mut page, "kubelet_node_name", "gauge", "The node's name.");
    exposition::line(&mut page, "kubelet_node_name", &format!("node=\"{}\"", fittings.config.node_name), 1);
    let sandboxes = snapshot.pods.values().filter(|view| view.sandbox.is_some()).count();
    exposition::head(&mut page, "kubelet_running_pods", "gauge", "Pods with a sandbox that runs.");
    exposition::line(&mut page, "kubelet_running_pods", "", sandboxes);
    exposition::head(&mut page, "kubelet_running_containers", "gauge", "Containers, by what they do.");
    let states = [
        ("created", ContainerState::Created),
        ("exited", ContainerState::Exited),
        ("running", ContainerState::Running),
    ];
    for (word, state) in states {
        let containers = snapshot.pods.values().flat_map(|view| &view.containers);
        let count = containers.filter(|container| container.state == state).count();
        exposition::line(&mut page, "kubelet_running_containers", &format!("container_state=\"{word}\""), count);
    }
    match fittings.figures.own_metrics().await {
        Ok(others) => page.push_str(&others),
        // What the server knows itself is of use alone, too.
        Err(error) => tracing::debug!(error, "others have no figures to show"),
    }
    exposition::write_process(&mut page, Path::new("/proc"));
    answer(200, EXPOSITION, page)
}

/// A file or a directory below a directory, and not a step outside of it, whatever links lie there.
fn open_below(directory: &Path, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags | OFlags::DIRECTORY | OFlags::PATH, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    // Without waiting for whoever writes to a pipe.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?)
}

/// What stands for a character in a page that browsers show.
fn escaped(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, character| {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&#34;"),
            '\'' => text.push_str("&#39;"),
            other => text.push(other),
        }
        text
    })
}

/// A name as a part of an address.
fn percent_encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a string takes everything");
        }
        text
    })
}

fn directory_page(directory: &OwnedFd) -> io::Result<Response<Body>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_directory = entry.file_type() == rustix::fs::FileType::Directory;
        if name != "." && name != ".." {
            names.push(if is_directory { format!("{name}/") } else { name });
        }
    }
    names.sort();
    let mut page = "<pre>\n".to_owned();
    for name in &names {
        writeln!(page, "<a href=\"{}\">{}</a>", percent_encoded(name), escaped(name))
            .expect("a string takes everything");
    }
    page.push_str("</pre>\n");
    Ok(answer(200, "text/html; charset=utf-8", page))
}

/// `/logs/`: files of the system's logs.
pub(crate) async fn system_log(directory: Option<&Path>, path: &str) -> Response<Body> {
    let Some(directory) = directory else { return text(405, "logs endpoint is disabled.\n") };
    if path == "/logs" {
        let mut response = text(301, "");
        response.headers_mut().insert(LOCATION, http::HeaderValue::from_static("/logs/"));
        return response;
    }
    let below = path.trim_start_matches("/logs").trim_matches('/');
    let shown = async {
        let found = open_below(directory, below)?;
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        match kind {
            rustix::fs::FileType::Directory => directory_page(&found),
            rustix::fs::FileType::RegularFile => Ok(file_page(tokio::fs::File::from_std(found.into()))),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    };
    match shown.await {
        Ok(page) => page,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => text(403, "403 Forbidden\n"),
        // What lies outside is not there.
        Err(_) => no_such_path(),
    }
}

fn file_page(file: tokio::fs::File) -> Response<Body> {
    let pieces = stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let mut piece = vec![0; PIECE_BYTES];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Frame::data(piece.into())), Some(file)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    let mut response = text(200, "");
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(response: Response<Body>) -> (u16, String) {
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_is_told_as_a_whole_and_by_name() {
        let checks = |syncloop: Result<(), &str>| vec![("syncloop".to_owned(), syncloop.map_err(str::to_owned))];
        let shown = |syncloop, path, verbose| read(healthz(checks(syncloop), path, verbose));
        assert_eq!(shown(Ok(()), "/healthz", false).await, (200, "ok".to_owned()));
        let all = "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n";
        assert_eq!(shown(Ok(()), "/healthz/", true).await, (200, all.to_owned()));
        let (code, page) = shown(Err("slow"), "/healthz", false).await;
        assert!(code == 500 && page.contains("[-]syncloop failed: reason withheld"), "{page}");
        assert_eq!(shown(Err("slow"), "/healthz/ping", false).await, (200, "ok".to_owned()));
        assert_eq!(shown(Err("slow"), "/healthz/syncloop", false).await.0, 500);
        assert_eq!(shown(Ok(()), "/healthz/x", false).await.0, 404);
    }

    #[tokio::test]
    async fn nothing_outside_of_the_logs_is_shown() {
        let directory = tempfile::TempDir::new().unwrap();
        let logs = directory.path().join("log");
        std::fs::create_dir_all(logs.join("pods")).unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        std::fs::write(logs.join("a&b.log"), "text").unwrap();
        std::os::unix::fs::symlink("../secret", logs.join("way-out")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", logs.join("far-out")).unwrap();
        let shown = |path: &'static str| {
            let logs = logs.clone();
            async move { read(system_log(Some(&logs), path).await).await }
        };
        let (code, page) = shown("/logs/").await;
        assert!(code == 200 && page.contains("<a href=\"a%26b.log\">a&amp;b.log</a>"), "{page}");
        assert!(page.contains("<a href=\"pods/\">"), "{page}");
        assert_eq!(shown("/logs/a&b.log").await, (200, "text".to_owned()));
        for path in ["/logs/../secret", "/logs/way-out", "/logs/far-out", "/logs/x", "/logs//etc/passwd"] {
            assert_eq!(shown(path).await.0, 404, "{path}");
        }
        assert_eq!(read(system_log(None, "/logs/").await).await.0, 405);
    }
}
