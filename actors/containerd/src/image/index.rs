//! What an archive holds: pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{reference, sha256};
use crate::error::ImportError;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A blob, as another one names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    pub annotations: Option<BTreeMap<String, String>>,
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub os: String,
    pub architecture: String,
}

/// A manifest, or an index of manifests, or a configuration: only what is needed of each.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

/// The part of a configuration that unpacking takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigBlob {
    pub os: String,
    pub architecture: String,
    pub rootfs: RootFs,
}

/// The layers, unpacked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    pub diff_ids: Vec<String>,
}

/// A file of the archive that is in the engine now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub digest: String,
    pub size: i64,
    /// Whether it is packed by gzip.
    pub gzip: bool,
}

/// An image of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub names: Vec<String>,
    pub blob: Descriptor,
    /// A manifest that the archive itself doesn't hold.
    pub made: Option<Vec<u8>>,
}

/// Reads JSON whose contents are not repeated in errors.
pub(crate) fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        ImportError::Content(format!("{what} of the archive is damaged at line {line}, column {column}"))
    })
}

/// The images of an OCI layout.
pub(crate) fn oci(index: &[u8]) -> Result<Vec<Target>, ImportError> {
    let index: Node = parse("index.json", index)?;
    let mut targets = Vec::new();
    for blob in index.manifests.unwrap_or_default() {
        let note = |key: &str| blob.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
        let full = note("io.containerd.image.name").map(|name| reference::normalize(&name));
        let short = || note("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
        let name = full.or_else(|| short().map(|name| reference::normalize(&name)));
        let names = name.into_iter().filter(|name| reference::is_full(name)).collect();
        targets.push(Target { names, blob, made: None });
    }
    Ok(targets)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of an archive as `docker save` writes it, with a manifest made for each.
pub(crate) fn docker(manifest: &[u8], files: &BTreeMap<String, Stored>) -> Result<Vec<Target>, ImportError> {
    let entries: Vec<DockerEntry> = parse("manifest.json", manifest)?;
    let file = |path: &str| {
        let found = files.get(path.trim_start_matches("./"));
        found.ok_or_else(|| ImportError::Content(format!("the archive lacks {path:?}, which its manifest names")))
    };
    let mut targets = Vec::new();
    for entry in entries {
        let config = file(&entry.config)?;
        let mut layers = Vec::new();
        for layer in entry.layers.unwrap_or_default() {
            let stored = file(&layer)?;
            let media = if stored.gzip { format!("{DOCKER_LAYER}.gzip") } else { DOCKER_LAYER.to_owned() };
            layers.push(json!({ "mediaType": media, "size": stored.size, "digest": stored.digest }));
        }
        let made = json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": { "mediaType": DOCKER_CONFIG, "size": config.size, "digest": config.digest },
            "layers": layers,
        });
        let made = made.to_string().into_bytes();
        let tags = entry.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| reference::normalize(tag));
        let names = names.filter(|name| reference::is_full(name)).collect();
        let size = i64::try_from(made.len()).unwrap_or(i64::MAX);
        let blob = Descriptor { media_type: DOCKER_MANIFEST.into(), digest: sha256(&made), size, ..Default::default() };
        targets.push(Target { names, blob, made: Some(made) });
    }
    Ok(targets)
}

/// The labels by which the engine keeps what a blob names, for as long as it keeps the blob.
pub(crate) fn references(node: &Node) -> BTreeMap<String, String> {
    const KEEP: &str = "containerd.io/gc.ref.content";
    let mut labels = BTreeMap::new();
    for (position, child) in node.manifests.iter().flatten().enumerate() {
        labels.insert(format!("{KEEP}.m.{position}"), child.digest.clone());
    }
    if let Some(config) = &node.config {
        labels.insert(format!("{KEEP}.config"), config.digest.clone());
    }
    for (position, layer) in node.layers.iter().flatten().enumerate() {
        labels.insert(format!("{KEEP}.l.{position}"), layer.digest.clone());
    }
    labels
}

/// The name of the snapshot of a layer on top of those before it.
pub(crate) fn chain_id(parent: &str, diff_id: &str) -> String {
    if parent.is_empty() { diff_id.to_owned() } else { sha256(format!("{parent} {diff_id}").as_bytes()) }
}

/// Whether a text is a digest, and so can't be anything else in a request.
pub(crate) fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        matches!(algorithm, "sha256" | "sha384" | "sha512")
            && hex.len() >= 64
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_docker_gets_manifests() {
        let stored = |digest: &str, gzip| Stored { digest: digest.to_owned(), size: 3, gzip };
        let files = BTreeMap::from([
            ("c.json".to_owned(), stored("sha256:c", false)),
            ("l/layer.tar".to_owned(), stored("sha256:l", true)),
        ]);
        let manifest = br#"[{"Config":"c.json","RepoTags":["busybox:1"],"Layers":["l/layer.tar"]}]"#;
        let targets = docker(manifest, &files).unwrap();
        assert_eq!(targets[0].names, ["docker.io/library/busybox:1"]);
        let node: Node = parse("x", targets[0].made.as_ref().unwrap()).unwrap();
        assert!(node.layers.as_ref().unwrap()[0].media_type.ends_with(".gzip"));
        assert_eq!(references(&node)["containerd.io/gc.ref.content.l.0"], "sha256:l");
        let lacking = docker(br#"[{"Config":"x.json"}]"#, &files).unwrap_err();
        assert!(lacking.to_string().contains("x.json"), "{lacking}");
        assert!(docker(b"{", &files).is_err());
    }

    #[test]
    fn an_oci_layout_names_its_images_in_annotations() {
        let index = br#"{"manifests":[{"digest":"d","annotations":{"io.containerd.image.name":"a/b"}},
            {"digest":"e","annotations":{"org.opencontainers.image.ref.name":"r.example/x:2"}},
            {"digest":"f","annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#;
        let names: Vec<_> = oci(index).unwrap().into_iter().map(|target| target.names).collect();
        assert_eq!(names, [vec!["docker.io/a/b:latest".to_owned()], vec!["r.example/x:2".to_owned()], vec![]]);
    }

    #[test]
    fn chains_are_named_by_all_their_layers() {
        assert_eq!(chain_id("", "sha256:a"), "sha256:a");
        assert_eq!(chain_id("sha256:a", "sha256:b"), sha256(b"sha256:a sha256:b"));
        assert!(is_digest(&sha256(b"")) && !is_digest("sha256:../../x"));
    }
}
