//! Puts the images of an archive into the engine: all of an archive, or nothing that lasts.
//!
//! Everything is written under a lease. When the images exist they keep their blobs; when the import fails, or this
//! process dies, the lease ends and the engine removes what nobody refers to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use containerd_client::services::v1::{Image, WriteAction, WriteContentRequest};
use containerd_client::types;
use futures_util::StreamExt as _;
use k3sd_cri::Code;
use tokio::sync::mpsc;

use super::archive::Piece;
use super::builder::architecture;
use super::engine::{Store, refused};
use super::index::{self, ConfigBlob, Descriptor, Node, Stored, Target};
use super::{reference, sha256, unpack};
use crate::error::ImportError;

/// Marks images that were preloaded: for us, and for whoever removes images that nobody uses.
pub(crate) const PINNED: &str = "io.cattle.k3s.pinned";
pub(crate) const CRI_PINNED: &str = "io.cri-containerd.pinned";
pub(crate) const PINNED_VALUE: &str = "pinned";
/// The largest table of contents of an archive.
const CONTENTS_BYTES_MAX: u64 = 8 << 20;
/// Requests that wait on the way to the engine.
const WRITES_WAITING_MAX: usize = 4;
/// An index names manifests, which name layers; nothing goes deeper but by mistake.
const DEPTH_MAX: usize = 4;

/// How to import.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub snapshotter: String,
    /// Registries with which images get names as well.
    pub registries: Vec<String>,
    /// Names that the images get instead of their own.
    pub rename: Option<Vec<String>>,
    /// Differs for each import there ever is.
    pub nonce: String,
}

/// Imports what comes out of an archive; returns the names of its images. `whole` yields whether it was read to its end.
pub(crate) async fn import(
    store: &Store,
    terms: &Terms,
    mut pieces: mpsc::Receiver<Piece>,
    whole: impl Future<Output = Result<(), ImportError>>,
) -> Result<Vec<String>, ImportError> {
    let store_all = async {
        let outcome = store_files(store, terms, &mut pieces).await;
        drop(pieces); // So that the reader ends when this has failed.
        outcome
    };
    let (files, whole) = tokio::join!(store_all, whole);
    // What is wrong with the archive says more than what then went wrong with a blob of it.
    whole?;
    let files = files?;
    let targets = match (files.contents.get("index.json"), files.contents.get("manifest.json")) {
        (Some(index), _) => index::oci(index)?,
        (None, Some(manifest)) => index::docker(manifest, &files.stored)?,
        (None, None) => {
            return Err(ImportError::Content("it has neither an index.json nor a manifest.json".to_owned()));
        }
    };
    let mut names = Vec::new();
    for target in targets {
        names.extend(put(store, terms, &target).await?);
    }
    if names.is_empty() {
        return Err(ImportError::Content("no image in it has a name".to_owned()));
    }
    Ok(names)
}

#[derive(Default)]
struct Files {
    contents: BTreeMap<String, Vec<u8>>,
    stored: BTreeMap<String, Stored>,
}

async fn store_files(store: &Store, terms: &Terms, pieces: &mut mpsc::Receiver<Piece>) -> Result<Files, ImportError> {
    let mut files = Files::default();
    let mut links = Vec::new();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Begin { path, size } if is_contents(&path) => {
                let bytes = collect(&path, size, pieces).await?;
                files.contents.insert(path, bytes);
            }
            Piece::Begin { path, size } => {
                let name = format!("import-{}-{}", terms.nonce, files.stored.len());
                let stored = store_file(store, name, &path, size, pieces).await?;
                files.stored.insert(path, stored);
            }
            Piece::Link { path, target } => links.push((path, target)),
            Piece::Data(_) | Piece::End => {}
        }
    }
    for (path, target) in links {
        let found = files.stored.get(&target).cloned();
        files.stored.extend(found.map(|stored| (path, stored)));
    }
    Ok(files)
}

fn is_contents(path: &str) -> bool {
    matches!(path, "index.json" | "manifest.json" | "oci-layout" | "repositories")
}

