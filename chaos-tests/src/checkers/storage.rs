//! Volumes in directories of the node, and the claims that they are bound to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::settled::{is_final, text};
use crate::simulation::machine::Place;

/// A file that is put into each volume, so that it is seen whether what is in it stays.
const MARK: &str = "mark";

/// All that is looked at when nothing moves.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// PersistentVolumeClaims.
    pub claims: Vec<Value>,
    /// PersistentVolumes.
    pub volumes: Vec<Value>,
    /// The names of directories where volumes are.
    pub directories: BTreeSet<String>,
    /// The volumes that are mounted in pods, each with the name of its directory; `None` where nobody may mount any.
    pub mounted: Option<BTreeMap<Place, String>>,
}

/// Where a volume is on the node.
fn path(volume: &Value) -> &str {
    let paths = ["/spec/local/path", "/spec/hostPath/path"].map(|place| text(volume, place));
    paths.into_iter().find(|path| !path.is_empty()).unwrap_or_default()
}

/// The name of a volume's directory.
fn directory(volume: &Value) -> &str {
    path(volume).rsplit('/').next().unwrap_or_default()
}

/// What is not at rest yet, or not as it should be: each of these pods has its claims bound, their volumes in
/// directories and mounted, and nothing is left of others.
#[must_use]
pub fn check(pods: &[Value], store: &Store) -> Vec<String> {
    let mut findings = Vec::new();
    let volumes: BTreeMap<&str, &Value> = store.volumes.iter().map(|one| (text(one, "/metadata/name"), one)).collect();
    let mut wanted = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_final(pod)) {
        let all = pod["spec"]["volumes"].as_array().into_iter().flatten();
        for name in all.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str()) {
            let found = store.claims.iter().find(|claim| text(claim, "/metadata/name") == name);
            match found.map_or_else(|| Err("is not there".to_owned()), |claim| volume_of(claim, &volumes)) {
                Ok(volume) => {
                    let place = (text(pod, "/metadata/uid").to_owned(), text(volume, "/metadata/name").to_owned());
                    wanted.insert(place, directory(volume).to_owned());
                }
                Err(why) => findings.push(format!("claim {name} of pod {} {why}", text(pod, "/metadata/name"))),
            }
        }
    }
    if let Some(mounted) = store.mounted.as_ref().filter(|mounted| **mounted != wanted) {
        findings.push(format!("volumes are mounted as {mounted:?} instead of {wanted:?}"));
    }
    let uids: BTreeSet<&str> = store.claims.iter().map(|claim| text(claim, "/metadata/uid")).collect();
    let is_left = |volume: &&&Value| !uids.contains(text(volume, "/spec/claimRef/uid"));
    let left = volumes.values().filter(is_left);
    findings.extend(left.map(|one| format!("volume {} is there, and its claim isn't", text(one, "/metadata/name"))));
    let known: BTreeSet<&str> = volumes.values().map(|one| directory(one)).collect();
    let lost = known.iter().filter(|name| !store.directories.contains(**name));
    findings.extend(lost.map(|name| format!("a volume has no directory: {name:?}")));
    let left = store.directories.iter().filter(|name| !known.contains(name.as_str()));
    findings.extend(left.map(|name| format!("directory {name} is there, and its volume isn't")));
    findings
}

/// The volume of a claim, if each is bound to the other.
fn volume_of<'v>(claim: &Value, volumes: &BTreeMap<&str, &'v Value>) -> Result<&'v Value, String> {
    let (phase, name) = (text(claim, "/status/phase"), text(claim, "/spec/volumeName"));
    if phase != "Bound" {
        return Err(format!("is {phase:?} and not bound"));
    }
    let volume = volumes.get(name).ok_or_else(|| format!("is bound to volume {name:?}, which isn't there"))?;
    if text(volume, "/spec/claimRef/uid") != text(claim, "/metadata/uid") {
        return Err(format!("is bound to volume {name}, which is another one's"));
    }
    Ok(volume)
}

/// What a claim was bound to.
#[derive(Debug)]
struct Bond {
    volume: String,
    directory: PathBuf,
}

/// Follows claims while things go wrong: what is bound stays so, and whatever is in a volume is there as long as its
/// claim.
#[derive(Debug, Default)]
pub struct Bonds {
    /// By the uid of the claim.
    known: BTreeMap<String, Bond>,
    findings: BTreeSet<String>,
}

