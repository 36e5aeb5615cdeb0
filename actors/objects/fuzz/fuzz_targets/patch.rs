//! Patches of each kind over objects of any shape.
#![no_main]

use k3sd_objects::patch;
use k3sd_objects::schema::kind_schema;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let middle = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let (object, patch) = rest.split_at(middle);
    let Ok(object) = serde_json::from_slice::<Value>(object) else { return };
    let Ok(patch) = serde_json::from_slice::<Value>(patch.get(1..).unwrap_or_default()) else { return };
    let schema = kind_schema("v1", "Pod").expect("a built-in kind");
    // What they find doesn't matter; that they come back does.
    match choice % 3 {
        0 => drop(patch::apply_json_patch(object, &patch)),
        1 => drop(patch::apply_merge_patch(object, patch)),
        _ => drop(patch::apply_strategic_patch(object, patch, schema)),
    }
});
