//! The graph together with its judgements, against a simple model: whatever the order in which watches tell of changes,
//! in the end exactly those objects are there that have an owner left, or never had one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PropagationPolicy;
use proptest::prelude::*;

use super::graph::{Found, Graph, Owner, Place, Seen, Uid, Work};
use super::judge::{Act, FOREGROUND, ORPHAN, has_finalizer, judge, tie};

/// What the API server would have; the uid of an object is its number.
#[derive(Clone, Debug, Default)]
struct World(BTreeMap<usize, ObjectMeta>);

fn uid(number: usize) -> Uid {
    number.to_string().as_str().into()
}

fn number(uid: &str) -> usize {
    uid.parse().expect("a number")
}

fn reference(owner: usize, blocks: bool) -> OwnerReference {
    let (api_version, kind) = ("v1".to_owned(), "Thing".to_owned());
    let block_owner_deletion = Some(blocks);
    OwnerReference {
        api_version,
        kind,
        name: owner.to_string(),
        uid: owner.to_string(),
        block_owner_deletion,
        controller: None,
    }
}

fn seen(meta: &ObjectMeta) -> Seen {
    let owners = meta.owner_references.iter().flatten().map(|owner| Owner {
        uid: owner.uid.as_str().into(),
        api_version: owner.api_version.as_str().into(),
        kind: owner.kind.as_str().into(),
        name: owner.name.as_str().into(),
        blocks: owner.block_owner_deletion == Some(true),
    });
    let deleting = meta.deletion_timestamp.is_some();
    Seen {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        place: place(number(meta.uid.as_deref().unwrap_or_default())),
        owners: owners.collect(),
        deleting,
        foreground: deleting && has_finalizer(meta, FOREGROUND),
        orphaning: deleting && has_finalizer(meta, ORPHAN),
    }
}

fn place(number: usize) -> Place {
    Place { api_version: "v1".into(), kind: "Thing".into(), namespace: "a".into(), name: number.to_string().into() }
}

#[derive(Clone, Debug)]
enum Told {
    Seen(Box<Seen>),
    Gone(Uid),
}

struct Bench {
    world: World,
    graph: Graph,
    told: Vec<Told>,
    work: BTreeSet<Work>,
}

impl Bench {
    fn write(&mut self, number: usize, change: impl FnOnce(&mut ObjectMeta)) {
        let meta = self.world.0.get_mut(&number).expect("it is there");
        change(meta);
        if meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().next().is_none() {
            self.world.0.remove(&number);
            self.told.push(Told::Gone(uid(number)));
        } else {
            let seen = seen(meta);
            self.told.push(Told::Seen(Box::new(seen)));
        }
    }

    fn delete(&mut self, number: usize, policy: &PropagationPolicy) {
        if !self.world.0.contains_key(&number) {
            return;
        }
        let finalizer = match policy {
            PropagationPolicy::Orphan => Some(ORPHAN),
            PropagationPolicy::Foreground => Some(FOREGROUND),
            PropagationPolicy::Background => None,
        };
        self.write(number, |meta| {
            let kept = meta.finalizers.take().unwrap_or_default().into_iter();
            let kept = kept.filter(|kept| kept != ORPHAN && kept != FOREGROUND);
            meta.finalizers = Some(kept.chain(finalizer.map(str::to_owned)).collect());
            meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        });
    }

    /// The watch tells the next change.
    fn hear(&mut self) {
        let mut found = Found::default();
        match self.told.remove(0) {
            Told::Seen(seen) => self.graph.apply(*seen, &mut found),
            Told::Gone(uid) => drop(self.graph.gone(&uid, &mut found)),
        }
        self.work.extend(found.work);
    }

