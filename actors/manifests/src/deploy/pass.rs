//! One pass over the files that are due.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use k3sd_client::events::Recorder;
use k3sd_objects::names::dns_subdomain;
use k3sd_objects::status::go::quote;
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::ObjectReference;

use super::addon::{self, Addon, Addons, checksum};
use super::core::{Due, Memory};
use crate::api::{Cluster, Gvk, message};
use crate::apply::{Applied, Existing, Set, is_foundation};
use crate::files::names::stem;
use crate::parse::{Manifest, Parsed, parse};

/// How Events begin that a reader sees first.
const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";

/// A file's content, read and understood.
#[derive(Debug)]
pub(super) struct Loaded {
    pub due: Due,
    pub content: Result<Content, String>,
    /// It is disabled: what it holds goes, and then the file.
    pub disabled: bool,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Content {
    pub checksum: String,
    pub parsed: Parsed,
}

/// Reads the files. Blocks.
pub(super) fn load(due: Vec<(Due, bool)>) -> Vec<Loaded> {
    let read = |(due, disabled): (Due, bool)| {
        let bytes = crate::files::read(Path::new(&due.path));
        let content = bytes.map(|bytes| Content { checksum: checksum(&bytes), parsed: parse(&bytes) });
        Loaded { due, content: content.map_err(|error| error.to_string()), disabled }
    };
    due.into_iter().map(read).collect()
}

/// What came of a file.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// It is to be deleted from the disk, and is done then.
    Remove(PathBuf),
    /// It is tried again.
    Failed(String),
}

/// What a pass needs.
pub(super) struct Pass<'a> {
    pub cluster: &'a Cluster,
    pub clock: &'a Clock,
    pub recorder: &'a Recorder,
    pub addons: Addons<'a>,
    pub known: BTreeMap<String, Addon>,
    pub existing: Existing,
    /// What was said of files before: it isn't said again.
    pub memory: &'a Memory,
}

