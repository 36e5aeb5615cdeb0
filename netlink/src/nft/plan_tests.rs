use proptest::prelude::*;

use super::super::expression::{Expression, MetaKey, Register};
use super::super::model::{ChainBase, ChainKind, Data, DataKind, Element, Family, Hook, Rule, TypeId, Verdict};
use super::*;

/// What the kernel would make of a batch; it refuses what the kernel refuses.
fn carry_out(table: &mut Option<Table>, changes: &[Change], name: &Table) {
    for change in changes {
        if *change == Change::AddTable {
            table.get_or_insert_with(|| Table::new(name.family, &name.name));
            continue;
        }
        if *change == Change::DeleteTable {
            assert!(table.take().is_some(), "there is no table to delete");
            continue;
        }
        let table = table.as_mut().expect("there is a table");
        match change {
            Change::AddTable | Change::OwnTable | Change::DeleteTable => unreachable!(),
            Change::AddSet(set) => {
                assert!(table.set(&set.name).is_none());
                table.sets.push(Set { elements: Some(Contents::new()), ..set.clone() });
            }
            Change::DeleteSet(name) => {
                assert!(!uses_set(table, name), "set {name} is in use");
                table.sets.retain(|set| set.name != *name);
            }
            Change::AddChain { name, base } => {
                assert!(table.chain(name).is_none());
                table.chains.push(Chain { name: name.clone(), base: *base, rules: Vec::new() });
            }
            Change::FlushChain(name) => chain(table, name).rules.clear(),
            Change::DeleteChain(name) => {
                assert!(chain(table, name).rules.is_empty(), "chain {name} has rules");
                assert!(!leads_to(table, name), "something leads to chain {name}");
                table.chains.retain(|chain| chain.name != *name);
            }
            Change::AddRule { chain: name, rule } => {
                for expression in &rule.expressions {
                    match expression {
                        Expression::Lookup { set, .. } => assert!(table.set(set).is_some()),
                        Expression::Verdict(Verdict::Jump(to)) => assert!(table.chain(to).is_some()),
                        _ => {}
                    }
                }
                chain(table, name).rules.push(rule.clone());
            }
            Change::AddElements { set, elements } => {
                for (key, element) in elements {
                    if let Some(Data::Verdict(Verdict::Jump(to))) = &element.data {
                        assert!(table.chain(to).is_some(), "chain {to} is not there yet");
                    }
                    let before = contents(table, set).insert(key.clone(), element.clone());
                    assert!(before.is_none_or(|before| before == *element), "the key is taken");
                }
            }
            Change::DeleteElements { set, elements } => {
                elements.keys().for_each(|key| assert!(contents(table, set).remove(key).is_some()));
            }
        }
    }
}

fn chain<'a>(table: &'a mut Table, name: &str) -> &'a mut Chain {
    table.chains.iter_mut().find(|chain| chain.name == name).expect("the chain is there")
}

fn contents<'a>(table: &'a mut Table, name: &str) -> &'a mut Contents {
    let set = table.sets.iter_mut().find(|set| set.name == name).expect("the set is there");
    set.elements.as_mut().expect("the kernel's sets have elements")
}

fn expressions(table: &Table) -> impl Iterator<Item = &Expression> {
    table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions)
}

fn uses_set(table: &Table, name: &str) -> bool {
    expressions(table).any(|expression| matches!(expression, Expression::Lookup { set, .. } if set == name))
}

fn leads_to(table: &Table, name: &str) -> bool {
    let jump = Verdict::Jump(name.to_owned());
    let by_rule = expressions(table).any(|expression| *expression == Expression::Verdict(jump.clone()));
    let elements = table.sets.iter().filter_map(|set| set.elements.as_ref()).flatten();
    let data = Some(Data::Verdict(jump.clone()));
    by_rule || elements.into_iter().any(|(_, element)| element.data == data)
}

