//! What the actor has done beside its mailbox.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use containerd_client::services::v1::{Image, Lease};
use k3sd_cri::{Cri, v1};
use k3sd_runtime::blocking::Blocking;
use tokio::sync::mpsc;

use super::cache::{self, Entry};
use super::core::{Kind, Stamp, names};
use crate::config::ContainerdConfig;
use crate::error::ImportError;
use crate::image::archive::{self, Source};
use crate::image::engine::{EXPIRES, Store};
use crate::image::import::{self, CRI_PINNED, PINNED, PINNED_VALUE, Terms};
use crate::image::{self, BuiltImage, reference};

/// Pieces of an archive that wait for the engine: a few MiB at most.
const PIECES_WAITING_MAX: usize = 8;
/// The beginning of our leases' names.
const LEASE_PREFIX: &str = "k3sd-import-";
/// The name that K3s gives to its own lease.
const K3S_LEASE: &str = "k3s";
/// Lists of images are short.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// A thread that reads one archive.
pub(crate) type Reader = Blocking<()>;

/// Whether a lease is nobody's any more. It is ours, and no import runs; or it is one for a time, from before the engine
/// began to serve at `since`. Its holder was the engine itself, making a sandbox, or somebody on a connection that broke:
/// what it holds, as a snapshot, would stay for a day. Who means to come back takes a lease without an end.
fn is_lost(lease: &Lease, since: Option<SystemTime>) -> bool {
    let made = lease.created_at.and_then(|made| SystemTime::try_from(made).ok());
    let is_older = made.zip(since).is_some_and(|(made, since)| made < since);
    lease.id == K3S_LEASE || lease.id.starts_with(LEASE_PREFIX) || is_older && lease.labels.contains_key(EXPIRES)
}

/// Ends what an import that was cut short left behind, and an engine that was killed; this one has served since `since`.
pub(crate) async fn clean(store: &Store, since: Option<SystemTime>) -> Result<(), ImportError> {
    let leases = store.leases().await?;
    let lost: Vec<&Lease> = leases.iter().filter(|lease| is_lost(lease, since)).collect();
    for (at, lease) in lost.iter().enumerate() {
        // With the last one goes what all of them held.
        store.release(&lease.id, at + 1 == lost.len()).await?;
    }
    Ok(())
}

/// Imports an archive under a lease of its own.
async fn archive(
    store: &Store,
    thread: &Reader,
    source: Source,
    terms: &Terms,
    expires: String,
) -> Result<Vec<String>, ImportError> {
    let leased = store.leased(format!("{LEASE_PREFIX}{}", terms.nonce), expires).await?;
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let read = thread.run(move |()| archive::read(source, &sender));
    let whole = async { read.await.map_err(|error| ImportError::Content(error.to_string()))? };
    let outcome = import::import(&leased, terms, pieces, whole).await;
    if let Some(lease) = leased.lease() {
        // Nothing that a failed import wrote is to stay.
        let ended = store.release(lease, outcome.is_err()).await;
        ended.inspect_err(|error| tracing::warn!(%error, "a lease stays until it expires")).ok();
    }
    outcome
}

/// Sees to it that the sandbox's image is there, under all its names.
pub(crate) async fn pause(
    store: &Store,
    thread: &Reader,
    config: &ContainerdConfig,
    mut terms: Terms,
    expires: String,
) -> Result<(), ImportError> {
    // The engine makes its socket anew whenever it starts.
    let since = std::fs::metadata(config.socket()).and_then(|socket| socket.modified()).ok();
    clean(store, since).await?;
    let sandbox_image = &config.sandbox_image();
    let wanted = image::pause_names(sandbox_image);
    let built = image::pause();
    let mut absent = Vec::new();
    for name in &wanted {
        // One of the same name that the user brought is left alone.
        if store.image(name).await?.is_none() {
            absent.push(name.clone());
        }
    }
    if absent.is_empty() {
        return Ok(());
    }
    terms.rename = Some(absent);
    terms.registries.clear();
    let source = Source::Memory(Arc::from(BuiltImage::oci_archive(&[built])));
    archive(store, thread, source, &terms, expires).await.map(drop)
}

/// A file to import, and all that it takes.
#[derive(Debug)]
pub(crate) struct Job {
    pub store: Store,
    pub cri: Cri,
    pub dir: PathBuf,
    pub path: PathBuf,
    pub stamp: Stamp,
    pub kind: Kind,
    pub terms: Terms,
    pub expires: String,
}

