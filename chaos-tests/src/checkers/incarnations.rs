//! Lives of actors, as the events of a tree tell of them.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sd_runtime::{Event, Exit, Happened, Moment};

/// Who dies is up again within this, as long as nothing more dies at or above that place: the longest wait between two
/// starts is 10 s, and a start may take 30 s.
pub const BACK_WITHIN: Duration = Duration::from_secs(45);
/// What an actor says that was asked to panic.
const ASKED: &str = "asked to panic";

/// Follows the events of one tree.
#[derive(Debug, Default)]
pub struct Lives {
    next: Option<u64>,
    /// The life that is on, by path.
    alive: BTreeMap<String, u64>,
    /// Since when nobody is there who should be.
    absent: BTreeMap<String, Moment>,
    findings: Vec<String>,
    /// Deaths that no supervisor had asked for.
    pub deaths: u64,
}

impl Lives {
    /// Takes the next event in.
    pub fn take(&mut self, event: &Event) {
        if let Some(next) = self.next
            && event.sequence != next
        {
            self.findings.push(format!("event {} follows {}", event.sequence, next.saturating_sub(1)));
        }
        self.next = Some(event.sequence + 1);
        let path = event.path.to_string();
        self.look_for_absent(event.at);
        match &event.happened {
            Happened::Started => {
                self.absent.remove(&path);
                if let Some(before) = self.alive.insert(path.clone(), event.incarnation) {
                    self.findings.push(format!("{path} began life {} during {before}", event.incarnation));
                }
            }
            Happened::Ended { exit, asked } => {
                self.deaths += u64::from(!asked);
                if let Exit::Panic(text) = exit
                    && text != ASKED
                {
                    self.findings.push(format!("{path} panicked: {text}"));
                }
                self.alive.remove(&path);
                self.forget_below(&path);
                if !asked && !matches!(exit, Exit::Normal | Exit::Shutdown) {
                    self.absent.insert(path, event.at);
                }
            }
            Happened::Removed => {
                self.alive.remove(&path);
                self.absent.remove(&path);
                self.forget_below(&path);
            }
            Happened::Stuck => self.findings.push(format!("{path} reaches no await")),
            Happened::Restarting { .. } | Happened::Escalated { .. } | Happened::Suspended | Happened::Resumed => {}
        }
    }

    /// Some events were missed: nothing is known any more of who is there.
    pub fn missed(&mut self) {
        (self.next, self.alive, self.absent) = (None, BTreeMap::new(), BTreeMap::new());
    }

    /// What was wrong until now.
    #[must_use]
    pub fn findings(mut self, now: Moment) -> Vec<String> {
        self.look_for_absent(now);
        self.findings
    }

    /// Children go with their supervisor, and are its successor's to start.
    fn forget_below(&mut self, path: &str) {
        let below = |other: &String| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let is_root = path == k3sd_runtime::ROOT;
        self.absent.retain(|other, _| !is_root && !below(other));
        self.alive.retain(|other, _| !is_root && !below(other));
    }

    fn look_for_absent(&mut self, now: Moment) {
        let late = self.absent.iter().filter(|(_, since)| now.since(**since) > BACK_WITHIN);
        let late: Vec<String> = late.map(|(path, _)| path.clone()).collect();
        for path in late {
            self.absent.remove(&path);
            self.findings.push(format!("{path} is not back {BACK_WITHIN:?} after its death"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, seconds: u64, path: &str, incarnation: u64, happened: Happened) -> Event {
        let at = Moment::START + Duration::from_secs(seconds);
        Event { sequence, at, path: path.into(), incarnation, happened }
    }

    fn died() -> Happened {
        Happened::Ended { exit: Exit::Killed, asked: false }
    }

    fn check(events: &[Event]) -> Vec<String> {
        let mut lives = Lives::default();
        events.iter().for_each(|event| lives.take(event));
        lives.findings(Moment::START + Duration::from_secs(100))
    }

    #[test]
    fn two_lives_at_once_a_late_return_and_a_panic_are_found() {
        let started = Happened::Started;
        let good =
            [event(1, 1, "a", 1, started.clone()), event(2, 2, "a", 1, died()), event(3, 3, "a", 2, started.clone())];
        assert_eq!(check(&good), Vec::<String>::new());
        assert_eq!(check(&[good[0].clone(), event(2, 2, "a", 2, started.clone())]), ["a began life 2 during 1"]);
        assert_eq!(check(&good[..2]), ["a is not back 45s after its death"]);
        assert_eq!(check(&[good[0].clone(), good[2].clone()])[0], "event 3 follows 1");
        let above = event(3, 3, "/", 1, died());
        assert_eq!(
            check(&[good[0].clone(), event(2, 2, "a", 1, died()), above])[..],
            ["/ is not back 45s after its death"]
        );
        let panic = Happened::Ended { exit: Exit::Panic("index".to_owned()), asked: false };
        assert_eq!(check(&[event(1, 99, "a", 1, panic)]), ["a panicked: index"]);
    }
}
