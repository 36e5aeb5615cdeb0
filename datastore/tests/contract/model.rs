//! Random operations against a model so simple that it can be seen to be right: a list of everything that happened.

use std::collections::BTreeMap;

use k3sd_datastore::{
    AnyBackend, Backend, Change, GetRequest, Key, KeyRange, ListRequest, Precondition, Revision, StoreError, Ttl,
    WriteRequest,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::subject::{self, Subject, events, name, rev, value, watch};

/// Keys that are prefixes of each other, and some on either side.
const KEYS: &[&str] = &["a", "a/", "a/1", "a/1\0", "a/2", "a0", "b"];

#[derive(Clone, Debug)]
enum Step {
    /// To which key, whether to delete, and how far the expected revision is from the right one; `None` is no demand.
    Write { key: usize, delete: bool, demand: Option<Demand> },
    /// Compact up to a share of what is there, in hundredths.
    Compact { share: i64 },
    /// Close and open again.
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Demand {
    Absent,
    /// The right revision, or one that is off.
    Revision {
        off: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let demand = prop_oneof![
        2 => Just(None),
        2 => Just(Some(Demand::Absent)),
        4 => Just(Some(Demand::Revision { off: 0 })),
        1 => (-3_i64..3).prop_map(|off| Some(Demand::Revision { off })),
    ];
    let write = (0..KEYS.len(), prop::bool::weighted(0.25), demand).prop_map(|(key, delete, demand)| Step::Write {
        key,
        delete,
        demand,
    });
    prop_oneof![40 => write, 2 => (0_i64..=100).prop_map(|share| Step::Compact { share }), 1 => Just(Step::Reopen)]
}

/// What happened: at each revision a key got a value, or lost it.
#[derive(Default)]
struct Model {
    start: i64,
    changes: Vec<(usize, Option<String>)>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.start + i64::try_from(self.changes.len()).unwrap()
    }

    /// The keys and values at a revision, each with when it was created and written.
    fn at(&self, revision: i64) -> BTreeMap<&'static str, (String, i64, i64)> {
        let mut state: BTreeMap<&'static str, (String, i64, i64)> = BTreeMap::new();
        for ((key, value), now) in self.changes.iter().zip(self.start + 1..=revision) {
            match value {
                Some(value) => {
                    let created = state.get(KEYS[*key]).map_or(now, |(_, created, _)| *created);
                    state.insert(KEYS[*key], (value.clone(), created, now));
                }
                None => drop(state.remove(KEYS[*key])),
            }
        }
        state
    }

    /// The events of a range from a revision on, as [`subject::line`] writes them.
    fn events(&self, range: &KeyRange, from: i64) -> Vec<String> {
        let mut lines = Vec::new();
        for ((key, value), now) in self.changes.iter().zip(self.start + 1..) {
            let key = KEYS[*key];
            if now < from || !range.contains(&Key::from(key)) {
                continue;
            }
            let before = self.at(now - 1);
            let prev = before.get(key);
            let was = prev.map_or(String::new(), |(value, created, at)| format!(" was {value}@{at} of {created}"));
            let (kind, value) = match (value, prev) {
                (None, _) => ("Delete", ""),
                (Some(value), None) => ("Create", value.as_str()),
                (Some(value), Some(_)) => ("Update", value.as_str()),
            };
            lines.push(format!("{now} {kind} {}={value}{was}", Key::from(key)));
        }
        lines
    }
}

async fn write(store: &AnyBackend, model: &mut Model, key: usize, delete: bool, demand: Option<Demand>) {
    let state = model.at(model.revision());
    let current = state.get(KEYS[key]).map(|(_, _, at)| *at);
    let precondition = match demand {
        None => Precondition::None,
        Some(Demand::Absent) => Precondition::Absent,
        Some(Demand::Revision { off }) => Precondition::At(rev(current.unwrap_or_default() + off)),
    };
    let allowed = match precondition {
        Precondition::None => true,
        Precondition::Absent => current.is_none(),
        Precondition::At(revision) => current == Some(revision.get()),
    };
    let text = format!("v{}", model.revision());
    let change = if delete { Change::Delete } else { Change::Put { value: value(&text), ttl: Ttl::NONE } };
    let result = store.write(WriteRequest { key: KEYS[key].into(), change, precondition }).await;
    if allowed {
        if !delete || current.is_some() {
            model.changes.push((key, (!delete).then_some(text)));
        }
        let response = result.unwrap();
        assert_eq!(response.revision.get(), model.revision());
        assert_eq!(response.prev.map(|kv| kv.mod_revision.get()), current);
    } else {
        let error = result.unwrap_err();
        let conflict = error.conflict().unwrap_or_else(|| panic!("{error}"));
        assert_eq!(conflict.current.as_ref().map(|kv| kv.mod_revision.get()), current);
        assert_eq!(conflict.revision.get(), model.revision());
    }
}

async fn compact(store: &AnyBackend, model: &mut Model, share: i64) {
    let target = model.revision() * share / 100;
    let result = store.compact(rev(target)).await;
    if target > model.compacted {
        assert_eq!(result.unwrap().compacted.get(), target);
        model.compacted = target;
    } else {
        assert!(matches!(result, Err(StoreError::Compacted { .. })), "{result:?}");
    }
}

/// Everything that can be read, at every revision.
async fn compare(store: &AnyBackend, model: &Model) {
    let ranges = [KeyRange::all(), KeyRange::prefix("a/"), KeyRange::half_open("a/1".into(), "a0".into())];
    for at in 0..=model.revision() {
        let get = store.get(GetRequest { key: "a/1".into(), at: Some(rev(at)) }).await;
        if at < model.compacted {
            assert!(matches!(get, Err(StoreError::Compacted { .. })), "at {at}: {get:?}");
            continue;
        }
        let state = model.at(at);
        assert_eq!(get.unwrap().kv.map(|kv| kv.mod_revision.get()), state.get("a/1").map(|(_, _, at)| *at));
        for range in &ranges {
            let list = ListRequest { at: Some(rev(at)), ..ListRequest::new(range.clone()) };
            let listed = store.list(list).await.unwrap();
            let found: Vec<_> = listed
                .kvs
                .iter()
                .map(|kv| {
                    let text = String::from_utf8(kv.value.to_vec()).unwrap();
                    (name(&kv.key), (text, kv.create_revision.get(), kv.mod_revision.get()))
                })
                .collect();
            let inside = state.iter().filter(|(key, _)| range.contains(&Key::from(**key)));
            let expected: Vec<_> = inside.map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            assert_eq!(found, expected, "{range:?} at {at}");
        }
    }
    for from in [model.compacted + 1, (model.compacted + model.revision()) / 2 + 1] {
        for (prefix, range) in [("", KeyRange::all()), ("a/", KeyRange::prefix("a/"))] {
            let expected = model.events(&range, from);
            let mut watcher = watch(store, prefix, Some(Revision::new(from))).await;
            let found = if expected.is_empty() { Vec::new() } else { events(&mut watcher, expected.len()).await };
            assert_eq!(subject::lines(&found), expected, "{prefix:?} from {from}");
        }
    }
}

fn check(cases: u32, open: impl Fn(Option<Subject>) -> Subject) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&prop::collection::vec(step(), 1..80), |steps| {
        runtime.block_on(async {
            let mut subject = open(None);
            let mut model = Model { start: subject::revision(&subject.store).await.get(), ..Model::default() };
            for step in steps {
                match step {
                    Step::Write { key, delete, demand } => write(&subject.store, &mut model, key, delete, demand).await,
                    Step::Compact { share } => compact(&subject.store, &mut model, share).await,
                    Step::Reopen => subject = open(Some(subject)),
                }
                assert_eq!(subject::revision(&subject.store).await.get(), model.revision());
            }
            compare(&subject.store, &model).await;
        });
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn cases(few: u32) -> u32 {
    if std::env::var_os("CHAOS_LONG").is_some() { few * 50 } else { few }
}

#[test]
fn memory_does_what_the_model_does() {
    check(cases(60), |subject| subject.unwrap_or_else(subject::memory));
}

#[test]
fn sqlite_does_what_the_model_does() {
    check(cases(25), |subject| subject.map_or_else(subject::sqlite, Subject::reopen));
}
