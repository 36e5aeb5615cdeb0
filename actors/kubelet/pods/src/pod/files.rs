//! The small files that a pod has on the host, besides its volumes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::translate::labels::{log_directory, log_link};

/// The directory of a pod below the kubelet's.
pub(super) fn directory(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Makes the directory of the pod, which only root looks into, and that of its logs.
pub(super) fn prepare(root: &Path, logs: &Path, pod: &Pod, uid: &str) -> io::Result<()> {
    let own = directory(root, uid);
    fs::create_dir_all(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o750))?;
    fs::create_dir_all(log_directory(logs, pod))
}

/// Writes the pod's names of hosts. Written in place: containers have the file mounted.
pub(super) fn write_hosts(root: &Path, uid: &str, text: &str) -> io::Result<PathBuf> {
    let path = directory(root, uid).join("etc-hosts");
    if fs::read_to_string(&path).ok().as_deref() != Some(text) {
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(path)
}

/// Makes the file for a container's last words, which anybody in it may write.
pub(super) fn message_file(root: &Path, uid: &str, container: &str, number: u64) -> io::Result<PathBuf> {
    let own = directory(root, uid).join("containers").join(container);
    fs::create_dir_all(&own)?;
    let path = own.join(format!("{:08x}", number & 0xffff_ffff));
    fs::File::create(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

/// Makes the directory of a container's logs, and says how many there were, from the files that are left.
pub(super) fn log_attempts(logs: &Path, pod: &Pod, container: &str) -> io::Result<u32> {
    let own = log_directory(logs, pod).join(container);
    fs::create_dir_all(&own)?;
    let mut next = 0;
    for entry in fs::read_dir(own)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split_once(".log")?.0.parse::<u32>().ok());
        next = next.max(number.map_or(0, |number| number.saturating_add(1)));
    }
    Ok(next)
}

/// Links a log among those of all containers; an old link of that name goes.
pub(super) fn link_log(links: &Path, logs: &Path, pod: &Pod, container: &str, id: &str, log: &str) -> io::Result<()> {
    fs::create_dir_all(links)?;
    let link = links.join(log_link(pod, container, id));
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(log_directory(logs, pod).join(log), link)
}

/// Removes a pod's logs, links to them, and its small files. Its volumes have to be gone: nothing mounted is touched.
pub(super) fn remove(root: &Path, logs: &Path, links: &Path, pod: &Pod, uid: &str) -> io::Result<()> {
    let own_logs = log_directory(logs, pod);
    for entry in fs::read_dir(links).into_iter().flatten().flatten() {
        let is_own = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&own_logs));
        if is_own {
            fs::remove_file(entry.path())?;
        }
    }
    ignore_missing(fs::remove_dir_all(own_logs))?;
    let own = directory(root, uid);
    ignore_missing(fs::remove_file(own.join("etc-hosts")))?;
    ignore_missing(fs::remove_file(super::record::path(root, uid)))?;
    ignore_missing(fs::remove_dir_all(own.join("containers")))?;
    // Only if nothing is left in it.
    match fs::remove_dir(&own) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Err(error),
        _ => Ok(()),
    }
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn files_come_and_go() {
        let place = tempfile::tempdir().unwrap();
        let (root, logs, links) = (place.path().join("k"), place.path().join("l"), place.path().join("c"));
        let pod = pod("{metadata: {name: p, namespace: 'n', uid: u}, spec: {containers: []}}");
        prepare(&root, &logs, &pod, "u").unwrap();
        assert_eq!(log_attempts(&logs, &pod, "c").unwrap(), 0);
        fs::write(log_directory(&logs, &pod).join("c/2.log"), "").unwrap();
        fs::write(log_directory(&logs, &pod).join("c/1.log.2026"), "").unwrap();
        assert_eq!(log_attempts(&logs, &pod, "c").unwrap(), 3);
        link_log(&links, &logs, &pod, "c", "id", "c/2.log").unwrap();
        link_log(&links, &logs, &pod, "c", "id", "c/2.log").unwrap();
        assert!(links.join("p_n_c-id.log").exists());
        let hosts = write_hosts(&root, "u", "text").unwrap();
        assert_eq!(fs::read_to_string(hosts).unwrap(), "text");
        let message = message_file(&root, "u", "c", 7).unwrap();
        assert_eq!(fs::metadata(message).unwrap().permissions().mode() & 0o777, 0o666);
        remove(&root, &logs, &links, &pod, "u").unwrap();
        remove(&root, &logs, &links, &pod, "u").unwrap();
        assert!(!directory(&root, "u").exists() && !log_directory(&logs, &pod).exists());
        assert_eq!(fs::read_dir(links).unwrap().count(), 0);
    }
}
