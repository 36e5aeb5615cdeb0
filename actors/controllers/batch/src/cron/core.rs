//! When a CronJob is due, and which of its Jobs are old: pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k3sd_objects::cron::{Schedule, zone};
use k8s_openapi::api::batch::v1::{CronJob, Job};

/// Missed times from which on somebody is told; upstream's number.
const MISSED_MANY: i64 = 100;
/// How long after its time a Job is begun, so that clocks that differ a little agree that it is over.
const DELTA: SignedDuration = SignedDuration::from_millis(100);

/// A schedule with its time zone.
#[derive(Clone, Debug)]
pub struct Plan {
    schedule: Schedule,
    /// In which times are meant.
    pub zone: TimeZone,
}

/// What is wrong with a schedule: the reason, and what people read.
pub type Fault = (&'static str, String);

impl Plan {
    /// What a CronJob asks for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(cron: &CronJob) -> Result<Self, Fault> {
        let Some(spec) = &cron.spec else {
            return Err(("UnparseableSchedule", "unparseable schedule: \"\"".to_owned()));
        };
        let named = |name: &str| {
            let unknown = || format!("invalid timeZone: {name:?}: unknown time zone {name}");
            zone(name).ok_or_else(|| ("UnknownTimeZone", unknown()))
        };
        let asked = spec.time_zone.as_deref().map(named).transpose()?;
        let unparseable =
            |fault: String| ("UnparseableSchedule", format!("unparseable schedule: {:?} : {fault}", spec.schedule));
        let schedule = Schedule::parse(&spec.schedule).map_err(unparseable)?;
        let own = match &schedule.zone {
            Some(name) => {
                let unknown = || unparseable(format!("provided bad location {name}: unknown time zone {name}"));
                Some(zone(name).ok_or_else(unknown)?)
            }
            None => None,
        };
        Ok(Self { schedule, zone: own.or(asked).unwrap_or(TimeZone::UTC) })
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, &self.zone)
    }

    /// The last time that has come and wasn't met.
    fn recent(&self, cron: &CronJob, now: Timestamp, within_deadline: bool) -> Result<Recent, String> {
        let made = cron.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |made| made.0);
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let mut earliest = last.map_or(made, |last| last.0);
        let deadline = cron.spec.as_ref().and_then(|spec| spec.starting_deadline_seconds);
        if within_deadline && let Some(seconds) = deadline {
            earliest = earliest.max(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
        }
        let none = Recent { earliest, time: None, missed: 0 };
        let Some(first) = self.next(earliest).filter(|first| *first <= now) else { return Ok(none) };
        let Some(second) = self.next(first).filter(|second| *second <= now) else {
            return Ok(Recent { time: Some(first), ..none });
        };
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return Err("time difference between two schedules is less than 1 second".to_owned());
        }
        // As many as fit if they are regular; from a little before the last of these on they are looked for one by one.
        let missed = now.duration_since(first).as_secs() / between + 1;
        let near = first.checked_add(SignedDuration::from_secs(missed.saturating_sub(2).saturating_mul(between)));
        let (mut time, mut next) = (None, self.next(near.unwrap_or(first)));
        while let Some(found) = next.filter(|found| *found <= now) {
            (time, next) = (Some(found), self.next(found));
        }
        Ok(Recent { earliest, time, missed })
    }

    /// The time for which a Job is missing, if there is one, and whether many were missed.
    ///
    /// # Errors
    /// The schedule makes no sense, in words.
    pub fn unmet(&self, cron: &CronJob, now: Timestamp) -> Result<Option<(Timestamp, bool)>, String> {
        let recent = self.recent(cron, now, true)?;
        Ok(recent.time.map(|time| (time, recent.missed > MISSED_MANY)))
    }

    /// When to look again.
    pub fn again(&self, cron: &CronJob, now: Timestamp) -> Option<Timestamp> {
        let from = match self.recent(cron, now, false) {
            Ok(Recent { time: Some(time), .. }) => time,
            Ok(Recent { earliest, missed: 0, .. }) => earliest,
            _ => now,
        };
        self.next(from)?.checked_add(DELTA).ok()
    }
}

struct Recent {
    /// From when on times count.
    earliest: Timestamp,
    time: Option<Timestamp>,
    /// Roughly.
    missed: i64,
}

/// Whether a time is longer ago than a CronJob wants to be late.
pub fn is_too_late(cron: &CronJob, time: Timestamp, now: Timestamp) -> bool {
    let deadline = cron.spec.as_ref().and_then(|spec| spec.starting_deadline_seconds);
    deadline.is_some_and(|seconds| {
        time.checked_add(SignedDuration::from_secs(seconds)).is_ok_and(|deadline| deadline < now)
    })
}

/// The name of the Job of a time.
pub fn job_name(cron: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), time.as_second() / 60)
}

/// How a Job has ended: the type of the condition.
pub fn ended(job: &Job) -> Option<&'static str> {
    let status = job.status.as_ref();
    ["Complete", "Failed"].into_iter().find(|kind| crate::job::core::condition(status, kind).is_some())
}

