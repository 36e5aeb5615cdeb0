//! What to do with a lease: pure.
//!
//! Clocks of different machines are never compared. What a lease says about times is for people; whoever wants it counts,
//! by its own clock, since when the lease has stood unchanged.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::{Moment, Rng};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;

/// How much longer than a period a wait may be, as a share of the period; so that those who wait don't come in step.
const JITTER: f64 = 1.2;

/// Times of an election. All who compete have to use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease has to stand unchanged before somebody else takes it. Whole seconds. 15 s.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up. 10 s.
    pub renew_deadline: Duration,
    /// The time between two attempts. 2 s.
    pub retry_period: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Terms {
    /// The longest time from the start of a renewal that succeeded to giving up: one period of rest, and then the time for
    /// the next renewal.
    pub fn patience(&self) -> Duration {
        self.retry_period + self.renew_deadline
    }

    pub(super) fn check(&self) {
        let Self { lease_duration, renew_deadline, retry_period } = *self;
        assert!(lease_duration >= Duration::from_secs(1), "a lease lasts whole seconds, not {lease_duration:?}");
        assert!(lease_duration > self.patience(), "{lease_duration:?} is over before a leader gives up");
        assert!(renew_deadline > retry_period.mul_f64(JITTER), "{renew_deadline:?} is too short for two attempts");
        assert!(!retry_period.is_zero(), "attempts need time between them");
    }

    /// The wait of somebody who doesn't lead.
    pub(super) fn jittered(&self, rng: &mut Rng) -> Duration {
        self.retry_period.mul_f64(1.0 + JITTER * rng.fraction())
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX)
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// There is no lease: make this one.
    Create(Box<Lease>),
    /// Write this one over what was found, if that is still what is there.
    Update(Box<Lease>),
    /// It is somebody else's.
    Wait,
}

/// The lease as it was last seen, and since when it has been that.
#[derive(Clone, Debug)]
struct Observed {
    lease: Lease,
    since: Moment,
}

/// One competitor.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    name: String,
    identity: String,
    terms: Terms,
    observed: Option<Observed>,
}

impl Candidate {
    pub(super) fn new(name: &str, identity: &str, terms: Terms) -> Self {
        Self { name: name.to_owned(), identity: identity.to_owned(), terms, observed: None }
    }

