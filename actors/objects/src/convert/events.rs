//! Events: the group of their own has other names for what core has.

use serde_json::{Map, Value};

/// Name in core, name in the group of events.
const NAMES: &[(&str, &str)] = &[
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn to_own_group(event: &mut Map<String, Value>) {
    for (core, own) in NAMES {
        rename(event, core, own);
    }
}

pub(super) fn to_core(event: &mut Map<String, Value>) {
    for (core, own) in NAMES {
        rename(event, own, core);
    }
}

fn rename(event: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = event.remove(from) {
        event.insert(to.to_owned(), value);
    }
}
