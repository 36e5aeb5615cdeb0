//! Bodies of requests: JSON, YAML and protobuf, with and without a schema, then everything that looks at an object.
#![no_main]

use k3sd_objects::schema::kind_schema;
use k3sd_objects::{decode, default, protobuf, table, validate};
use libfuzzer_sys::fuzz_target;

const KINDS: &[(&str, &str)] = &[("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Service"), ("batch/v1", "Job")];

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let (api_version, kind) = KINDS[usize::from(*choice) % KINDS.len()];
    let schema = kind_schema(api_version, kind).expect("a built-in kind");
    let decoded = match choice / 4 % 3 {
        0 => decode::json(body, Some(schema)).ok().map(|decoded| decoded.value),
        1 => decode::yaml(body, Some(schema)).ok().map(|decoded| decoded.value),
        _ => protobuf::decode(body).ok(),
    };
    let Some(mut value) = decoded else { return };
    decode::normalize(&mut value, schema);
    default::apply(&mut value, schema);
    // What they find doesn't matter; that they come back does.
    drop(validate::validate(&value, None, schema));
    drop(table::cells(&value, Some(schema), 0));
    drop(protobuf::encode(&value));
});
