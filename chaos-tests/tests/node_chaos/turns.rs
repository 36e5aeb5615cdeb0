//! Every actor of the tree is killed in turn, and then whoever the seed says without waiting for the last one. From what
//! that cost the page's table is made.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use k3sd_runtime::inspect::Kill;
use k3sd_runtime::inspect::wire::Actor;

use crate::drill::Drill;
use crate::machine::Machine;
use crate::page::{self, Costs};

/// Of an ordinary run: how many beside those at the top, and how many are killed afterwards without waiting.
const SAMPLE: usize = 40;
const RANDOM: usize = 24;
/// The longest pause between two of the latter.
const PAUSE_MS: u64 = 300;
/// How often each dies for the table.
pub(crate) const TIMES: usize = 5;
/// How many of those that are alike are killed in one round of a long run.
const ALIKE: usize = 4;

pub(crate) async fn turns(machine: &mut Machine) {
    let seed = seed();
    let _replay = Replay { seed, test: "deaths_cost_what_the_page_says" };
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let costs = Costs::wanted();
    let mut drill = Drill::begin(machine, &mut rng).await;
    let tree = drill.tree.clone();
    let began = Instant::now();
    let victims = victims(&tree, costs, &mut rng);
    one_after_the_other(&mut drill, victims.clone()).await;
    println!("{} died in turn in {:?}", victims.len(), began.elapsed());
    if costs == Costs::Unmeasured {
        let found = at_random(&mut drill, &tree, &mut rng).await;
        println!("{found} more died, all was back {:?} after the last", drill.heal().await);
        drill.end().await;
        assert_eq!(page::findings(&tree), Vec::<String>::new());
    } else {
        for _ in 0..TIMES {
            drill.strike_daemon().await;
        }
        page::write(&tree, &drill.end().await);
    }
}

/// Those who may die, with whether they come back after they ended well, in the order of the tree.
fn mortals(root: &Actor) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut waiting: Vec<&Actor> = root.children.iter().rev().collect();
    while let Some(actor) = waiting.pop() {
        // Who is not started again has nothing to heal.
        if actor.restart.as_deref() != Some("temporary") {
            found.push((actor.path.clone(), actor.restart.as_deref() == Some("permanent")));
        }
        if !actor.path.ends_with("/connections") {
            waiting.extend(actor.children.iter().rev());
        }
    }
    found
}

/// Who dies in turn, and how.
fn victims(root: &Actor, costs: Costs, rng: &mut Rng) -> Vec<(String, Kill)> {
    let all = mortals(root);
    let mut chosen: Vec<&(String, bool)> = Vec::new();
    match costs {
        Costs::Unmeasured if is_long() => chosen.extend(&all),
        Costs::Unmeasured => {
            let (mut top, mut others): (Vec<_>, Vec<_>) =
                all.iter().partition(|(path, _)| path.split('/').count() <= 2);
            shuffle(&mut others, rng);
            others.truncate(SAMPLE);
            chosen.append(&mut top);
            chosen.append(&mut others);
        }
        Costs::Missing | Costs::All => {
            let wanted = page::unmeasured(root, costs);
            for _ in 0..TIMES {
                let mut seen = BTreeMap::<String, usize>::new();
                let mut round: Vec<&(String, bool)> = all.iter().collect();
                shuffle(&mut round, rng);
                round.retain(|(path, _)| {
                    let row = page::fold(root, path);
                    let times = seen.entry(row.clone()).or_default();
                    *times += 1;
                    wanted.contains(&row) && *times <= ALIKE
                });
                chosen.append(&mut round);
            }
        }
    }
    shuffle(&mut chosen, rng);
    chosen.into_iter().map(|(path, is_permanent)| (path.clone(), any_kind(*is_permanent, rng))).collect()
}

fn any_kind(is_permanent: bool, rng: &mut Rng) -> Kill {
    match rng.below(if is_permanent { 3 } else { 2 }) {
        0 => Kill::Kill,
        1 => Kill::Panic,
        _ => Kill::Stop,
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for place in (1..items.len()).rev() {
        items.swap(place, usize::try_from(rng.below(place as u64 + 1)).expect("a small number"));
    }
}

/// Kills each, the next when all is well again. Whose supervisor bears no death now waits, and another goes first.
async fn one_after_the_other(drill: &mut Drill<'_>, mut waiting: Vec<(String, Kill)>) {
    while !waiting.is_empty() {
        let waits: Vec<Duration> = waiting.iter().map(|(victim, _)| drill.wait(victim)).collect();
        let least = waits.iter().min().copied().unwrap_or_default();
        let at = waits.iter().position(|wait| *wait == least).expect("it is one of them");
        tokio::time::sleep(least).await;
        let (victim, how) = waiting.remove(at);
        drill.strike(&victim, how).await;
    }
}

/// Kills whoever the seed says, whether the last one is back or not. Says how many were there.
async fn at_random(drill: &mut Drill<'_>, tree: &Actor, rng: &mut Rng) -> usize {
    let all = mortals(tree);
    let mut found = 0;
    for _ in 0..RANDOM * if is_long() { 10 } else { 1 } {
        tokio::time::sleep(Duration::from_millis(rng.below(PAUSE_MS))).await;
        let (victim, is_permanent) = &all[usize::try_from(rng.below(all.len() as u64)).expect("a small number")];
        let how = any_kind(*is_permanent, rng);
        if drill.wait(victim).is_zero() {
            found += usize::from(drill.kill(victim, how).await);
        }
    }
    assert!(found > 0, "nobody was there");
    found
}