impl Job {
    /// Imports the file; the names of its images.
    pub(crate) async fn run(self, thread: &Reader) -> Result<Vec<String>, ImportError> {
        let (dir, path, stamp) = (self.dir.clone(), self.path.clone(), self.stamp);
        let known = on(thread, move || cache::read(&dir).and_then(|mut all| all.remove(&path))).await?;
        if let Some(entry) = known.filter(|entry| entry.is(stamp))
            && self.are_there(&entry.images).await?
        {
            self.pin(&entry.images).await?;
            return Ok(entry.images);
        }
        let names = match self.kind {
            Kind::Archive => {
                let source = Source::File(self.path.clone());
                archive(&self.store, thread, source, &self.terms, self.expires.clone()).await?
            }
            Kind::List => self.pull(thread).await?,
        };
        let (dir, path, entry) = (self.dir, self.path, Entry::new(stamp, names.clone()));
        on(thread, move || cache::remember(&dir, &path, entry)).await?;
        Ok(names)
    }

    async fn are_there(&self, names: &[String]) -> Result<bool, ImportError> {
        for name in names {
            if self.store.image(name).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(!names.is_empty())
    }

    async fn pin(&self, names: &[String]) -> Result<(), ImportError> {
        for name in names {
            mark(&self.store, name, PINNED_VALUE).await?;
        }
        Ok(())
    }

    /// Pulls what a list names and isn't there. One that can't be had doesn't keep the others back.
    async fn pull(&self, thread: &Reader) -> Result<Vec<String>, ImportError> {
        let path = self.path.clone();
        let text = on(thread, move || read_list(&path)).await?.map_err(ImportError::Read)?;
        let (mut pinned, mut failure) = (Vec::new(), None);
        for name in names(&text) {
            match self.fetch(&name).await {
                Ok(()) => pinned.push(name),
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, image = name, "an image of a list could not be pulled");
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if pinned.is_empty() => Err(error),
            _ => Ok(pinned),
        }
    }

    async fn fetch(&self, name: &str) -> Result<(), ImportError> {
        if !reference::is_full(name) {
            return Err(ImportError::Content(format!("{name:?} is no name of an image")));
        }
        if self.store.image(name).await?.is_none() {
            let image = v1::ImageSpec { image: name.to_owned(), ..Default::default() };
            let request = v1::PullImageRequest { image: Some(image), ..Default::default() };
            self.cri.pull_image(request).await.map_err(|error| ImportError::Engine {
                action: "pull an image",
                message: error.message(),
                away: error.is_unavailable() && matches!(error, k3sd_cri::CriError::Away { .. }),
            })?;
        }
        mark(&self.store, name, PINNED_VALUE).await
    }
}

/// Whether the same may work when the engine is back.
pub(crate) fn is_away(error: &ImportError) -> bool {
    matches!(error, ImportError::Engine { away: true, .. })
}

async fn on<T: Send + 'static>(thread: &Reader, job: impl FnOnce() -> T + Send + 'static) -> Result<T, ImportError> {
    thread.run(move |()| job()).await.map_err(|error| ImportError::Content(error.to_string()))
}

fn read_list(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LIST_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Sets the marks of a preloaded image. One that is gone meanwhile needs none.
async fn mark(store: &Store, name: &str, value: &str) -> Result<(), ImportError> {
    // containerd 1.7 and later panic over an image without a target, even where the target isn't what changes.
    let Some(Image { target, .. }) = store.image(name).await? else { return Ok(()) };
    let labels: HashMap<String, String> = [PINNED, CRI_PINNED].map(|key| (key.to_owned(), value.to_owned())).into();
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    store.change_image(Image { name: name.to_owned(), labels, target, ..Default::default() }, paths).await
}

/// Takes the marks off images that no file stands for any more.
pub(crate) async fn unpin(store: &Store, keep: &BTreeSet<String>) -> Result<(), ImportError> {
    for image in store.images_with(&format!("labels.\"{PINNED}\"=={PINNED_VALUE}")).await? {
        if !keep.contains(&image.name) {
            mark(store, &image.name, "").await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn what_an_engine_held_that_died_is_lost() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let lease = |id: &str, seconds: Option<i64>, expires: bool| Lease {
            id: id.to_owned(),
            created_at: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
            labels: expires.then(|| (EXPIRES.to_owned(), "2026-01-01T00:00:00Z".to_owned())).into_iter().collect(),
        };
        for (lease, expected) in [
            (lease("1-abc", Some(99), true), true),
            (lease("1-abc", Some(101), true), false),
            (lease("builder", Some(99), false), false),
            (lease("1-abc", None, true), false),
            (lease("k3sd-import-1", Some(101), true), true),
        ] {
            assert_eq!(is_lost(&lease, Some(since)), expected, "{lease:?}");
        }
        assert!(!is_lost(&lease("1-abc", Some(99), true), None), "it is not known since when it serves");
    }
}
