//! Probes: whether containers have started, live and are ready.
//!
//! [`machine`] counts, and knows when the next try is; `check` tries. The tries of a pod are part of its actor.

pub(crate) mod check;
mod grpc;
pub mod machine;
pub(crate) mod run;

use std::collections::BTreeMap;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Whether the container has started; the others wait for it.
    Startup,
    /// Whether it has to be started again.
    Liveness,
    /// Whether it may be sent requests.
    Readiness,
}

impl Kind {
    /// How events name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// What counts before the first try.
    #[must_use]
    pub fn initial(self) -> Outcome {
        match self {
            Self::Startup => Outcome::Unknown,
            Self::Liveness => Outcome::Success,
            Self::Readiness => Outcome::Failure,
        }
    }
}

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Yes.
    Success,
    /// No.
    Failure,
    /// Not known yet.
    Unknown,
}

/// What the probes of a pod's containers say, by the container's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(BTreeMap<(String, Kind), Outcome>);

impl Results {
    /// Whether the container has started, if a probe looks at that.
    #[must_use]
    pub fn startup(&self, id: &str) -> Option<Outcome> {
        self.get(id, Kind::Startup)
    }

    /// Whether the container lives, if a probe looks at that.
    #[must_use]
    pub fn liveness(&self, id: &str) -> Option<Outcome> {
        self.get(id, Kind::Liveness)
    }

    /// Whether the container is ready, if a probe looks at that.
    #[must_use]
    pub fn readiness(&self, id: &str) -> Option<Outcome> {
        self.get(id, Kind::Readiness)
    }

    pub(crate) fn get(&self, id: &str, kind: Kind) -> Option<Outcome> {
        self.0.get(&(id.to_owned(), kind)).copied()
    }

    /// Notes what a probe says. Says whether that is new.
    pub fn set(&mut self, id: &str, kind: Kind, outcome: Outcome) -> bool {
        self.0.insert((id.to_owned(), kind), outcome) != Some(outcome)
    }

    /// Forgets containers that are gone.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(id, _), _| keep(id));
    }
}
