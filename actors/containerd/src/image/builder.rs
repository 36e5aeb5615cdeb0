//! Images from files, the same bytes each time.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::{reference, sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

enum Node {
    File { mode: u32, bytes: Vec<u8> },
    Link(String),
    Directory { mode: u32 },
}

/// Makes an image of one layer.
///
/// ```
/// use k3sd_containerd::image::ImageBuilder;
/// let image = ImageBuilder::new("example.com/hello:1").file("bin/hello", 0o755, b"#!/bin/sh\n").command(["/bin/hello"]).build();
/// assert_eq!(image.name(), "example.com/hello:1");
/// assert!(image.digest().starts_with("sha256:"));
/// ```
pub struct ImageBuilder {
    name: String,
    nodes: BTreeMap<String, Node>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    environment: Vec<String>,
    user: String,
    work_dir: String,
}

impl std::fmt::Debug for ImageBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ImageBuilder {
    /// An empty image. A short name is completed as `docker` does: `busybox` is `docker.io/library/busybox:latest`.
    pub fn new(name: &str) -> Self {
        Self {
            name: reference::normalize(name),
            nodes: BTreeMap::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            user: String::new(),
            work_dir: String::new(),
        }
    }

    fn node(mut self, path: &str, node: Node) -> Self {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Directory { mode: 0o755 });
        }
        self.nodes.insert(path.to_owned(), node);
        self
    }

    /// Adds a file that belongs to root; directories above it come by themselves.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.node(path, Node::File { mode, bytes: bytes.into() })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.node(path, Node::Link(target.to_owned()))
    }

    /// Adds a directory that belongs to root.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.node(path, Node::Directory { mode })
    }

    /// What always runs.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// What runs unless a pod says otherwise.
    #[must_use]
    pub fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// As whom it runs: `uid`, `uid:gid` or a name in its `/etc/passwd`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn work_dir(mut self, path: &str) -> Self {
        path.clone_into(&mut self.work_dir);
        self
    }

    fn layer(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, node) in &self.nodes {
            let mut header = Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let written = match node {
                Node::File { mode, bytes } => {
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, bytes.as_slice())
                }
                Node::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target)
                }
                Node::Directory { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())
                }
            };
            written.expect("paths of an image are relative and memory takes everything");
        }
        tar.into_inner().expect("memory takes everything")
    }

    /// The finished image, for the architecture of this program.
    pub fn build(self) -> BuiltImage {
        let layer = self.layer();
        let layer_digest = sha256(&layer);
        let mut run = json!({});
        let mut set = |key: &str, value: Value, is_empty: bool| {
            if !is_empty {
                run[key] = value;
            }
        };
        set("User", json!(self.user), self.user.is_empty());
        set("Env", json!(self.environment), self.environment.is_empty());
        set("Entrypoint", json!(self.entrypoint), self.entrypoint.is_empty());
        set("Cmd", json!(self.command), self.command.is_empty());
        set("WorkingDir", json!(self.work_dir), self.work_dir.is_empty());
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": run,
            "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": sha256(&config), "size": config.len() },
            "layers": [{ "mediaType": LAYER, "digest": layer_digest, "size": layer.len() }],
        });
        BuiltImage { name: self.name, layer, config, manifest: manifest.to_string().into_bytes() }
    }
}

/// This machine's architecture, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct BuiltImage {
    name: String,
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl std::fmt::Debug for BuiltImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuiltImage").field("name", &self.name).field("digest", &self.digest()).finish_non_exhaustive()
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).expect("memory takes everything");
}

impl BuiltImage {
    /// Its full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same image under another name.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        Self { name: reference::normalize(name), ..self.clone() }
    }

    /// The digest of its manifest: what `name@digest` refers to.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// The digest of its configuration: what CRI calls the image's ID.
    pub fn id(&self) -> String {
        sha256(&self.config)
    }

    /// An archive in the layout of the OCI, with all of these.
    pub fn oci_archive(images: &[Self]) -> Vec<u8> {
        let mut blobs: BTreeMap<String, &[u8]> = BTreeMap::new();
        let mut manifests = Vec::new();
        for image in images {
            for blob in [&image.layer, &image.config, &image.manifest] {
                blobs.insert(sha256(blob), blob);
            }
            manifests.push(json!({
                "mediaType": MANIFEST,
                "digest": image.digest(),
                "size": image.manifest.len(),
                "annotations": { "io.containerd.image.name": image.name },
                "platform": { "os": "linux", "architecture": architecture() },
            }));
        }
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        append(&mut tar, "index.json", index.to_string().as_bytes());
        for (digest, blob) in blobs {
            append(&mut tar, &format!("blobs/{}", digest.replace(':', "/")), blob);
        }
        tar.into_inner().expect("memory takes everything")
    }

    /// An archive as `docker save` writes it, with all of these.
    pub fn docker_archive(images: &[Self]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut entries = Vec::new();
        for image in images {
            let hex = |bytes: &[u8]| sha256(bytes).trim_start_matches("sha256:").to_owned();
            let (config, layer) = (format!("{}.json", hex(&image.config)), format!("{}/layer.tar", hex(&image.layer)));
            append(&mut tar, &layer, &image.layer);
            append(&mut tar, &config, &image.config);
            entries.push(json!({ "Config": config, "RepoTags": [image.name], "Layers": [layer] }));
        }
        append(&mut tar, "manifest.json", Value::Array(entries).to_string().as_bytes());
        tar.into_inner().expect("memory takes everything")
    }
}

/// `docker.io/library/busybox:latest` from a static busybox of this machine, with a link for each of its commands and
/// what programs expect in `/etc`.
///
/// # Errors
/// The file can't be read, or can't be run here.
pub fn busybox(program: &Path) -> io::Result<BuiltImage> {
    let bytes = std::fs::read(program)?;
    let output = Command::new(program).arg("--list").stdin(Stdio::null()).output()?;
    let mut image = ImageBuilder::new("busybox")
        .file("bin/busybox", 0o755, bytes)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
        .directory("root", 0o700)
        .directory("tmp", 0o1777)
        .directory("dev", 0o755)
        .directory("proc", 0o755)
        .directory("sys", 0o755)
        .variable("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .command(["sh"]);
    for applet in String::from_utf8_lossy(&output.stdout).lines().filter(|applet| *applet != "busybox") {
        image = image.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(image.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_image() {
        let make = || ImageBuilder::new("a/b").file("/x/y", 0o644, "z").link("l", "x/y").command(["/x/y"]).build();
        assert_eq!(make().digest(), make().digest());
        assert_eq!(make().name(), "docker.io/a/b:latest");
        let other = ImageBuilder::new("a/b").file("/x/y", 0o600, "z").link("l", "x/y").command(["/x/y"]).build();
        assert_ne!(make().digest(), other.digest());
        let archive = BuiltImage::oci_archive(&[make()]);
        let mut tar = tar::Archive::new(archive.as_slice());
        assert_eq!(tar.entries().unwrap().count(), 5);
    }
}
