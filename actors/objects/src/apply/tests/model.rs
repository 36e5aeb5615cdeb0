//! A model of server-side apply: objects are flat maps of paths to text, managers own plain sets of paths. Random
//! sequences of writes must leave object and owners as the model says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A path below `spec`; the empty one is `spec` itself.
type FlatPath = Vec<String>;

/// What is below `spec`, with structures and items.
type Flat = BTreeMap<FlatPath, String>;

/// Whether a path leads to a structure that the schema names, or to a list that merges: these come and go by rules of
/// their own.
fn is_structure(path: &[String]) -> bool {
    match path {
        [] => true,
        [name] => matches!(name.as_str(), "s" | "m" | "l" | "t"),
        _ => false,
    }
}

/// Fields of an object below `spec`, structures and items of lists included.
fn flatten(object: &Value) -> Flat {
    let mut flat = Flat::new();
    let Some(spec) = object.get("spec").and_then(Value::as_object) else { return flat };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut put = |steps: &[&str], value: String| {
        flat.insert(steps.iter().map(|step| (*step).to_owned()).collect(), value);
    };
    put(&[], String::new());
    for (name, value) in spec {
        match name.as_str() {
            "a" => put(&["a"], text(value)),
            "atoms" => put(&["atoms"], value.to_string()),
            "s" | "m" | "t" | "l" => put(&[name], String::new()),
            other => panic!("no such field in the model: {other}"),
        }
        let fields = value.as_object().into_iter().flatten();
        fields.for_each(|(key, value)| put(&[name, key], text(value)));
        for item in value.as_array().into_iter().flatten().filter(|_| name != "atoms") {
            let Some(fields) = item.as_object() else {
                put(&[name, &text(item)], text(item));
                continue;
            };
            let key = text(&item["k"]);
            put(&[name, &key], "item".to_owned());
            fields.iter().for_each(|(field, value)| put(&[name, &key, field], text(value)));
        }
    }
    flat
}

/// The object below `spec` of a flat map.
fn unflatten(flat: &Flat) -> Value {
    let mut spec = json!({});
    let mut items: BTreeMap<&str, Value> = BTreeMap::new();
    for (path, value) in flat {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        match steps.as_slice() {
            [] => {}
            ["a"] => spec["a"] = json!(value),
            ["atoms"] => spec["atoms"] = serde_json::from_str(value).unwrap(),
            [name @ ("s" | "m")] => spec[*name] = json!({}),
            [name @ ("l" | "t")] => spec[*name] = json!([]),
            [name @ ("s" | "m"), key] => spec[*name][*key] = json!(value),
            ["t", _] => match spec.get_mut("t").and_then(Value::as_array_mut) {
                Some(list) => list.push(json!(value)),
                None => spec["t"] = json!([value]),
            },
            ["l", key] => {
                items.entry(key).or_insert_with(|| json!({}))["k"] = json!(key);
            }
            ["l", key, name] => {
                items.entry(key).or_insert_with(|| json!({}))[*name] = json!(value);
            }
            other => panic!("no such path in the model: {other:?}"),
        }
    }
    if !items.is_empty() {
        spec["l"] = items.into_values().collect();
    }
    json!({"spec": spec})
}

/// The same with the structures that its paths need.
fn whole(flat: &Flat) -> Flat {
    flatten(&unflatten(flat))
}

/// What somebody owns, by name and whether by apply.
type Owners = BTreeMap<(String, bool), BTreeSet<FlatPath>>;

#[derive(Debug, Default)]
struct Model {
    live: Flat,
    owners: Owners,
}