async fn collect(path: &str, size: u64, pieces: &mut mpsc::Receiver<Piece>) -> Result<Vec<u8>, ImportError> {
    if size > CONTENTS_BYTES_MAX {
        return Err(ImportError::Content(format!("its {path} is too large")));
    }
    let mut bytes = Vec::new();
    while let Some(Piece::Data(chunk)) = pieces.recv().await {
        bytes.extend(chunk);
    }
    Ok(bytes)
}

/// The digest that a file of an OCI layout has to have.
fn expected(path: &str) -> Option<String> {
    let mut parts = path.strip_prefix("blobs/")?.splitn(2, '/');
    let digest = format!("{}:{}", parts.next()?, parts.next()?);
    index::is_digest(&digest).then_some(digest)
}

/// Writes one file as a blob while it is read.
async fn store_file(
    store: &Store,
    name: String,
    path: &str,
    size: u64,
    pieces: &mut mpsc::Receiver<Piece>,
) -> Result<Stored, ImportError> {
    let total = i64::try_from(size).unwrap_or(i64::MAX);
    let known = expected(path);
    let (sender, mut receiver) = mpsc::channel(WRITES_WAITING_MAX);
    let requests = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut client = store.content();
    let answers = async {
        let mut stream = client.write(store.request(requests)).await?.into_inner();
        let mut digest = String::new();
        while let Some(answer) = stream.next().await {
            let answer = answer?;
            if answer.action == WriteAction::Commit as i32 {
                digest = answer.digest;
            }
        }
        Ok::<_, tonic::Status>(digest)
    };
    let mut gzip = false;
    let writes = async {
        let (mut offset, mut open) = (0_i64, true);
        let first = WriteContentRequest {
            action: WriteAction::Write as i32,
            r#ref: name.clone(),
            total,
            expected: known.clone().unwrap_or_default(),
            ..Default::default()
        };
        while let Some(Piece::Data(data)) = pieces.recv().await {
            if offset == 0 {
                gzip = data.starts_with(&[0x1f, 0x8b]);
            }
            let length = data.len() as i64;
            // The engine hangs up when it has the blob already; the rest is only read then.
            open = open && sender.send(WriteContentRequest { offset, data, ..first.clone() }).await.is_ok();
            offset += length;
        }
        if open && offset == total {
            let action = WriteAction::Commit as i32;
            sender.send(WriteContentRequest { action, offset, ..first }).await.ok();
        }
        drop(sender);
    };
    let (answered, ()) = tokio::join!(answers, writes);
    let digest = match (answered, known) {
        (Ok(digest), _) if !digest.is_empty() => digest,
        (Ok(_), _) => return Err(ImportError::Content(format!("{path} ends early"))),
        (Err(status), Some(known)) if status.code() == Code::AlreadyExists => known,
        (Err(status), None) if status.code() == Code::AlreadyExists => {
            existing(status.message()).ok_or_else(|| refused("write a blob")(status.clone()))?
        }
        (Err(status), _) => return Err(refused("write a blob")(status)),
    };
    Ok(Stored { digest, size: total, gzip })
}

/// The digest in the engine's words about a blob that it has already.
fn existing(message: &str) -> Option<String> {
    let words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    words.map(|word| word.trim_end_matches(':')).find(|word| index::is_digest(word)).map(str::to_owned)
}

