//! The files of `server/static`, which the supervisor's port serves below `/static/`: charts that Helm's jobs fetch.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Where their paths begin.
pub const PREFIX: &str = "/static/";

/// Opens the file that a request's path names, below `dir`; `None` if it names none of ours. Only ordinary files are ever
/// served, none that begins with a dot, and nothing that a link names which leads out of the directory.
///
/// Asks the file system, so it blocks, but for nothing slower than that.
pub fn open(dir: &Path, request_path: &str) -> Option<File> {
    let below = below(request_path)?;
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // The kernel watches over the way, so that nobody can change it after it was looked at. A pipe isn't waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, below, flags, Mode::empty(), resolve).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
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
    use std::os::unix::fs::symlink;

    use rustix::fs::FileType;

    use super::*;

    #[test]
    fn files_are_found_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("static");
        fs::create_dir_all(dir.join("charts")).unwrap();
        fs::write(dir.join("charts/a+up1.tgz"), "a").unwrap();
        fs::write(dir.join("charts/.hidden"), "a").unwrap();
        fs::write(place.path().join("token"), "secret").unwrap();
        symlink(place.path().join("token"), dir.join("charts/out.tgz")).unwrap();
        symlink("../../token", dir.join("charts/up.tgz")).unwrap();
        symlink("charts", dir.join("latest")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for found in ["/static/charts/a+up1.tgz", "/static/charts/a%2Bup1.tgz", "/static/latest/a+up1.tgz"] {
            let text = open(&dir, found).map(|file| std::io::read_to_string(file).unwrap());
            assert_eq!(text.as_deref(), Some("a"), "{found}");
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
            "/static/charts/up.tgz",
            "/static/pipe",
            "/static/charts/a+up1.tgz%00",
            "/static/charts/a%zz",
            "/static/charts/a%2",
        ] {
            assert!(open(&dir, none).is_none(), "{none}");
        }
    }
}
