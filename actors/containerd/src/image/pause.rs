//! The image of the sandbox, which needs no registry.

use super::builder::{BuiltImage, ImageBuilder};

/// The program: `fixtures/pause/pause.rs`, built with this crate.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The names under which it is known: the present default of K3s, and an older one that is found in many manifests.
pub const PAUSE_NAMES: [&str; 2] = [crate::config::PAUSE_IMAGE, "docker.io/rancher/mirrored-pause:3.6"];

/// The repository whose every tag is ours to provide.
const REPOSITORY: &str = "rancher/mirrored-pause";

/// The image, of a few KiB.
pub fn pause() -> BuiltImage {
    ImageBuilder::new(PAUSE_NAMES[0]).file("pause", 0o755, PROGRAM).entrypoint(["/pause"]).user("65535:65535").build()
}

/// All names under which it is to be there, given the sandbox image that is configured. One of another repository is the
/// user's, and is pulled.
pub(crate) fn names(sandbox_image: &str) -> Vec<String> {
    let mut names: Vec<String> = PAUSE_NAMES.iter().map(|name| (*name).to_owned()).collect();
    let ours = super::reference::locator(sandbox_image).1.ends_with(REPOSITORY) && !sandbox_image.contains('@');
    if ours && !names.iter().any(|name| name == sandbox_image) {
        names.push(sandbox_image.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test waits for another process")]
    fn it_waits_until_it_is_told_to_end_and_then_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pause");
        fs::write(&file, PROGRAM).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        for signal in ["-TERM", "-INT"] {
            let mut child = Command::new(&file).spawn().unwrap();
            let pid = child.id();
            // The only thing that it ever sleeps in is the wait for a signal.
            let is_asleep = || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| s.contains("State:\tS"));
            for _ in 0..500 {
                if is_asleep() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            assert!(is_asleep(), "it doesn't wait");
            Command::new("kill").args(["-CHLD", &pid.to_string()]).status().unwrap();
            assert!(child.try_wait().unwrap().is_none(), "a dead child is no reason to end");
            Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        }
    }

    #[test]
    fn it_is_small_and_always_the_same() {
        assert!(PROGRAM.len() < 16 << 10, "{} bytes", PROGRAM.len());
        assert_eq!(pause().digest(), pause().digest());
    }

    #[test]
    fn any_tag_of_the_default_is_ours_and_nothing_else() {
        assert_eq!(names("r.example/rancher/mirrored-pause:9").len(), 3);
        assert_eq!(names("registry.k8s.io/pause:3.9").len(), 2);
        assert_eq!(names(PAUSE_NAMES[1]).len(), 2);
    }
}
