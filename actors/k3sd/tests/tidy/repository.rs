//! The files of the repository, read once per test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of ours.
const SKIPPED: &[&str] = &[".git", "target"];

/// One file that is text.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Relative to the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    pub executable: bool,
}

impl File {
    /// A made-up file, for the cases that prove a rule.
    #[cfg(test)]
    pub(crate) fn fake(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), executable: false }
    }

    /// Whether this is Rust source.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether this is code, configuration or a script: anything but prose and data.
    pub(crate) fn is_source(&self) -> bool {
        let source = [".rs", ".toml", ".sh"].iter().any(|end| self.path.ends_with(end));
        source || self.text.starts_with("#!")
    }
}

/// The root of the repository.
pub(crate) fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the manifest is two levels below the root")
}

/// Every text file, sorted by path. A walk rather than git: it works in a tarball and sees what is not yet committed.
pub(crate) fn repository_files() -> Vec<File> {
    let root = repository_root();
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn walk(root: &Path, directory: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository is readable") {
        let entry = entry.expect("a directory entry is readable");
        let (path, kind) = (entry.path(), entry.file_type().expect("a directory entry has a type"));
        let skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() && !skipped {
            walk(root, &path, files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(&path)
        {
            let executable = entry.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
            let path = path.strip_prefix(root).expect("the walk stays below the root").to_string_lossy().into_owned();
            files.push(File { path, text, executable });
        }
    }
}
