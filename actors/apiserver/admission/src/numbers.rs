//! How long each plugin takes, under the name that dashboards know.

use std::array::from_fn;
use std::sync::Arc;

use k3sd_runtime::exposition::{Histogram, head};
use k3sd_runtime::{Clock, Moment};

use crate::attributes::Operation;
use crate::config::Plugin;

const NAME: &str = "apiserver_admission_controller_admission_duration_seconds";
/// Upper bounds of the buckets, in milliseconds.
const BUCKETS_MS: [u64; 6] = [5, 25, 100, 500, 1000, 2500];
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];
/// What a plugin may do.
const PHASES: [&str; 2] = ["admit", "validate"];

/// Which half of admission a plugin is asked in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Mutate,
    Validate,
}

/// Of one plugin: how often it let something pass, and how often it refused, by phase and operation.
type OfPlugin = [[[Histogram<{ BUCKETS_MS.len() }>; 2]; OPERATIONS.len()]; PHASES.len()];

/// Times of all plugins. Clones share them.
#[derive(Clone, Debug)]
pub struct AdmissionNumbers(Arc<[OfPlugin; Plugin::COUNT]>);

impl Default for AdmissionNumbers {
    fn default() -> Self {
        Self(Arc::new(from_fn(|_| from_fn(|_| from_fn(|_| from_fn(|_| Histogram::new(&BUCKETS_MS)))))))
    }
}

impl AdmissionNumbers {
    /// Watches the plugins take turns at one request.
    pub(crate) fn turns<'a>(&'a self, clock: &'a Clock, phase: Phase, operation: Operation) -> Turns<'a> {
        Turns { numbers: self, clock, phase, operation, turn: None }
    }

    /// Everything, in Prometheus' text format.
    pub fn write(&self, text: &mut String) {
        head(text, NAME, "histogram", "How long plugins of admission took.");
        for (name, plugin) in Plugin::ALL.iter().map(|plugin| plugin.name()).zip(self.0.iter()) {
            for (phase, operations) in PHASES.iter().zip(plugin) {
                for (operation, outcomes) in OPERATIONS.iter().zip(operations) {
                    for (rejected, times) in [false, true].iter().zip(outcomes).filter(|(_, times)| times.count() > 0) {
                        let labels = format!(
                            "name=\"{name}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{phase}\""
                        );
                        times.write(text, NAME, &labels);
                    }
                }
            }
        }
    }
}

/// The plugins at one request. The one whose turn it is when this is dropped has refused.
pub(crate) struct Turns<'a> {
    numbers: &'a AdmissionNumbers,
    clock: &'a Clock,
    phase: Phase,
    operation: Operation,
    turn: Option<(Plugin, Moment)>,
}

impl Turns<'_> {
    /// The next plugin's turn; the one before let the request pass. Always true.
    pub(crate) fn begin(&mut self, plugin: Plugin) -> bool {
        let now = self.clock.now();
        self.over(now, false);
        self.turn = Some((plugin, now));
        true
    }

    /// The last plugin let the request pass too.
    pub(crate) fn end(&mut self) {
        if self.turn.is_some() {
            self.over(self.clock.now(), false);
        }
    }

    fn over(&mut self, now: Moment, rejected: bool) {
        let Some((plugin, began)) = self.turn.take() else { return };
        let operation = OPERATIONS.iter().position(|operation| *operation == self.operation).unwrap_or_default();
        let outcomes = &self.numbers.0[plugin as usize][self.phase as usize][operation];
        outcomes[usize::from(rejected)].observe(now.since(began));
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        if self.turn.is_some() {
            self.over(self.clock.now(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_and_the_last_of_a_refused_request_refused_it() {
        let (numbers, clock) = (AdmissionNumbers::default(), Clock::system());
        let mut turns = numbers.turns(&clock, Phase::Mutate, Operation::Create);
        assert!(turns.begin(Plugin::NamespaceLifecycle) && turns.begin(Plugin::LimitRanger));
        turns.end();
        drop(turns);
        let mut turns = numbers.turns(&clock, Phase::Validate, Operation::Update);
        turns.begin(Plugin::ResourceQuota);
        drop(turns);
        drop(numbers.turns(&clock, Phase::Mutate, Operation::Delete));
        let mut text = String::new();
        numbers.write(&mut text);
        let counts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&format!("{NAME}_count"))).collect();
        assert_eq!(
            counts,
            [
                r#"{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="admit"} 1"#,
                r#"{name="LimitRanger",operation="CREATE",rejected="false",type="admit"} 1"#,
                r#"{name="ResourceQuota",operation="UPDATE",rejected="true",type="validate"} 1"#,
            ]
        );
    }

    #[test]
    fn every_plugin_has_its_place_and_its_name() {
        for (place, plugin) in Plugin::ALL.iter().enumerate() {
            assert_eq!(*plugin as usize, place);
            assert_eq!(plugin.name(), format!("{plugin:?}"));
        }
    }
}
