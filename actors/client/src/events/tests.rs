//! The memories, as tables.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::Moment;
use k8s_openapi::api::core::v1::ObjectReference;

use super::correlate::{Correlator, Instant, event_name};
use super::series::{OVER_AFTER, Series};
use super::{Action, Happened, clip};

const WALL: i64 = 1_900_000_000;

fn at(seconds: u64) -> Instant {
    let wall = Timestamp::from_second(WALL + seconds as i64).expect("in range");
    Instant { now: Moment::START + Duration::from_secs(seconds), wall }
}

fn pod(name: &str) -> ObjectReference {
    let text = |text: &str| Some(text.to_owned());
    ObjectReference { kind: text("Pod"), namespace: text("a"), name: text(name), ..ObjectReference::default() }
}

fn happened(name: &str, message: &str) -> Happened {
    let (about, reason, message) = (pod(name), "Failed".to_owned(), message.to_owned());
    Happened { component: "test", host: "".into(), about, kind: "Warning", reason, message, action: None }
}

#[test]
fn the_same_again_is_counted() {
    let mut correlator = Correlator::new();
    let first = correlator.correlate(happened("x", "no"), at(0)).expect("written");
    assert!(first.patch.is_none());
    assert_eq!(first.event.metadata.name.as_deref(), Some("x.1a5e27eef13e0000"));
    for count in 2..10 {
        let again = correlator.correlate(happened("x", "no"), at(count)).expect("written");
        let patch = again.patch.expect("there is one");
        assert_eq!((&patch["count"], &patch["message"]), (&count.into(), &"no".into()));
        assert_eq!(patch["lastTimestamp"], serde_json::json!(again.event.last_timestamp));
        assert_eq!((again.key, again.event.metadata.name), (first.key, first.event.metadata.name.clone()));
        assert_eq!(again.event.first_timestamp, first.event.first_timestamp);
    }
    for other in [
        happened("y", "no"),
        happened("x", "yes"),
        Happened { reason: "Other".to_owned(), ..happened("x", "no") },
        Happened { kind: "Normal", ..happened("x", "no") },
        Happened { component: "else", ..happened("x", "no") },
    ] {
        assert!(correlator.correlate(other.clone(), at(20)).expect("written").patch.is_none(), "{other:?}");
    }
}

#[test]
fn many_alike_become_one_until_it_is_quiet() {
    let mut correlator = Correlator::new();
    let mut told = Vec::new();
    for number in 0..13 {
        let write = correlator.correlate(happened("x", &format!("no {number}")), at(number)).expect("written");
        told.push((write.event.message.expect("set"), write.patch.is_some()));
    }
    assert_eq!(told[8], ("no 8".to_owned(), false));
    // The tenth message is one too many.
    assert_eq!(told[9], ("(combined from similar events): no 9".to_owned(), false));
    assert_eq!(told[10], ("(combined from similar events): no 10".to_owned(), true));
    assert_eq!(told[12], ("(combined from similar events): no 12".to_owned(), true));
    // Exactly ten minutes after the last it goes on, and after more it doesn't.
    let later = correlator.correlate(happened("x", "no 99"), at(612)).expect("written");
    assert!(later.event.message.expect("set").starts_with('('));
    let quiet = correlator.correlate(happened("x", "no 99"), at(612 + 601)).expect("written");
    assert_eq!((quiet.event.message.as_deref(), quiet.patch), (Some("no 99"), None));
}

#[test]
fn one_object_has_twenty_five_and_then_one_in_five_minutes() {
    let mut correlator = Correlator::new();
    let mut written = |name: &str, seconds| correlator.correlate(happened(name, "no"), at(seconds)).is_some();
    assert_eq!((0..40).filter(|_| written("x", 0)).count(), 25);
    assert!(written("y", 0), "others have their own");
    assert!(!written("x", 299));
    assert!(written("x", 300) && !written("x", 300));
    assert_eq!((0..9).filter(|_| written("x", 1200)).count(), 3);
    assert_eq!((0..99).filter(|_| written("x", 1_000_000)).count(), 25, "never more than that");
    // What was not written was counted all the same.
    let last = correlator.correlate(happened("x", "no"), at(2_000_000)).expect("written");
    assert_eq!(last.event.count, Some(40 + 1 + 2 + 9 + 99 + 1));
}

#[test]
fn a_series_begins_with_the_second_and_is_written_when_it_is_over() {
    let mut series = Series::new();
    let action = Some(Action { name: "Scheduling".to_owned(), related: None });
    let mut event = Happened { action, host: "h".into(), ..happened("x", "0/3 nodes are available") };
    let first = series.take(&event, at(0)).expect("written");
    assert!(first.patch.is_none() && first.event.series.is_none());
    assert_eq!(first.event.reporting_instance.as_deref(), Some("test-h"));
    assert_eq!(first.event.action.as_deref(), Some("Scheduling"));
    event.message = "0/4 nodes are available".to_owned();
    let second = series.take(&event, at(1)).expect("written");
    assert_eq!(second.patch.expect("there is one")["series"]["count"], 2);
    assert_eq!(second.event.metadata.name, first.event.metadata.name);
    assert!(series.take(&event, at(2)).is_none() && series.take(&event, at(3)).is_none());
    assert!(series.sweep(at(4).now).is_empty(), "it goes on");
    let last = series.sweep(at(3).now + OVER_AFTER);
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].patch.as_ref().expect("there is one")["series"]["count"], 4);
    assert!(series.is_empty());

    series.take(&event, at(0));
    event.about.resource_version = Some("7".to_owned());
    assert!(series.take(&event, at(0)).expect("another").patch.is_none());
    assert!(series.sweep(at(400).now).is_empty() && series.is_empty(), "single ones are only forgotten");

    // A series that goes on is written each half hour.
    let written = |second: u64, series: &mut Series| {
        series.take(&event, at(second));
        series.sweep(at(second).now).len()
    };
    let writes: Vec<u64> = (1000..6000).step_by(60).filter(|second| written(*second, &mut series) > 0).collect();
    assert_eq!(writes, [2860, 4660], "the second was written at 1060");
}

#[test]
fn names_are_valid_whatever_the_object_is_called() {
    let wall = at(0).wall;
    assert_eq!(event_name(&pod("web-0"), wall), "web-0.1a5e27eef13e0000");
    for odd in ["", "system:node:x", "UPPER", &"a".repeat(250), "-x"] {
        assert_eq!(event_name(&pod(odd), wall), "event.1a5e27eef13e0000", "{odd}");
    }
}

#[test]
fn long_messages_are_clipped_between_characters() {
    assert_eq!(clip("short".to_owned()), "short");
    assert_eq!(clip("x".repeat(1024)).len(), 1024);
    let clipped = clip("ä".repeat(600));
    assert!(clipped.len() <= 1024 && clipped.ends_with("ä ..."), "{}", clipped.len());
}