    /// Who has the lease, as far as is known. Empty if nobody has.
    pub(super) fn holder(&self) -> &str {
        let spec = self.observed.as_ref().and_then(|observed| observed.lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    /// Whether the lease was last seen in our own name.
    pub(super) fn holds(&self) -> bool {
        !self.identity.is_empty() && self.holder() == self.identity
    }

    /// Notes what is there. The time only starts anew when the lease says something else than before.
    pub(super) fn observe(&mut self, found: Option<Lease>, now: Moment) {
        let before = self.observed.take();
        self.observed = found.map(|lease| {
            let same = before.filter(|before| before.lease.spec == lease.spec);
            Observed { lease, since: same.map_or(now, |before| before.since) }
        });
    }

    /// Notes what we wrote, in an attempt that began then.
    pub(super) fn wrote(&mut self, lease: Lease, began: Moment) {
        self.observed = Some(Observed { lease, since: began });
    }

    /// A renewal of what was last seen, without looking first; for a holder whose lease hasn't run out.
    pub(super) fn renewal(&self, now: Moment, wall: Timestamp) -> Option<Lease> {
        let observed = self.observed.as_ref().filter(|_| self.holds() && !self.has_run_out(now))?;
        Some(self.held(&observed.lease, wall))
    }

    /// What to do about what was last observed.
    pub(super) fn decide(&self, now: Moment, wall: Timestamp) -> Decision {
        let Some(observed) = &self.observed else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let new = Lease { metadata, spec: None };
            return Decision::Create(Box::new(self.taken(&new, 0, wall)));
        };
        if self.holds() {
            return Decision::Update(Box::new(self.held(&observed.lease, wall)));
        }
        if !self.holder().is_empty() && !self.has_run_out(now) {
            return Decision::Wait;
        }
        let transitions = observed.lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        Decision::Update(Box::new(self.taken(&observed.lease, transitions.saturating_add(1), wall)))
    }

    /// The lease given back, if it is ours: others need not wait.
    pub(super) fn release(&self, wall: Timestamp) -> Option<Lease> {
        let observed = self.observed.as_ref().filter(|_| self.holds())?;
        let mut lease = observed.lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        (spec.acquire_time, spec.renew_time) = (Some(MicroTime(wall)), Some(MicroTime(wall)));
        Some(lease)
    }

    fn has_run_out(&self, now: Moment) -> bool {
        self.observed.as_ref().is_none_or(|observed| now >= observed.since + self.terms.lease_duration)
    }

    /// The same lease in our name for longer.
    fn held(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.lease_duration_seconds = Some(self.terms.seconds());
        spec.renew_time = Some(MicroTime(wall));
        lease
    }

    /// The lease in our name from now on.
    fn taken(&self, lease: &Lease, transitions: i32, wall: Timestamp) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.terms.seconds()),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..lease.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_900_000_000;

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(WALL + seconds).expect("in range")
    }

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn candidate() -> Candidate {
        Candidate::new("lock", "me", Terms::default())
    }

    fn lease(holder: Option<&str>, renewed: i64, transitions: Option<i32>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            acquire_time: Some(MicroTime(wall(0))),
            renew_time: Some(MicroTime(wall(renewed))),
            lease_transitions: transitions,
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some(renewed.to_string()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    /// Holder, transitions and seconds of acquiring and renewing in what would be written.
    fn told(decision: Decision) -> (String, i32, i64, i64) {
        let (Decision::Create(lease) | Decision::Update(lease)) = decision else { return (String::new(), -1, 0, 0) };
        let spec = lease.spec.expect("written");
        assert_eq!(spec.lease_duration_seconds, Some(15));
        let seconds = |time: Option<MicroTime>| time.expect("written").0.as_second() - WALL;
        let (holder, transitions) = (spec.holder_identity.expect("written"), spec.lease_transitions.expect("written"));
        (holder, transitions, seconds(spec.acquire_time), seconds(spec.renew_time))
    }

    #[test]
    fn what_is_there_decides() {
        let waits = (String::new(), -1, 0, 0);
        let takes = |transitions, now| ("me".to_owned(), transitions, now, now);
        // What was seen at second 1, when is decided, and what.
        for (case, seen, now, expected) in [
            ("no lease", None, 1, takes(0, 1)),
            ("given back", Some(lease(Some(""), 0, Some(4))), 1, takes(5, 1)),
            ("a lease that says nothing", Some(lease(None, 0, None)), 1, takes(1, 1)),
            ("somebody else's", Some(lease(Some("you"), 0, Some(4))), 1, waits.clone()),
            ("a moment before its end", Some(lease(Some("you"), 0, Some(4))), 15, waits.clone()),
            ("unchanged for its time", Some(lease(Some("you"), 0, Some(4))), 16, takes(5, 16)),
            // What it says of times doesn't count: other clocks may be wrong.
            ("renewed in the future", Some(lease(Some("you"), 9_999, Some(4))), 16, takes(5, 16)),
            ("long since renewed", Some(lease(Some("you"), -9_999, Some(4))), 15, waits),
            ("our own", Some(lease(Some("me"), 0, Some(4))), 3, ("me".to_owned(), 4, 0, 3)),
            ("our own, run out", Some(lease(Some("me"), 0, Some(4))), 99, ("me".to_owned(), 4, 0, 99)),
        ] {
            let mut candidate = candidate();
            candidate.observe(seen.clone(), at(1));
            let decision = candidate.decide(at(now as u64), wall(now));
            assert_eq!(matches!(decision, Decision::Create(_)), seen.is_none(), "{case}");
            assert_eq!(told(decision), expected, "{case}");
        }
    }

    #[test]
    fn only_a_change_of_what_it_says_starts_the_time_anew() {
        let mut candidate = candidate();
        candidate.observe(Some(lease(Some("you"), 0, None)), at(0));
        // Somebody put a label on it.
        let mut labelled = lease(Some("you"), 0, None);
        labelled.metadata.resource_version = Some("77".to_owned());
        candidate.observe(Some(labelled), at(10));
        assert!(matches!(candidate.decide(at(14), wall(14)), Decision::Wait));
        let Decision::Update(taken) = candidate.decide(at(15), wall(15)) else { panic!("it has run out") };
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("77"), "compared with what was seen last");
        // It was renewed after all.
        candidate.observe(Some(lease(Some("you"), 9, None)), at(15));
        assert!(matches!(candidate.decide(at(29), wall(29)), Decision::Wait));
        assert!(matches!(candidate.decide(at(30), wall(30)), Decision::Update(_)));
    }

    #[test]
    fn a_holder_renews_without_looking_until_the_lease_has_run_out() {
        let mut candidate = candidate();
        assert!(candidate.renewal(at(0), wall(0)).is_none(), "nothing is known");
        candidate.wrote(lease(Some("me"), 0, Some(2)), at(0));
        assert!(candidate.holds());
        let renewed = candidate.renewal(at(14), wall(14)).expect("it still holds");
        assert_eq!(told(Decision::Update(Box::new(renewed))), ("me".to_owned(), 2, 0, 14));
        assert!(candidate.renewal(at(15), wall(15)).is_none());
        candidate.observe(Some(lease(Some("you"), 3, Some(3))), at(3));
        assert!(!candidate.holds() && candidate.renewal(at(4), wall(4)).is_none());
    }

    #[test]
    fn only_the_holder_gives_back() {
        let mut candidate = candidate();
        assert!(candidate.release(wall(1)).is_none());
        candidate.observe(Some(lease(Some("you"), 0, Some(3))), at(0));
        assert!(candidate.release(wall(1)).is_none());
        candidate.observe(Some(lease(Some("me"), 0, Some(3))), at(0));
        let spec = candidate.release(wall(1)).expect("it is ours").spec.expect("written");
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some(""), Some(1)));
        assert_eq!(spec.lease_transitions, Some(3));
    }

    #[test]
    fn waits_are_between_one_and_two_point_two_periods() {
        let (terms, mut rng) = (Terms::default(), Rng::seeded(1));
        for _ in 0..1000 {
            let wait = terms.jittered(&mut rng).as_secs_f64();
            assert!((2.0..4.4).contains(&wait), "{wait}");
        }
        terms.check();
        assert!(terms.patience() < terms.lease_duration);
    }
}
