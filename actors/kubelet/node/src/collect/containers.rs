//! Which containers, sandboxes and logs are left over: pure.

use std::collections::{BTreeMap, BTreeSet};

/// A container that doesn't run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its id.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// Its pod.
    pub pod: String,
    /// Its name in the pod.
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
    /// Whether it has ended; one that was only made may be about to start.
    pub has_ended: bool,
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// Its pod.
    pub pod: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
    /// Whether it runs.
    pub is_ready: bool,
}

/// What has to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Containers, oldest first.
    pub containers: Vec<String>,
    /// Sandboxes, oldest first.
    pub sandboxes: Vec<String>,
}

/// Pods of which nothing may be left: not known any more. Something that is younger than `since` may belong to a pod that
/// isn't known yet, so it stays.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Pods that this node has something of.
    pub pods: BTreeSet<String>,
    /// Whether all that should be known is.
    pub is_complete: bool,
    /// Nanoseconds since 1970.
    pub since: i64,
}

impl Known {
    fn is_gone(&self, pod: &str, created: i64) -> bool {
        self.is_complete && !self.pods.contains(pod) && created < self.since
    }
}

/// Keeps of each container of a pod the newest `per_container` that have ended, and of each pod the newest sandbox.
/// `living` are the sandboxes that have containers that don't stand in `dead`.
#[must_use]
pub fn leftovers(
    dead: &[Dead],
    sandboxes: &[Sandbox],
    living: &BTreeSet<String>,
    known: &Known,
    per_container: usize,
) -> Leftovers {
    let mut by_name: BTreeMap<(&str, &str), Vec<&Dead>> = BTreeMap::new();
    for container in dead {
        by_name.entry((&container.pod, &container.name)).or_default().push(container);
    }
    let mut removed: Vec<&Dead> = Vec::new();
    for all in by_name.values_mut() {
        all.sort_by_key(|container| std::cmp::Reverse((container.created, &container.id)));
        let mut kept = 0;
        for container in all {
            let is_gone = known.is_gone(&container.pod, container.created);
            if !is_gone && (!container.has_ended || kept < per_container) {
                kept += usize::from(container.has_ended);
            } else {
                removed.push(container);
            }
        }
    }
    removed.sort_by_key(|container| (container.created, &container.id));
    let containers: Vec<String> = removed.iter().map(|container| container.id.clone()).collect();

    let going: BTreeSet<&str> = containers.iter().map(String::as_str).collect();
    let stays = dead.iter().filter(|container| !going.contains(container.id.as_str()));
    let occupied: BTreeSet<&str> = stays.map(|container| container.sandbox.as_str()).collect();
    let mut newest: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
    for sandbox in sandboxes {
        let entry = newest.entry(&sandbox.pod).or_insert((sandbox.created, &sandbox.id));
        *entry = (*entry).max((sandbox.created, &sandbox.id));
    }
    let is_leftover = |sandbox: &&Sandbox| {
        let is_empty = !living.contains(&sandbox.id) && !occupied.contains(sandbox.id.as_str());
        let is_newest = newest.get(sandbox.pod.as_str()).is_some_and(|(_, id)| *id == sandbox.id);
        !sandbox.is_ready && is_empty && (!is_newest || known.is_gone(&sandbox.pod, sandbox.created))
    };
    let mut empty: Vec<&Sandbox> = sandboxes.iter().filter(is_leftover).collect();
    empty.sort_by_key(|sandbox| (sandbox.created, &sandbox.id));
    Leftovers { containers, sandboxes: empty.into_iter().map(|sandbox| sandbox.id.clone()).collect() }
}

