//! Names of images.

/// The full form of a name: `busybox` is `docker.io/library/busybox:latest`.
pub(crate) fn normalize(name: &str) -> String {
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let library = if registry == "docker.io" && !rest.contains('/') { "library/" } else { "" };
    let suffix = if rest.contains('@') || has_tag(rest) { "" } else { ":latest" };
    format!("{registry}/{library}{rest}{suffix}")
}

fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// A full name without tag and digest: registry and repository.
pub(crate) fn locator(name: &str) -> (&str, &str) {
    let name = name.split('@').next().unwrap_or(name);
    let name = if has_tag(name) { name.rsplit_once(':').map_or(name, |(name, _)| name) } else { name };
    name.split_once('/').unwrap_or(("", name))
}

/// A full name, in another registry.
pub(crate) fn rehost(name: &str, registry: &str) -> String {
    let rest = name.split_once('/').map_or(name, |(_, rest)| rest);
    format!("{registry}/{rest}")
}

/// Whether it can be the name of an image: a registry, a repository, and a tag or a digest.
pub(crate) fn is_full(name: &str) -> bool {
    let (registry, repository) = locator(name);
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:@/[]".contains(&b));
    name.len() <= 512 && is_plain(name) && !registry.is_empty() && !repository.is_empty()
}

/// The other names that a preloaded image gets: by digest, and in the registries that stand in for its own.
pub(crate) fn aliases(name: &str, digest: &str, registries: &[String]) -> Vec<String> {
    let (own, repository) = locator(name);
    let mut all = Vec::new();
    let by_digest = format!("{own}/{repository}@{digest}");
    if !name.contains('@') {
        all.push(by_digest);
    }
    for registry in registries.iter().filter(|registry| !registry.is_empty() && *registry != own) {
        if !name.contains('@') {
            all.push(rehost(name, registry));
        }
        all.push(format!("{registry}/{repository}@{digest}"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("rancher/pause:3.6", "docker.io/rancher/pause:3.6"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("r.example:5000/a/b@sha256:00", "r.example:5000/a/b@sha256:00"),
            ("r:5000/a", "r:5000/a:latest"),
        ];
        for (short, full) in cases {
            assert_eq!(normalize(short), full);
            assert_eq!(normalize(full), full);
            assert!(is_full(full), "{full}");
        }
        assert!(!is_full("a") && !is_full("docker.io/a b:1") && !is_full(""));
    }

    #[test]
    fn a_preloaded_image_is_found_under_every_name() {
        let registries = ["r.example".to_owned(), "docker.io".to_owned()];
        let names = aliases("docker.io/a/b:1", "sha256:x", &registries);
        assert_eq!(names, ["docker.io/a/b@sha256:x", "r.example/a/b:1", "r.example/a/b@sha256:x"]);
        assert_eq!(locator("r:5000/a/b:1@sha256:x"), ("r:5000", "a/b"));
    }
}