    fn look(&mut self, work: &Work) {
        self.work.remove(work);
        let Some(look) = self.graph.look(work.uid()) else { return };
        let me = number(work.uid());
        if let Work::Orphan(owner) = work {
            for (dependent, _) in self.graph.dependents(owner) {
                if self.world.0.contains_key(&number(&dependent)) {
                    self.write(number(&dependent), |meta| {
                        meta.owner_references.iter_mut().for_each(|all| all.retain(|kept| kept.uid != **owner));
                    });
                }
            }
            return self.drop_finalizer(me, ORPHAN);
        }
        if look.deleting && !look.foreground {
            return;
        }
        let Some(live) = self.world.0.get(&me).cloned() else {
            let mut found = Found::default();
            self.graph.absent(&look.uid, &look.place, &mut found);
            self.work.extend(found.work);
            return;
        };
        if !look.seen {
            return;
        }
        if look.foreground {
            if !look.is_blocked {
                self.drop_finalizer(me, FOREGROUND);
            }
            return;
        }
        let owners = live.owner_references.iter().flatten();
        let ties: Vec<_> = owners.map(|owner| tie(self.world.0.get(&number(&owner.uid)), &owner.uid)).collect();
        match judge(&live, &ties, look.has_dependents, look.is_in_circle) {
            Act::Keep => {}
            Act::Cut(kept) => self.write(me, |meta| meta.owner_references = Some(kept)),
            Act::Delete { policy, unblock } => {
                if unblock {
                    self.write(me, |meta| {
                        let owners = meta.owner_references.iter_mut().flatten();
                        owners.for_each(|owner| owner.block_owner_deletion = Some(false));
                    });
                }
                self.delete(me, &policy);
            }
        }
    }

    fn drop_finalizer(&mut self, number: usize, finalizer: &str) {
        if self.world.0.get(&number).is_some_and(|meta| has_finalizer(meta, finalizer)) {
            self.write(number, |meta| meta.finalizers.iter_mut().for_each(|all| all.retain(|kept| kept != finalizer)));
        }
    }
}