impl Bonds {
    /// The claims whose volumes have lost what was in them. To be asked before the claims are listed that are then
    /// taken in: whose claim is still there then has lost it too early.
    #[must_use]
    pub fn emptied(&self) -> BTreeSet<String> {
        let has_mark = |uid: &str, at: &Path| fs::read_to_string(at.join(MARK)).is_ok_and(|mark| mark == uid);
        let lost = self.known.iter().filter(|(uid, bond)| !has_mark(uid, &bond.directory));
        lost.map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes in what is there now, and marks volumes that were not known before.
    pub fn take(&mut self, emptied: &BTreeSet<String>, claims: &[Value], volumes: &[Value]) {
        for claim in claims {
            let (uid, phase) = (text(claim, "/metadata/uid"), text(claim, "/status/phase"));
            let (name, volume) = (text(claim, "/metadata/name"), text(claim, "/spec/volumeName"));
            if let Some(bond) = self.known.get(uid) {
                if phase != "Bound" || volume != bond.volume {
                    let now = format!("{phase} to {volume:?}");
                    self.findings.insert(format!("claim {name} ({uid}) was bound to {}, and is {now}", bond.volume));
                }
                if emptied.contains(uid) {
                    let gone = format!("what was in volume {} is gone, and claim {name} ({uid}) isn't", bond.volume);
                    self.findings.insert(gone);
                }
                continue;
            }
            let own = volumes.iter().find(|one| text(one, "/metadata/name") == volume && phase == "Bound");
            let Some(own) = own else { continue };
            let directory = PathBuf::from(path(own));
            // Who deletes a claim has its volume go at any time.
            if fs::write(directory.join(MARK), uid).is_ok() {
                self.known.insert(uid.to_owned(), Bond { volume: volume.to_owned(), directory });
            }
        }
    }

    /// How many claims were bound.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// What was wrong.
    #[must_use]
    pub fn findings(self) -> Vec<String> {
        self.findings.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(uid: &str, volume: &str, phase: &str) -> Value {
        json!({"metadata": {"name": "c", "uid": uid}, "spec": {"volumeName": volume}, "status": {"phase": phase}})
    }

    fn volume(name: &str, claim: &str, path: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"claimRef": {"uid": claim}, "local": {"path": path}}})
    }

    fn store() -> Store {
        Store {
            claims: vec![claim("cu", "v", "Bound")],
            volumes: vec![volume("v", "cu", "/s/v_n_c")],
            directories: ["v_n_c".to_owned()].into(),
            mounted: Some([(("u".to_owned(), "v".to_owned()), "v_n_c".to_owned())].into()),
        }
    }

    type Spoil = fn(&mut Store);

    #[test]
    fn volumes_that_are_missing_or_left_over_are_found() {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"volumes": [
            {"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}]}});
        assert_eq!(check(std::slice::from_ref(&pod), &store()), Vec::<String>::new());
        let spoilt: [(&str, Spoil); 9] = [
            ("claim c of pod p is not there", |store| store.claims.clear()),
            ("is \"Pending\" and not bound", |store| store.claims[0]["status"]["phase"] = "Pending".into()),
            ("which isn't there", |store| store.volumes.clear()),
            ("which is another one's", |store| store.claims[0]["metadata"]["uid"] = "x".into()),
            ("volume v is there, and its claim isn't", |store| store.claims.clear()),
            ("a volume has no directory: \"v_n_c\"", |store| store.directories.clear()),
            ("directory x is there", |store| {
                store.directories.insert("x".to_owned());
            }),
            ("are mounted as {}", |store| store.mounted = Some(BTreeMap::new())),
            ("//deleted", |store| {
                store.mounted.iter_mut().flat_map(BTreeMap::values_mut).for_each(|from| from.push_str("//deleted"));
            }),
        ];
        for (what, spoil) in spoilt {
            let mut store = store();
            spoil(&mut store);
            let findings = check(std::slice::from_ref(&pod), &store);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        }
        let without = Store { mounted: None, ..store() };
        assert_eq!(check(std::slice::from_ref(&pod), &without), Vec::<String>::new());
    }

    #[test]
    fn a_bond_that_changes_and_a_volume_that_loses_its_files_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("v");
        fs::create_dir(&path).unwrap();
        let volumes = [volume("v", "cu", path.to_str().unwrap())];
        let found = |emptied: bool, claims: &[Value]| {
            let mut bonds = Bonds::default();
            bonds.take(&BTreeSet::new(), &[claim("cu", "", "Pending"), claim("cu", "v", "Bound")], &volumes);
            assert_eq!((bonds.count(), bonds.emptied().len()), (1, 0));
            if emptied {
                fs::remove_file(path.join(MARK)).unwrap();
            }
            let emptied = bonds.emptied();
            bonds.take(&emptied, claims, &volumes);
            bonds.findings()
        };
        assert_eq!(found(false, &[claim("cu", "v", "Bound")]), [""; 0]);
        assert_eq!(found(false, &[claim("new", "", "Pending")]), [""; 0]);
        assert_eq!(found(true, &[]), [""; 0]);
        assert_eq!(found(false, &[claim("cu", "w", "Bound")]), ["claim c (cu) was bound to v, and is Bound to \"w\""]);
        assert_eq!(found(false, &[claim("cu", "v", "Lost")]), ["claim c (cu) was bound to v, and is Lost to \"v\""]);
        assert_eq!(found(true, &[claim("cu", "v", "Bound")]), ["what was in volume v is gone, and claim c (cu) isn't"]);
    }
}
