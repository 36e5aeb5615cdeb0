//! The shape of a tree: who has a place in it, and whether each is there.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_runtime::SupervisorRef;
use k3sd_runtime::machine::Seen;

use crate::cluster::Cluster;

/// What a supervisor is asked for.
const LIMIT: Duration = Duration::from_secs(5);

/// Everybody below the root, by path. Who is below a supervisor that is between two lives can't be seen.
pub type Shape = BTreeMap<String, Seen>;

/// Looks.
pub async fn look(cluster: &Cluster) -> Shape {
    let mut shape = Shape::new();
    let mut open: Vec<(String, SupervisorRef)> = vec![(String::new(), cluster.tree.root())];
    while let Some((path, supervisor)) = open.pop() {
        for child in supervisor.list(LIMIT).await.unwrap_or_default() {
            let path = if path.is_empty() { child.name } else { format!("{path}/{}", child.name) };
            if let Ok(below) = cluster.system().supervisor(&path) {
                open.push((path.clone(), below));
            }
            shape.insert(path, child.seen);
        }
    }
    shape
}

/// What is wrong with a tree, of which `alive` incarnations exist, the root included. Whose places are below one of
/// `dynamic` come and go, so that only their number is compared, with the one that stands beside it.
#[must_use]
pub fn check(wanted: &Shape, found: &Shape, alive: usize, dynamic: &[(&str, usize)]) -> Vec<String> {
    let above = |path: &str| dynamic.iter().find(|(above, _)| path.starts_with(above));
    let fixed = |shape: &Shape| -> Vec<String> { shape.keys().filter(|path| above(path).is_none()).cloned().collect() };
    let (before, after) = (fixed(wanted), fixed(found));
    let mut findings: Vec<String> =
        before.iter().filter(|path| !found.contains_key(*path)).map(|path| format!("{path} is missing")).collect();
    findings.extend(after.iter().filter(|path| !wanted.contains_key(*path)).map(|path| format!("{path} is new")));
    for (prefix, wanted) in dynamic {
        let count = found.keys().filter(|path| path.starts_with(prefix)).count();
        if count != *wanted {
            findings.push(format!("below {prefix} there are {count} instead of {wanted}"));
        }
    }
    let down = found.iter().filter(|(_, seen)| **seen != Seen::Running);
    findings.extend(down.map(|(path, seen)| format!("{path} is {}", seen.word())));
    if alive != found.len() + 1 {
        findings.push(format!("{alive} incarnations are alive, and {} have a place", found.len() + 1));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(paths: &[&str]) -> Shape {
        paths.iter().map(|path| ((*path).to_owned(), Seen::Running)).collect()
    }

    #[test]
    fn who_is_missing_new_or_down_is_found() {
        let wanted = shape(&["a", "a/b", "pods/1", "pods/2"]);
        let check = |found: &Shape, alive| check(&wanted, found, alive, &[("pods/", 2)]);
        assert_eq!(check(&shape(&["a", "a/b", "pods/3", "pods/4"]), 5), Vec::<String>::new());
        assert_eq!(check(&shape(&["a", "pods/3", "pods/4"]), 4), ["a/b is missing"]);
        assert_eq!(check(&shape(&["a", "a/b", "c", "pods/3", "pods/4"]), 6), ["c is new"]);
        assert_eq!(check(&shape(&["a", "a/b", "pods/3"]), 4), ["below pods/ there are 1 instead of 2"]);
        let mut found = wanted.clone();
        found.insert("a/b".to_owned(), Seen::Backoff);
        assert_eq!(check(&found, 6), ["a/b is backoff", "6 incarnations are alive, and 5 have a place"]);
    }
}