/// Of the Jobs that ended in such a way, the oldest beyond the limit.
pub fn surplus<'a, J: std::ops::Deref<Target = Job>>(jobs: &'a [J], end: &str, limit: Option<i32>) -> Vec<&'a Job> {
    let Some(limit) = limit else { return Vec::new() };
    let mut all: Vec<&Job> = jobs.iter().map(|job| &**job).filter(|job| ended(job) == Some(end)).collect();
    let surplus = all.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    all.sort_by_key(|job| {
        let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|started| started.0);
        (started.is_none(), started, job.metadata.name.clone())
    });
    all.truncate(surplus);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn cron(spec: Value, last: Option<&str>) -> CronJob {
        let mut spec = spec;
        spec["jobTemplate"] = json!({});
        let status = json!({"lastScheduleTime": last});
        let metadata = json!({"name": "tick", "creationTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).expect("a CronJob")
    }

    #[test]
    fn the_last_time_that_has_come_is_the_one_that_counts() {
        let hourly = json!({"schedule": "0 * * * *"});
        let late = json!({"schedule": "0 * * * *", "startingDeadlineSeconds": 600});
        let business = json!({"schedule": "30 6-16/4 * * 1-5"});
        for (spec, last, now, expected) in [
            (&hourly, None, "2026-01-01T00:59:59Z", None),
            (&hourly, None, "2026-01-01T01:00:00Z", Some(("2026-01-01T01:00:00Z", false))),
            (&hourly, Some("2026-01-01T01:00:00Z"), "2026-01-01T01:30:00Z", None),
            (&hourly, None, "2026-01-02T00:30:00Z", Some(("2026-01-02T00:00:00Z", false))),
            (&hourly, None, "2026-01-09T00:30:00Z", Some(("2026-01-09T00:00:00Z", true))),
            (&late, None, "2026-01-09T00:05:00Z", Some(("2026-01-09T00:00:00Z", false))),
            (&late, None, "2026-01-09T00:30:00Z", None),
            (&business, None, "2026-01-05T12:00:00Z", Some(("2026-01-05T10:30:00Z", false))),
        ] {
            let cron = cron(spec.clone(), last);
            let found = Plan::of(&cron).expect("a plan").unmet(&cron, at(now)).expect("it makes sense");
            assert_eq!(found, expected.map(|(time, many)| (at(time), many)), "{spec} {last:?} {now}");
        }
    }

    #[test]
    fn it_is_looked_at_when_the_next_time_has_come() {
        let cron = cron(json!({"schedule": "30 2 * * *", "timeZone": "Europe/Berlin"}), Some("2026-03-28T01:30:00Z"));
        let plan = Plan::of(&cron).expect("a plan");
        // That night has no half past two.
        assert_eq!(plan.again(&cron, at("2026-03-28T12:00:00Z")), Some(at("2026-03-30T00:30:00.1Z")));
    }

    #[test]
    fn faults_are_told_in_the_words_of_upstream() {
        let fault = |spec: Value| Plan::of(&cron(spec, None)).expect_err("a fault");
        let zone = fault(json!({"schedule": "* * * * *", "timeZone": "Mars/Base"}));
        assert_eq!(
            zone,
            ("UnknownTimeZone", "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base".to_owned())
        );
        let (reason, message) = fault(json!({"schedule": "61 * * * *"}));
        assert_eq!(reason, "UnparseableSchedule");
        assert_eq!(message, "unparseable schedule: \"61 * * * *\" : end of range (61) above maximum (59): 61");
    }

    #[test]
    fn names_and_deadlines_follow_from_the_time() {
        let cron = cron(json!({"schedule": "* * * * *", "startingDeadlineSeconds": 10}), None);
        assert_eq!(job_name(&cron, at("2026-01-01T00:01:00Z")), "tick-29453761");
        let time = at("2026-01-01T00:00:00Z");
        assert!(
            !is_too_late(&cron, time, at("2026-01-01T00:00:10Z"))
                && is_too_late(&cron, time, at("2026-01-01T00:00:11Z"))
        );
    }

    #[test]
    fn the_oldest_jobs_beyond_the_limit_go() {
        let job = |name: &str, start: &str, end: &str| -> Box<Job> {
            let conditions = json!([{"type": end, "status": "True"}]);
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"template": {}},
                "status": {"startTime": start, "conditions": conditions}}))
            .expect("a Job")
        };
        let jobs = [
            job("c", "2026-01-03T00:00:00Z", "Complete"),
            job("a", "2026-01-01T00:00:00Z", "Complete"),
            job("b", "2026-01-02T00:00:00Z", "Complete"),
            job("f", "2026-01-01T00:00:00Z", "Failed"),
            job("runs", "2026-01-01T00:00:00Z", "Suspended"),
        ];
        let names = |end, limit| -> Vec<&str> {
            surplus(&jobs, end, limit).into_iter().filter_map(|job| job.metadata.name.as_deref()).collect()
        };
        assert_eq!((names("Complete", Some(1)), names("Failed", Some(1))), (vec!["a", "b"], vec![]));
        assert_eq!((names("Complete", None), names("Failed", Some(0))), (vec![], vec!["f"]));
    }
}
