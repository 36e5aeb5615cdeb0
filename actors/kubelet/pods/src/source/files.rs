//! Static pods: files in a directory, one pod each, in YAML or JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k3sd_objects::{decode, default, schema};
use k3sd_runtime::{ActorError, TaskHandle};
use k8s_openapi::api::core::v1::Pod;
use ring::digest::{SHA256, digest};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::adopt;

/// The directory is read again this often, should a change go unnoticed: the kubelet's `fileCheckFrequency`.
const CHECK: Duration = Duration::from_secs(20);
/// After a change, so long for the writer to finish.
const SETTLE: Duration = Duration::from_millis(100);
/// The longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files that are read.
const FILES_MAX: usize = 1000;

/// Static pods by uid.
pub type Statics = BTreeMap<String, Arc<Pod>>;

/// What the reader of static pods is started with.
#[derive(Clone, Debug)]
pub(crate) struct FilesArgs {
    pub(crate) directory: PathBuf,
    pub(crate) node: String,
    pub(crate) place: Arc<watch::Sender<Option<Arc<Statics>>>>,
}

/// Reads the directory, and again whenever something in it changes. A directory that isn't there is an empty one.
pub(crate) async fn run(handle: TaskHandle, args: FilesArgs) -> Result<(), ActorError> {
    let clock = handle.system().clock().clone();
    let mut told: BTreeMap<PathBuf, String> = BTreeMap::new();
    loop {
        let watched = watch_directory(&args.directory);
        let seen = super::super::pod::now(&clock).to_string();
        let before = args.place.borrow().clone().unwrap_or_default();
        let (found, refused) = read(&args.directory, &args.node, &seen, &before);
        for (path, error) in &refused {
            if told.get(path) != Some(error) {
                tracing::warn!(path = %path.display(), error, "a file of a static pod is no good");
            }
        }
        told = refused;
        args.place.send_if_modified(|place| {
            let changed = place.as_deref() != Some(&found);
            *place = Some(Arc::new(found));
            changed
        });
        let changed = async {
            match &watched {
                Ok(watched) => watched.readable().await.map(drop).unwrap_or(()),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => clock.sleep_until(clock.now() + SETTLE).await,
            () = clock.sleep_until(clock.now() + CHECK) => {}
        }
    }
}

/// A descriptor that can be read when something in the directory changes.
fn watch_directory(directory: &Path) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MOVED_FROM
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&watch, directory, events)?;
    #[expect(deprecated, reason = "its successor is unsafe; the descriptor is owned and stays open for as long")]
    AsyncFd::new(watch)
}

/// The pods of a directory, and the files that are no good, with why. Of a file that was good and can't be read now, the
/// pod stays: half a write doesn't end it.
fn read(directory: &Path, node: &str, seen: &str, before: &Statics) -> (Statics, BTreeMap<PathBuf, String>) {
    let (mut pods, mut refused) = (Statics::new(), BTreeMap::new());
    let mut names: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.')));
    names.sort();
    for path in names.into_iter().take(FILES_MAX) {
        if !path.is_file() {
            continue;
        }
        match load(&path, node, seen) {
            Ok((uid, pod)) => {
                // When it was first seen stays, or it would change with each look.
                let known = before.get(&uid).cloned();
                pods.insert(uid, known.unwrap_or_else(|| Arc::new(pod)));
            }
            Err(error) => {
                let of_file = |pod: &&Arc<Pod>| crate::spec::annotation(pod, PATH) == path.to_str();
                if let Some((uid, pod)) = before.iter().find(|(_, pod)| of_file(pod)) {
                    pods.insert(uid.clone(), pod.clone());
                }
                refused.insert(path, error);
            }
        }
    }
    (pods, refused)
}

/// Annotation: the file of a static pod.
const PATH: &str = "k3sd.io/config.path";

fn load(path: &Path, node: &str, seen: &str) -> Result<(String, Pod), String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file is longer than {FILE_BYTES_MAX} bytes"));
    }
    let schema = schema::kind_schema("v1", "Pod").ok_or("there is no schema of pods")?;
    let mut value = decode::yaml(&bytes, Some(schema)).map_err(|error| error.to_string())?.value;
    if (value["apiVersion"].as_str(), value["kind"].as_str()) != (Some("v1"), Some("Pod")) {
        return Err("it holds no Pod of v1".to_owned());
    }
    default::apply(&mut value, schema);
    let pod: Pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let mut text = bytes;
    text.extend_from_slice(node.as_bytes());
    text.extend_from_slice(path.as_os_str().as_encoded_bytes());
    let hash: String = digest(&SHA256, &text).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut pod = adopt(pod, &hash, node, seen)?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(PATH.to_owned(), path.to_string_lossy().into_owned());
    Ok((hash, pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_stands_for_content_place_and_node() {
        let place = tempfile::tempdir().unwrap();
        let text = |image: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
            )
        };
        let (path, other) = (place.path().join("a.yaml"), place.path().join("b.yaml"));
        fs::write(&path, text("i:1")).unwrap();
        fs::write(&other, text("i:1")).unwrap();
        let uid = |path: &Path, node: &str, seen: &str| load(path, node, seen).unwrap().0;
        let first = uid(&path, "one", "then");
        assert!(first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        assert_eq!(load(&path, "one", "then").unwrap().1.metadata.uid.as_deref(), Some(first.as_str()));
        assert_eq!(uid(&path, "one", "now"), first, "another life of the node");
        assert_ne!(uid(&path, "two", "then"), first, "another node");
        assert_ne!(uid(&other, "one", "then"), first, "another file");
        fs::write(&path, text("i:2")).unwrap();
        assert_ne!(uid(&path, "one", "then"), first, "another content");
        fs::write(&path, text("i:1")).unwrap();
        assert_eq!(uid(&path, "one", "then"), first, "the same again");
    }

    #[test]
    fn directories_are_read() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
        write(
            "a.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i:1}]}\n",
        );
        write(
            "b.json",
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": [{"name": "c"}]}}"#,
        );
        write("c.yaml", "kind: Deployment\napiVersion: apps/v1\n");
        write("d.yaml", "{");
        write(".hidden", "{");
        let (first, refused) = read(place.path(), "node", "then", &Statics::new());
        let names: Vec<_> = first.values().map(|pod| crate::spec::name(pod).to_owned()).collect();
        assert_eq!((names.len(), refused.len()), (2, 2));
        let pod = first.values().find(|pod| crate::spec::name(pod) == "a-node").unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(container.termination_message_path.as_deref(), Some("/dev/termination-log"), "defaults are set");
        let (again, _) = read(place.path(), "node", "now", &first);
        assert_eq!(first, again);
        write("a.yaml", "{");
        let (broken, _) = read(place.path(), "node", "now", &again);
        assert_eq!(broken.len(), 2, "half a write ends nothing");
        fs::remove_file(place.path().join("a.yaml")).unwrap();
        assert_eq!(read(place.path(), "node", "now", &broken).0.len(), 1);
        assert!(read(&place.path().join("none"), "node", "now", &broken).0.is_empty());
    }
}
