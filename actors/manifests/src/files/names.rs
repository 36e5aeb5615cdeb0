//! Which files are manifests, and what their AddOns are called: pure.

use std::collections::BTreeSet;
use std::path::Path;

/// The endings of manifests, whatever their case.
const ENDINGS: [&str; 3] = [".yaml", ".yml", ".json"];
/// Ends the name of a file that says that another is to be left alone.
const SKIP: &str = ".skip";

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether a file of this name is a manifest.
pub(crate) fn is_manifest(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !name.starts_with('.') && ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

/// The name of the AddOn: that of the file up to its first dot.
pub(crate) fn stem(path: &str) -> &str {
    let name = file_name(path);
    name.split('.').next().unwrap_or(name)
}

/// The names of files that other files say are to be left alone.
pub(crate) fn skipped<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    names.filter_map(|name| name.strip_suffix(SKIP)).map(str::to_owned).collect()
}

/// Whether a path, relative to the directory of manifests, is among these: by its name without the last ending, or
/// because a directory above it is.
pub(crate) fn is_listed(relative: &str, listed: &BTreeSet<String>) -> bool {
    if listed.is_empty() {
        return false;
    }
    let path = Path::new(relative);
    let above = path.ancestors().skip(1).filter_map(Path::to_str);
    let is_above = above.filter(|above| !above.is_empty()).any(|above| listed.contains(above));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_named = is_manifest(name) && name.rsplit_once('.').is_some_and(|(stem, _)| listed.contains(stem));
    is_above || is_named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_told_by_their_names() {
        for (name, is) in [
            ("a.yaml", true),
            ("a.YML", true),
            ("a.Json", true),
            ("a.tar.yaml", true),
            (".a.yaml", false),
            (".yaml", false),
            ("a.yaml.skip", false),
            ("a.yaml~", false),
            ("yaml", false),
            ("a.txt", false),
        ] {
            assert_eq!(is_manifest(name), is, "{name}");
        }
        for (path, name) in [("/d/coredns.yaml", "coredns"), ("/d/s/a.b.c.yaml", "a"), ("/d.d/a", "a")] {
            assert_eq!(stem(path), name);
        }
        assert_eq!(skipped(["a.yaml.skip", "b.yaml", "c"].into_iter()), BTreeSet::from(["a.yaml".to_owned()]));
    }

    #[test]
    fn files_and_directories_are_disabled_by_name() {
        let listed =
            BTreeSet::from(["coredns".to_owned(), "metrics-server".to_owned(), "a.b".to_owned(), "x/y".to_owned()]);
        for (path, is) in [
            ("coredns.yaml", true),
            ("coredns.JSON", true),
            ("sub/coredns.yml", true),
            ("coredns.txt", false),
            ("coredns2.yaml", false),
            ("metrics-server/a.yaml", true),
            ("metrics-server/deep/a.yaml", true),
            ("sub/metrics-server/a.yaml", false),
            ("a.b.yaml", true),
            ("a.yaml", false),
            ("x/y/z.yaml", true),
            ("x/z.yaml", false),
        ] {
            assert_eq!(is_listed(path, &listed), is, "{path}");
        }
        assert!(!is_listed("coredns.yaml", &BTreeSet::new()));
    }
}