impl Model {
    fn changed(old: &Flat, new: &Flat) -> BTreeSet<FlatPath> {
        new.iter().filter(|(path, value)| old.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect()
    }

    fn settle(&mut self, new: Flat, writer: Option<&(String, bool)>) {
        let changed = Self::changed(&self.live, &new);
        for (owner, owned) in &mut self.owners {
            owned.retain(|path| new.contains_key(path) && (Some(owner) == writer || !changed.contains(path)));
        }
        self.owners.retain(|_, owned| !owned.is_empty());
        self.live = new;
    }

    fn update(&mut self, manager: &str, new: Flat) {
        let changed = Self::changed(&self.live, &new);
        self.settle(new, None);
        if !changed.is_empty() {
            self.owners.entry((manager.to_owned(), false)).or_default().extend(changed);
        }
    }

    /// The set with the structures above its paths: who owns a field that the schema names, owns what it is in.
    fn named(set: &BTreeSet<FlatPath>) -> BTreeSet<FlatPath> {
        let above = set.iter().flat_map(|path| (0..path.len()).map(|end| path[..end].to_vec()));
        set.iter().cloned().chain(above.filter(|path| is_structure(path))).collect()
    }

    /// Whether it went through.
    fn apply(&mut self, manager: &str, config: &Flat, force: bool) -> bool {
        let me = (manager.to_owned(), true);
        let mut owners = self.owners.clone();
        let said: BTreeSet<FlatPath> = config.keys().filter(|path| !is_structure(path)).cloned().collect();
        // A structure is said only if nothing in it is.
        let said = if said.is_empty() { BTreeSet::from([FlatPath::new()]) } else { said };
        let last = owners.insert(me.clone(), said).unwrap_or_default();
        let mut new = self.live.clone();
        new.extend(config.clone());
        let owned: BTreeSet<FlatPath> = owners.values().flat_map(Self::named).collect();
        for gone in Self::named(&last).difference(&owned) {
            new.retain(|path, _| !path.starts_with(gone));
        }
        let changed = Self::changed(&self.live, &new);
        let is_lost = |owned: &BTreeSet<FlatPath>| owned.iter().any(|path| changed.contains(path));
        if !force && owners.iter().any(|(owner, owned)| *owner != me && is_lost(owned)) {
            return false;
        }
        self.owners = owners;
        self.settle(new, Some(&me));
        true
    }
}

/// What the real thing says of its owners, in the model's terms.
fn real_owners(bench: &Bench<'_>) -> Owners {
    let mut owners = Owners::new();
    for (manager, entry) in bench.managers().iter() {
        let spec = entry.set.paths().into_iter().filter(|path| path[0] == PathElement::field("spec"));
        let paths = spec.map(|path| {
            let steps: FlatPath = path
                .iter()
                .skip(1)
                .map(|element| match element {
                    PathElement::Field(name) => name.clone(),
                    PathElement::Key(fields) => fields[0].1.as_str().unwrap().to_owned(),
                    PathElement::Value(value) => value.as_str().unwrap().to_owned(),
                    PathElement::Index(index) => panic!("nothing writes indices: {index}"),
                })
                .collect();
            steps
        });
        let paths: BTreeSet<_> = paths.collect();
        if !paths.is_empty() {
            owners.insert((manager.name.clone(), manager.operation == Operation::Apply), paths);
        }
    }
    owners
}

fn any_fields() -> impl Strategy<Value = Flat> {
    let value = || prop::sample::select(vec!["1", "2"]);
    let scalar = prop::sample::select(vec![vec!["a"], vec!["s", "b"], vec!["s", "c"], vec!["m", "x"], vec!["m", "y"]]);
    let scalars = prop::collection::vec((scalar, value()), 0..4);
    let items = prop::collection::vec((prop::sample::select(vec!["i", "j"]), value(), 0..4), 0..3);
    let members = prop::collection::vec(prop::sample::select(vec!["p", "q", "r"]), 0..3);
    let atoms = prop::option::of(prop::sample::select(vec![r#"["1"]"#, r#"["2"]"#]));
    (scalars, items, members, atoms).prop_map(|(scalars, items, members, atoms)| {
        let mut flat = Flat::new();
        let mut put = |steps: &[&str], value: &str| {
            flat.insert(steps.iter().map(|step| (*step).to_owned()).collect(), value.to_owned());
        };
        for (steps, value) in scalars {
            put(&steps, value);
        }
        for (key, value, which) in items {
            put(&["l", key], "item");
            put(&["l", key, "k"], key);
            if which & 1 == 1 {
                put(&["l", key, "v"], value);
            }
            if which & 2 == 2 {
                put(&["l", key, "w"], value);
            }
        }
        for member in members {
            put(&["t", member], member);
        }
        if let Some(atoms) = atoms {
            put(&["atoms"], atoms);
        }
        flat
    })
}

#[derive(Clone, Debug)]
enum Step {
    Apply { manager: &'static str, config: Flat, force: bool },
    Put { manager: &'static str, fields: Flat },
    Add { manager: &'static str, fields: Flat },
    Default { fields: Flat },
}

fn any_step() -> impl Strategy<Value = Step> {
    let manager = || prop::sample::select(vec!["one", "two", "three"]);
    prop_oneof![
        3 => (manager(), any_fields(), any::<bool>())
            .prop_map(|(manager, config, force)| Step::Apply { manager, config, force }),
        1 => (manager(), any_fields()).prop_map(|(manager, fields)| Step::Put { manager, fields }),
        1 => (manager(), any_fields()).prop_map(|(manager, fields)| Step::Add { manager, fields }),
        1 => any_fields().prop_map(|fields| Step::Default { fields }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_write_leaves_object_and_owners_as_the_model_says(steps in prop::collection::vec(any_step(), 1..10)) {
        let arena = thing();
        let versions = OneVersion { api_version: "example.com/v1", schema: arena.root() };
        let mut bench = Bench::new(&versions);
        let mut model = Model::default();
        // An object exists before it is tracked by a model that knows no creation.
        bench.put("zero", bench.object(&json!({"metadata": {"labels": {"zero": "0"}}})));
        for step in steps {
            match step.clone() {
                Step::Apply { manager, config, force } => {
                    let outcome = bench.try_apply(manager, unflatten(&config), force);
                    prop_assert_eq!(outcome.is_ok(), model.apply(manager, &whole(&config), force), "{:?}", step);
                }
                Step::Put { manager, fields } => {
                    let mut new = bench.live.clone();
                    new["spec"] = unflatten(&fields)["spec"].clone();
                    bench.put(manager, new);
                    model.update(manager, whole(&fields));
                }
                Step::Add { manager, fields } => {
                    let mut all = model.live.clone();
                    all.extend(fields);
                    let mut new = bench.live.clone();
                    new["spec"] = unflatten(&all)["spec"].clone();
                    bench.put(manager, new);
                    model.update(manager, whole(&all));
                }
                Step::Default { fields } => {
                    // The server fills in what nobody said; nobody comes to own it.
                    let mut all = fields;
                    all.extend(model.live.clone());
                    bench.live["spec"] = unflatten(&all)["spec"].clone();
                    model.live = whole(&all);
                }
            }
            prop_assert_eq!(flatten(&bench.live), model.live.clone(), "{:?}", step);
            prop_assert_eq!(real_owners(&bench), model.owners.clone(), "{:?}", step);
        }
    }

    #[test]
    fn applying_the_same_again_changes_nothing(first in any_fields(), second in any_fields()) {
        let arena = thing();
        let versions = OneVersion { api_version: "example.com/v1", schema: arena.root() };
        let mut bench = Bench::new(&versions);
        bench.apply("one", unflatten(&first));
        bench.force("two", unflatten(&second));
        let before = bench.live.clone();
        bench.apply("two", unflatten(&second));
        prop_assert_eq!(&bench.live, &before, "not even a time");
        bench.update("three", json!({}));
        prop_assert_eq!(&bench.live, &before, "a write without change has no owner");
    }
}