/// Few names, so that tables have things in common.
fn any_table() -> impl Strategy<Value = Table> {
    let elements = proptest::collection::btree_map(0_u8..4, 0_usize..4, 0..4);
    let set = (any::<bool>(), any::<bool>(), elements);
    let rules = proptest::collection::vec((0_usize..3, 0_u8..5), 0..3);
    let chain = (any::<bool>(), any::<bool>(), rules);
    (proptest::collection::vec(set, 3), proptest::collection::vec(chain, 3)).prop_map(|(sets, chains)| {
        let mut table = Table::new(Family::Inet, "t");
        let names: Vec<String> = (0..3).filter(|at| chains[*at].0).map(|at| format!("c{at}")).collect();
        for (at, (there, is_map, elements)) in sets.iter().enumerate().filter(|(_, (there, ..))| *there) {
            let data = (*is_map || at == 2).then_some(DataKind::Verdict);
            let jump = |which: &usize| names.get(*which).map_or(Verdict::Drop, |name| Verdict::Jump(name.clone()));
            let element = |which| Element { data: data.map(|_| Data::Verdict(jump(which))), comment: None };
            let elements = elements.iter().map(|(key, which)| (vec![*key; 4], element(which))).collect();
            let name = format!("s{at}");
            assert!(*there);
            let elements = Some(elements);
            table.sets.push(Set { name, key_type: TypeId::IPV4, key_bytes: 4, data, from_packets: None, elements });
        }
        for (at, (there, is_base, rules)) in chains.iter().enumerate().filter(|(_, (there, ..))| *there) {
            assert!(*there);
            let hook = if *is_base { Hook::Forward } else { Hook::Input };
            let base = (at == 0).then_some(ChainBase { kind: ChainKind::Filter, hook, priority: 0, drops: false });
            let rule = |(which, kind): &(usize, u8)| {
                let set = table.sets.get(*which).map(|set| set.name.clone());
                let last = match (kind, set) {
                    (0, Some(set)) => Expression::Lookup { set, key: Register(0), inverted: false },
                    (1, _) if names.len() > 1 => Expression::Verdict(Verdict::Jump(names[1].clone())),
                    _ => Expression::Verdict(Verdict::Return),
                };
                Rule { expressions: vec![Expression::Meta { key: MetaKey::Mark, to: Register(0) }, last] }
            };
            table.chains.push(Chain { name: format!("c{at}"), base, rules: rules.iter().map(rule).collect() });
        }
        table
    })
}

fn sorted(mut table: Table) -> Table {
    table.sets.sort_by(|a, b| a.name.cmp(&b.name));
    table.chains.sort_by(|a, b| a.name.cmp(&b.name));
    table
}

proptest! {
    /// From any table to any other, in an order that the kernel takes; and then nothing is left to do.
    #[test]
    fn the_plan_leads_there(from in proptest::option::of(any_table()), wanted in any_table()) {
        let mut table = from;
        let changes = plan(table.as_ref(), wanted.clone());
        carry_out(&mut table, &changes, &wanted);
        let made = table.expect("there is a table");
        prop_assert_eq!(plan(Some(&made), wanted.clone()), vec![]);
        prop_assert_eq!(sorted(made), sorted(wanted));
    }

    /// Sets whose elements are others' business keep them, even when the table is made anew.
    #[test]
    fn elements_of_others_stay(from in any_table(), wanted in any_table()) {
        let mut wanted = wanted;
        wanted.sets.iter_mut().for_each(|set| set.elements = None);
        // Elements lead to chains, so those have to stay too.
        for chain in &from.chains {
            if wanted.chain(&chain.name).is_none() {
                wanted.chains.push(Chain { name: chain.name.clone(), base: chain.base, rules: Vec::new() });
            }
        }
        let mut table = Some(from.clone());
        let changes = plan(table.as_ref(), wanted.clone());
        carry_out(&mut table, &changes, &wanted);
        let made = table.expect("there is a table");
        for set in &wanted.sets {
            if let Some(before) = from.set(&set.name).filter(|before| before.data == set.data) {
                prop_assert_eq!(&made.set(&set.name).expect("it is there").elements, &before.elements);
            }
        }
        prop_assert_eq!(plan(Some(&made), wanted.clone()), vec![]);
    }
}
