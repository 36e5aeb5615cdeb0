//! The files of `server/static`, which the supervisor's port serves below `/static/`: charts that Helm's jobs fetch.

use std::path::{Component, Path, PathBuf};

/// Where their paths begin.
pub const PREFIX: &str = "/static/";

/// The file that a request's path names, below `dir`; `None` if it names none of ours. Only ordinary files are ever
/// served, none that begins with a dot, and no link that leads out of the directory.
///
/// Asks the file system, so it blocks.
pub fn file(dir: &Path, request_path: &str) -> Option<PathBuf> {
    let found = dir.join(below(request_path)?);
    let (root, found) = (dir.canonicalize().ok()?, found.canonicalize().ok()?);
    (found.starts_with(&root) && found.is_file()).then_some(found)
}

/// The path below the directory, with its escapes read.
fn below(request_path: &str) -> Option<PathBuf> {
    let rest = request_path.strip_prefix(PREFIX)?;
    let path = PathBuf::from(unescape(rest)?);
    let is_plain =
        |part: Component<'_>| matches!(part, Component::Normal(name) if !name.as_encoded_bytes().starts_with(b"."));
    (path.components().next().is_some() && path.components().all(is_plain)).then_some(path)
}

/// A path without its `%xx`. `None` for broken escapes, zero bytes and what is no UTF-8.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_found_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("static");
        fs::create_dir_all(dir.join("charts")).unwrap();
        fs::write(dir.join("charts/a+up1.tgz"), "a").unwrap();
        fs::write(dir.join("charts/.hidden"), "a").unwrap();
        fs::write(place.path().join("token"), "secret").unwrap();
        std::os::unix::fs::symlink(place.path().join("token"), dir.join("charts/out.tgz")).unwrap();
        for found in ["/static/charts/a+up1.tgz", "/static/charts/a%2Bup1.tgz"] {
            assert!(file(&dir, found).is_some(), "{found}");
        }
        for none in [
            "/static/charts/b.tgz",
            "/static/charts",
            "/static//charts/a+up1.tgz",
            "/static/",
            "/static",
            "/charts/a+up1.tgz",
            "/static/../token",
            "/static/charts/../../token",
            "/static/%2e%2e/token",
            "/static/..%2ftoken",
            "/static//etc/passwd",
            "/static/%2fetc/passwd",
            "/static/charts/.hidden",
            "/static/charts/out.tgz",
            "/static/charts/a+up1.tgz%00",
            "/static/charts/a%zz",
            "/static/charts/a%2",
        ] {
            assert_eq!(file(&dir, none), None, "{none}");
        }
    }
}