/// Directories of logs, `<namespace>_<name>_<uid>`, of pods that are gone and have no container any more.
#[must_use]
pub fn leftover_logs<'a>(
    directories: impl IntoIterator<Item = &'a str>,
    known: &Known,
    with_containers: &BTreeSet<String>,
) -> Vec<&'a str> {
    if !known.is_complete {
        return Vec::new();
    }
    let is_leftover = |name: &&str| {
        let mut parts = name.split('_');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(_), Some(uid), None) if !uid.is_empty() => {
                !known.pods.contains(uid) && !with_containers.contains(uid)
            }
            _ => false, // Somebody else's.
        }
    };
    directories.into_iter().filter(is_leftover).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(id: &str, pod: &str, name: &str, created: i64) -> Dead {
        Dead {
            id: id.to_owned(),
            sandbox: format!("{pod}-sandbox"),
            pod: pod.to_owned(),
            name: name.to_owned(),
            created,
            has_ended: true,
        }
    }

    fn sandbox(id: &str, pod: &str, created: i64) -> Sandbox {
        Sandbox { id: id.to_owned(), pod: pod.to_owned(), created, is_ready: false }
    }

    fn known(pods: &[&str]) -> Known {
        Known { pods: pods.iter().map(|pod| (*pod).to_owned()).collect(), is_complete: true, since: 100 }
    }

    #[test]
    fn of_each_container_the_newest_stays() {
        let all = [dead("a1", "p", "a", 1), dead("a3", "p", "a", 3), dead("a2", "p", "a", 2), dead("b1", "p", "b", 1)];
        let found = leftovers(&all, &[], &BTreeSet::new(), &known(&["p"]), 1);
        assert_eq!(found.containers, ["a1", "a2"]);
        let found = leftovers(&all, &[], &BTreeSet::new(), &known(&["p"]), 2);
        assert_eq!(found.containers, ["a1"]);
    }

    #[test]
    fn one_that_was_only_made_stays_with_its_pod() {
        let made = Dead { has_ended: false, ..dead("a1", "p", "a", 1) };
        let all = [made, dead("a0", "p", "a", 0)];
        assert!(leftovers(&all, &[], &BTreeSet::new(), &known(&["p"]), 1).containers.is_empty());
        assert_eq!(leftovers(&all, &[], &BTreeSet::new(), &known(&[]), 1).containers, ["a0", "a1"]);
    }

    #[test]
    fn of_a_pod_that_is_gone_nothing_stays() {
        let all = [dead("a1", "p", "a", 1), dead("new", "q", "a", 100)];
        let sandboxes = [sandbox("p-sandbox", "p", 1), sandbox("q-sandbox", "q", 100)];
        let found = leftovers(&all, &sandboxes, &BTreeSet::new(), &known(&[]), 1);
        assert_eq!((found.containers, found.sandboxes), (vec!["a1".to_owned()], vec!["p-sandbox".to_owned()]));
        let unsure = Known { is_complete: false, ..known(&[]) };
        assert_eq!(leftovers(&all, &sandboxes, &BTreeSet::new(), &unsure, 1), Leftovers::default());
    }

    #[test]
    fn sandboxes_go_when_they_are_empty_and_not_the_newest() {
        let living = BTreeSet::from(["with".to_owned()]);
        let ready = Sandbox { is_ready: true, ..sandbox("ready", "p", 0) };
        let occupied = Sandbox { id: "p-sandbox".to_owned(), ..sandbox("", "p", 3) };
        let all = [ready, sandbox("old", "p", 1), sandbox("with", "p", 2), occupied, sandbox("newest", "p", 4)];
        let found = leftovers(&[dead("a", "p", "a", 1)], &all, &living, &known(&["p"]), 1);
        assert_eq!(found.sandboxes, ["old"]);
    }

    #[test]
    fn logs_go_with_their_pod() {
        let all = ["ns_a_gone", "ns_b_here", "ns_c_dying", "mine", "a_b_c_d", "a_b_"];
        let with = BTreeSet::from(["dying".to_owned()]);
        assert_eq!(leftover_logs(all, &known(&["here"]), &with), ["ns_a_gone"]);
        let unsure = Known { is_complete: false, ..known(&[]) };
        assert!(leftover_logs(all, &unsure, &with).is_empty());
    }
}