impl Pass<'_> {
    /// Makes namespaces and definitions of all files first, so that files needn't be in the order in which they need each
    /// other. What fails is told when its file's turn comes.
    pub(super) async fn found(&self, files: &[Loaded]) {
        let mut writes = 0;
        for file in files.iter().filter(|file| !file.disabled) {
            let Ok(content) = &file.content else { continue };
            let needed = content.parsed.objects.iter().filter(|manifest| is_foundation(&manifest.gvk));
            let needed: Vec<Manifest> = needed.cloned().collect();
            let addon = self.addon(&file.due.path);
            if needed.is_empty() || !self.is_due(&addon, file, content) {
                continue;
            }
            let set = Set { prunes: false, ..self.set(&addon, Vec::new(), &|| {}) };
            let applied = set.apply(&needed).await;
            writes += applied.writes;
        }
        if writes > 0 {
            for (api_version, kind) in [("v1", "Namespace"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition")] {
                self.existing.forget(&Gvk::new(api_version, kind));
            }
        }
    }

    fn addon(&self, path: &str) -> Addon {
        let name = stem(path);
        self.known.get(name).cloned().unwrap_or_else(|| Addon::none(name))
    }

    fn is_due(&self, addon: &Addon, file: &Loaded, content: &Content) -> bool {
        file.due.forced || addon.checksum() != content.checksum
    }

    fn set<'s>(&'s self, addon: &Addon, prune: Vec<Gvk>, announce: &'s (dyn Fn() + Send + Sync)) -> Set<'s> {
        Set {
            cluster: self.cluster,
            clock: self.clock,
            existing: &self.existing,
            owner: addon.owner(),
            prune,
            prunes: true,
            reference: None,
            replaced: None,
            announce,
        }
    }

    /// What is said about a file, unless it was said already.
    fn warn(&self, addon: &Addon, path: &str, reason: &str, text: &str) {
        if !self.memory.was_told(path, text) {
            self.recorder.about(addon.reference(), WARNING, reason, text);
        }
    }

    /// Deploys a file, or takes it away.
    pub(super) async fn file(&self, file: &Loaded) -> Outcome {
        let path = &file.due.path;
        let mut addon = self.addon(path);
        if file.disabled {
            return self.delete(file, &addon).await;
        }
        if !addon.is_there() {
            let name = stem(path);
            if let Some(fault) = dns_subdomain(name).first() {
                let text = format!("Manifest at {} can't have an AddOn named {}: {fault}", quote(path), quote(name));
                if !self.memory.was_told(path, &text) {
                    // There can be no such AddOn, so its namespace has to be what is spoken of.
                    self.recorder.about(namespace(), WARNING, "InvalidManifestName", text.as_str());
                }
                return Outcome::Failed(text);
            }
            addon = match self.addons.create(name, path).await {
                Ok(addon) => addon,
                Err(error) => {
                    let reason = message(&error);
                    return Outcome::Failed(format!("Create AddOn for manifest at {} failed: {reason}", quote(path)));
                }
            };
        }
        match &file.content {
            Ok(content) => self.deploy(file, &addon, content).await,
            Err(error) => {
                let text = format!("Read manifest at {} failed: {error}", quote(path));
                self.warn(&addon, path, "ReadManifestFailed", &text);
                Outcome::Failed(text)
            }
        }
    }

    async fn deploy(&self, file: &Loaded, addon: &Addon, content: &Content) -> Outcome {
        let (path, parsed) = (&file.due.path, &content.parsed);
        if !self.is_due(addon, file, content) {
            return Outcome::Done;
        }
        let broken = (!parsed.broken.is_empty())
            .then(|| format!("Parse manifest at {} failed: {}", quote(path), parsed.broken.join("; ")));
        if let Some(text) = &broken {
            self.warn(addon, path, "ParseManifestFailed", text);
        }
        let said = AtomicBool::new(false);
        let say = || {
            if !said.swap(true, Relaxed) {
                let text = format!("Applying manifest at {}", quote(path));
                self.recorder.about(addon.reference(), NORMAL, "ApplyingManifest", text);
            }
        };
        if addon.checksum() != content.checksum && broken.is_none() {
            say();
        }
        // Of a file that can't be read as a whole nobody knows what left it.
        let set = Set { prunes: broken.is_none(), ..self.set(addon, addon.gvks(), &say) };
        let Applied { errors, .. } = set.apply(&parsed.objects).await;
        let failed =
            (!errors.is_empty()).then(|| format!("Applying manifest at {} failed: {}", quote(path), errors.join(", ")));
        if let Some(text) = &failed {
            self.warn(addon, path, "ApplyManifestFailed", text);
        }
        let is_whole = broken.is_none() && failed.is_none();
        if is_whole && said.load(Relaxed) {
            let text = format!("Applied manifest at {}", quote(path));
            self.recorder.about(addon.reference(), NORMAL, "AppliedManifest", text);
        }
        let mut gvks = parsed.gvks();
        if !is_whole {
            // There may be objects of all of these now, which are to be found when they are to go.
            let before = addon.gvks();
            gvks.retain(|gvk| !before.contains(gvk));
            gvks = before.into_iter().chain(gvks).collect();
        }
        let difference = addon.difference(path, is_whole.then_some(content.checksum.as_str()), &gvks);
        if let Some(patch) = difference
            && let Err(error) = self.addons.write(addon, &patch).await
        {
            return Outcome::Failed(format!(
                "Update AddOn for manifest at {} failed: {}",
                quote(path),
                message(&error)
            ));
        }
        match broken.or(failed) {
            None => Outcome::Done,
            Some(text) => Outcome::Failed(text),
        }
    }

    /// Takes away what a file holds or held. The file goes last: as long as it is there, this is done again.
    async fn delete(&self, file: &Loaded, addon: &Addon) -> Outcome {
        let path = &file.due.path;
        let mut gvks = addon.gvks();
        match &file.content {
            Ok(content) => gvks.extend(content.parsed.gvks()),
            Err(error) => {
                let text = format!("Read manifest at {} failed: {error}", quote(path));
                self.warn(addon, path, "ReadManifestFailed", &text);
            }
        }
        let applied = self.set(addon, gvks, &|| {}).apply(&[]).await;
        if !applied.errors.is_empty() {
            return Outcome::Failed(format!("failed to delete {path}: {}", applied.errors.join(", ")));
        }
        if addon.is_there() {
            let text = format!("Deleting manifest at {}", quote(path));
            self.recorder.about(addon.reference(), NORMAL, "DeletingManifest", text);
            if let Err(error) = self.addons.delete(addon).await {
                return Outcome::Failed(format!("failed to delete {path}: {}", message(&error)));
            }
        }
        Outcome::Remove(PathBuf::from(path))
    }
}

fn namespace() -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: Some(addon::NAMESPACE.to_owned()),
        ..ObjectReference::default()
    }
}