/// Makes one image with all its names.
async fn put(store: &Store, terms: &Terms, target: &Target) -> Result<Vec<String>, ImportError> {
    let names = terms.rename.clone().unwrap_or_else(|| target.names.clone());
    if names.is_empty() {
        tracing::warn!(digest = target.blob.digest, "an image of an archive has no name and is left out");
        return Ok(Vec::new());
    }
    if let Some(made) = &target.made {
        write_document(store, terms, made).await?;
    }
    let runnable = label_tree(store, &target.blob, &names).await?;
    for node in &runnable {
        unpack::unpack(store, &terms.snapshotter, node, &terms.nonce).await?;
    }
    let blob = types::Descriptor {
        media_type: target.blob.media_type.clone(),
        digest: target.blob.digest.clone(),
        size: target.blob.size,
        ..Default::default()
    };
    let mut all = BTreeSet::new();
    for name in &names {
        all.insert(name.clone());
        all.extend(reference::aliases(name, &target.blob.digest, &terms.registries));
    }
    for name in &all {
        let labels = [PINNED, CRI_PINNED].map(|label| (label.to_owned(), PINNED_VALUE.to_owned()));
        let labels = HashMap::from(labels);
        store.put_image(Image { name: name.clone(), labels, target: Some(blob.clone()), ..Default::default() }).await?;
    }
    Ok(all.into_iter().collect())
}

/// Writes a manifest that the archive doesn't hold.
async fn write_document(store: &Store, terms: &Terms, bytes: &[u8]) -> Result<(), ImportError> {
    let digest = sha256(bytes);
    let (sender, mut pieces) = mpsc::channel(2);
    sender.try_send(Piece::Data(bytes.to_vec())).ok();
    sender.try_send(Piece::End).ok();
    let path = format!("blobs/{}", digest.replace(':', "/"));
    let name = format!("import-{}-{digest}", terms.nonce);
    store_file(store, name, &path, bytes.len() as u64, &mut pieces).await.map(drop)
}

/// Labels everything below a blob, so that it is kept with it; returns the manifests that this machine can run. What an
/// archive doesn't hold, as other platforms' layers, is left out.
async fn label_tree(store: &Store, root: &Descriptor, names: &[String]) -> Result<Vec<Node>, ImportError> {
    let mut waiting = vec![(root.clone(), 0)];
    let (mut runnable, mut is_there) = (Vec::new(), false);
    while let Some((blob, depth)) = waiting.pop() {
        if depth > DEPTH_MAX || !index::is_digest(&blob.digest) {
            return Err(ImportError::Content("an image of the archive refers to what is no manifest".to_owned()));
        }
        let Some(bytes) = store.document(&blob.digest).await? else { continue };
        is_there |= depth == 0;
        let node: Node = index::parse("a manifest", &bytes)?;
        let mut labels = index::references(&node);
        labels.extend(sources(names));
        store.label(&blob.digest, labels).await?;
        waiting.extend(node.manifests.iter().flatten().map(|child| (child.clone(), depth + 1)));
        for child in node.config.iter().chain(node.layers.iter().flatten()) {
            match store.label(&child.digest, sources(names)).await {
                Err(ImportError::Engine { away: false, .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        if node.config.is_some() && is_ours(store, &node).await? {
            runnable.push(node);
        }
    }
    if is_there { Ok(runnable) } else { Err(ImportError::Content(format!("it lacks the manifest {}", root.digest))) }
}

/// Where the blobs could be had: the repository at each registry.
fn sources(names: &[String]) -> BTreeMap<String, String> {
    let source = |name: &String| {
        let (registry, repository) = reference::locator(name);
        (format!("containerd.io/distribution.source.{registry}"), repository.to_owned())
    };
    names.iter().map(source).collect()
}

async fn is_ours(store: &Store, node: &Node) -> Result<bool, ImportError> {
    let Some(config) = &node.config else { return Ok(false) };
    let Some(bytes) = store.document(&config.digest).await? else { return Ok(false) };
    let Ok(config) = index::parse::<ConfigBlob>("a configuration", &bytes) else { return Ok(false) };
    Ok(config.os == "linux" && config.architecture == architecture())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_layout_says_what_is_in_it() {
        let digest = sha256(b"");
        assert_eq!(expected(&format!("blobs/{}", digest.replace(':', "/"))), Some(digest.clone()));
        assert_eq!(expected("blobs/sha256/../x"), None);
        assert_eq!(expected("x/layer.tar"), None);
        assert_eq!(existing(&format!("content {digest}: already exists")), Some(digest));
    }
}
