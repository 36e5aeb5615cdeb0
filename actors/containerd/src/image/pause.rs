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
