//! The pods that a Job makes.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use super::core::{Look, NewPod};
use super::pods::{FAILURES, FINALIZER, IGNORED_FAILURES, INDEX};

/// Longest part of a pod's name before its last letters, and how many these are.
const PREFIX_MAX: usize = 58;
const LETTERS: usize = 5;

/// Names a Job as controller.
pub(super) fn reference(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: job.name_any(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What the names of a Job's pods begin with, as it stands in their `generateName`: whoever takes names from that cuts it
/// off, but an index stays.
fn prefix(job: &Job, index: Option<u32>) -> String {
    let mut prefix = job.name_any();
    match index {
        None => prefix.push('-'),
        Some(index) => {
            let end = format!("-{index}-");
            prefix.truncate(PREFIX_MAX - end.len());
            prefix += &end;
        }
    }
    prefix
}

/// Names of pods to be made. They follow from the Job and from what is there, so that whoever begins anew after a kill
/// runs into what was made before instead of making it twice.
pub(super) struct Names {
    taken: HashSet<String>,
    next: HashMap<Option<u32>, u64>,
    begin: u64,
}

impl Names {
    pub(super) fn of(job: &Job, look: &Look) -> Self {
        let status = job.status.as_ref();
        let ended = status.map_or(0, |status| status.succeeded.unwrap_or(0).max(0) + status.failed.unwrap_or(0).max(0));
        let taken = look.pods.iter().map(|pod| pod.name_any()).collect();
        Self { taken, next: HashMap::new(), begin: u64::from(ended.unsigned_abs()) }
    }

    fn name(&mut self, job: &Job, index: Option<u32>) -> String {
        let mut prefix = prefix(job, index);
        prefix.truncate(PREFIX_MAX);
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let next = self.next.entry(index).or_insert(self.begin);
        loop {
            let name = format!("{prefix}{}", letters(uid, index, *next));
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// A pod as the template says.
    pub(super) fn pod(&mut self, job: &Job, wanted: &NewPod) -> Pod {
        let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let meta = template.metadata.unwrap_or_default();
        let mut spec = template.spec.unwrap_or_default();
        let (mut labels, mut annotations) = (meta.labels.unwrap_or_default(), meta.annotations.unwrap_or_default());
        let mut finalizers = meta.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        if let Some(index) = wanted.index {
            annotations.insert(INDEX.to_owned(), index.to_string());
            labels.insert(INDEX.to_owned(), index.to_string());
            spec.hostname = Some(format!("{}-{index}", job.name_any()));
            let init = spec.init_containers.iter_mut().flatten();
            for container in spec.containers.iter_mut().chain(init) {
                let env = container.env.get_or_insert_default();
                if env.iter().all(|variable| variable.name != "JOB_COMPLETION_INDEX") {
                    env.push(index_variable());
                }
            }
        }
        if let Some((failures, ignored)) = wanted.failures {
            annotations.insert(FAILURES.to_owned(), failures.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
            }
        }
        let metadata = ObjectMeta {
            name: Some(self.name(job, wanted.index)),
            generate_name: Some(prefix(job, wanted.index)),
            namespace: job.namespace(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            finalizers: Some(finalizers),
            owner_references: Some(vec![reference(job)]),
            ..ObjectMeta::default()
        };
        Pod { metadata, spec: Some(spec), status: None }
    }
}

fn index_variable() -> EnvVar {
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
    let value_from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: "JOB_COMPLETION_INDEX".to_owned(), value_from: Some(value_from), ..EnvVar::default() }
}

/// Five letters that follow from a Job, an index and a number; of those that make no words.
fn letters(uid: &str, index: Option<u32>, number: u64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a: the same on every machine.
    let text = format!("{uid} {} {number}", index.map_or(String::new(), |index| index.to_string()));
    let mut hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The lowest bits of the last steps are mixed least.
    hash ^= hash >> 32;
    (0..LETTERS)
        .map(|_| {
            let letter = ALPHABET[usize::try_from(hash % ALPHABET.len() as u64).unwrap_or(0)];
            hash /= ALPHABET.len() as u64;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::job::core::look;

    fn job(name: &str) -> Job {
        let containers =
            json!([{"name": "main"}, {"name": "own", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "x"}]}]);
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "n", "uid": "u"}, "spec": {"template": template}}),
        )
        .expect("a Job")
    }

    #[test]
    fn who_begins_anew_makes_the_same_names() {
        let names = |job: &Job| -> Vec<String> {
            let look = look(job, Vec::new(), Timestamp::UNIX_EPOCH);
            let mut names = Names::of(job, &look);
            let new = NewPod { index: None, failures: None };
            (0..2000).map(|_| names.pod(job, &new).name_any()).collect()
        };
        let (first, again) = (names(&job("j")), names(&job("j")));
        assert_eq!(first, again);
        let all: HashSet<&String> = first.iter().collect();
        assert_eq!(all.len(), first.len(), "no name is there twice");
        assert!(first.iter().all(|name| name.starts_with("j-") && name.len() == 7));
        let long = names(&job(&"x".repeat(63)));
        assert!(long.iter().all(|name| name.len() == 63));
        for (name, index, expected) in [
            ("j".to_owned(), None, "j-".to_owned()),
            ("x".repeat(63), None, format!("{}-", "x".repeat(63))),
            ("x".repeat(63), Some(12), format!("{}-12-", "x".repeat(54))),
        ] {
            assert_eq!(prefix(&job(&name), index), expected);
        }
    }

    #[test]
    fn a_pod_of_an_index_knows_it() {
        let job = job("j");
        let mut names = Names::of(&job, &look(&job, Vec::new(), Timestamp::UNIX_EPOCH));
        let pod = names.pod(&job, &NewPod { index: Some(7), failures: Some((2, 1)) });
        assert!(pod.name_any().starts_with("j-7-"));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-7-"));
        assert_eq!((pod.labels()[INDEX].as_str(), pod.labels()["a"].as_str()), ("7", "b"));
        let annotations = pod.annotations();
        assert_eq!([INDEX, FAILURES, IGNORED_FAILURES].map(|key| annotations[key].as_str()), ["7", "2", "1"]);
        assert_eq!(pod.finalizers(), [FINALIZER]);
        let spec = pod.spec.expect("set");
        assert_eq!(spec.hostname.as_deref(), Some("j-7"));
        let path = |place: usize| {
            let env = spec.containers[place].env.as_ref()?.first()?;
            env.value_from.as_ref()?.field_ref.as_ref().map(|field| field.field_path.as_str())
        };
        let expected = "metadata.labels['batch.kubernetes.io/job-completion-index']";
        assert_eq!((path(0), path(1)), (Some(expected), None), "what the template says stays");
    }
}