/// Background deletion: those go whose owners are all gone.
fn survivors(objects: &[Vec<(usize, bool)>], deleted: &[usize]) -> BTreeSet<usize> {
    let mut left: BTreeSet<usize> = (0..objects.len()).filter(|number| !deleted.contains(number)).collect();
    loop {
        let goes = |number: &usize| {
            let owners = &objects[*number];
            !owners.is_empty() && owners.iter().all(|(owner, _)| !left.contains(owner))
        };
        let Some(next) = left.iter().copied().find(goes) else { return left };
        left.remove(&next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Owners may be anything, in circles, and not there at all.
    #[test]
    fn what_is_left_has_an_owner(
        objects in prop::collection::vec(prop::collection::vec((0usize..14, any::<bool>()), 0..3), 1..12),
        deleted in prop::collection::vec((0usize..12, 0usize..2), 0..6),
        choices in prop::collection::vec(any::<u16>(), 400),
    ) {
        let objects: Vec<Vec<(usize, bool)>> = objects.iter().map(|owners| {
            let mut once = HashSet::new();
            owners.iter().copied().filter(|(owner, _)| once.insert(*owner)).collect()
        }).collect();
        let mut bench = Bench { world: World::default(), graph: Graph::default(), told: Vec::new(), work: BTreeSet::new() };
        for (number, owners) in objects.iter().enumerate() {
            let owners = owners.iter().map(|(owner, blocks)| reference(*owner, *blocks)).collect();
            let meta = ObjectMeta { uid: Some(number.to_string()), owner_references: Some(owners), ..ObjectMeta::default() };
            bench.told.push(Told::Seen(Box::new(seen(&meta))));
            bench.world.0.insert(number, meta);
        }
        // Monitors list before the collector begins.
        while !bench.told.is_empty() {
            bench.hear();
        }
        let mut deleted: Vec<(usize, usize)> = deleted.into_iter().filter(|(number, _)| *number < objects.len()).collect();
        let gone: Vec<usize> = deleted.iter().map(|(number, _)| *number).collect();
        let mut choices = choices.into_iter().cycle();
        let mut steps = 0;
        while !(bench.told.is_empty() && bench.work.is_empty() && deleted.is_empty()) {
            steps += 1;
            prop_assert!(steps < 20_000, "it comes to an end");
            let choice = choices.next().unwrap_or_default() as usize;
            match choice % 3 {
                0 if !bench.told.is_empty() => bench.hear(),
                1 if !bench.work.is_empty() => {
                    let work = bench.work.iter().nth(choice / 3 % bench.work.len()).cloned().expect("one of them");
                    bench.look(&work);
                }
                2 if !deleted.is_empty() => {
                    let (number, policy) = deleted.remove(0);
                    let policies = [PropagationPolicy::Background, PropagationPolicy::Foreground];
                    bench.delete(number, &policies[policy]);
                }
                _ => {}
            }
        }
        let left: BTreeSet<usize> = bench.world.0.keys().copied().collect();
        prop_assert_eq!(left, survivors(&objects, &gone));
        for meta in bench.world.0.values() {
            prop_assert!(meta.deletion_timestamp.is_none());
        }
    }
}

#[test]
fn orphans_stay_and_have_no_owner() {
    let mut bench = Bench { world: World::default(), graph: Graph::default(), told: Vec::new(), work: BTreeSet::new() };
    for (number, owners) in
        [(0, vec![]), (1, vec![reference(0, true)]), (2, vec![reference(0, false), reference(1, true)])]
    {
        let meta =
            ObjectMeta { uid: Some(format!("{number}")), owner_references: Some(owners), ..ObjectMeta::default() };
        bench.told.push(Told::Seen(Box::new(seen(&meta))));
        bench.world.0.insert(number, meta);
    }
    bench.delete(0, &PropagationPolicy::Orphan);
    while !bench.told.is_empty() || !bench.work.is_empty() {
        while !bench.told.is_empty() {
            bench.hear();
        }
        if let Some(work) = bench.work.first().cloned() {
            bench.look(&work);
        }
    }
    let owners = |number: usize| -> Vec<String> {
        bench.world.0[&number].owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
    };
    assert!(!bench.world.0.contains_key(&0));
    assert_eq!((owners(1), owners(2)), (Vec::new(), vec!["1".to_owned()]));
}

#[test]
fn an_owner_of_another_namespace_is_told_of_and_looked_at() {
    let mut graph = Graph::default();
    let mut found = Found::default();
    let owner = Seen { place: place(0), ..seen(&ObjectMeta { uid: Some("0".to_owned()), ..ObjectMeta::default() }) };
    let meta = ObjectMeta {
        uid: Some("1".to_owned()),
        owner_references: Some(vec![reference(0, false)]),
        ..ObjectMeta::default()
    };
    let stray = Seen { place: Place { namespace: "b".into(), ..place(1) }, ..seen(&meta) };
    graph.apply(owner.clone(), &mut found);
    graph.apply(stray.clone(), &mut found);
    assert_eq!(found.work, [Work::Object(uid(1))]);
    assert_eq!(found.misplaced.len(), 1);
    // The other way round: the owner is only named at first.
    let (mut graph, mut found) = (Graph::default(), Found::default());
    graph.apply(stray, &mut found);
    assert_eq!(found.work, [Work::Object(uid(0))], "is it there at all?");
    graph.apply(owner, &mut found);
    assert_eq!(found.work, [Work::Object(uid(0)), Work::Object(uid(1))]);
    assert_eq!(found.misplaced.len(), 1);
}

#[test]
fn what_a_list_does_not_have_is_gone() {
    let (mut graph, mut found) = (Graph::default(), Found::default());
    let meta = |number: usize, owners| ObjectMeta {
        uid: Some(number.to_string()),
        owner_references: Some(owners),
        ..ObjectMeta::default()
    };
    graph.apply(seen(&meta(0, vec![])), &mut found);
    graph.apply(seen(&meta(1, vec![reference(0, true)])), &mut found);
    graph.listed("v1", "Other", &HashSet::new(), &mut found);
    assert_eq!((graph.len(), found.work.len()), (2, 0));
    graph.listed("v1", "Thing", &HashSet::from([uid(1)]), &mut found);
    assert_eq!((graph.len(), found.work), (1, vec![Work::Object(uid(1))]));
}
